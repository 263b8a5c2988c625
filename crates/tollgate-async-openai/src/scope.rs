//! What goes into a call and comes out of it beside async-openai's own interface.
use std::sync::{Arc, Mutex, PoisonError};

use http::Extensions;
use tollgate_core::call::CallOptions;
use tollgate_reqwest::ResponseExt;

type Kept = Arc<Mutex<Extensions>>;

tokio::task_local! {
    static SCOPE: Scope;
}

/// What [`scoped`] has said of the call that is made in this task; nothing outside of it.
#[derive(Clone, Default)]
pub(crate) struct Scope(Option<(CallOptions, Kept)>);

impl Scope {
    pub(crate) fn current() -> Self {
        SCOPE.try_with(Clone::clone).unwrap_or_default()
    }

    pub(crate) fn enter(&self, request: &mut Extensions) {
        if let Some((options, _)) = &self.0 {
            request.insert(options.clone());
        }
    }

    pub(crate) fn keep(&self, response: &Extensions) {
        if let Some((_, kept)) = &self.0 {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = response.clone();
        }
    }
}

/// Makes a call of async-openai's with options, and tells what the layers have left on its response.
///
/// The last response counts, if `call` makes several. Requests that other tasks make, which `call` has spawned, know nothing of it.
///
/// ```
/// use async_openai::{Client, config::OpenAIConfig, error::OpenAIError};
/// use async_openai::types::chat::CreateChatCompletionRequest;
/// use tollgate_async_openai::scoped;
/// use tollgate_core::call::{CallOptions, Priority};
/// use tollgate_reqwest::ResponseExt;
///
/// async fn ask(client: &Client<OpenAIConfig>, request: CreateChatCompletionRequest) -> Result<(), OpenAIError> {
///     let options = CallOptions::new().principal("alice").priority(Priority::High);
///     let (answer, seen) = scoped(options, client.chat().create(request)).await;
///     if let Some(refused) = seen.refused() {
///         println!("come back in {:?}", refused.retry_after);
///     }
///     println!("{} attempts", seen.attempts().len());
///     answer.map(drop)
/// }
/// ```
///
/// # Cancel safety
///
/// Dropped, it drops the call.
pub async fn scoped<F: Future>(options: CallOptions, call: F) -> (F::Output, Seen) {
    let kept = Kept::default();
    let scope = Scope(Some((options, Arc::clone(&kept))));
    let output = SCOPE.scope(scope, call).await;
    let left = std::mem::take(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner));
    (output, Seen { left })
}

/// What the layers have left on the response of a call: ask it by [`ResponseExt`].
///
/// Empty if there was no response.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    left: Extensions,
}

impl ResponseExt for Seen {
    fn left(&self) -> &Extensions {
        &self.left
    }
}
