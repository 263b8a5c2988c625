//! One place that may serve a request.
use std::sync::Arc;

use tollgate_core::wire::prompt::Dialect;

use crate::target::{Place, Target};

/// One place that may serve a request: another model where the request goes anyway, or a whole
/// [`Target`].
///
/// ```
/// use tollgate_fallback::{Candidate, ModelChain};
///
/// let chain = ModelChain::new([
///     Candidate::model("gpt-5").context_window(400_000),
///     Candidate::model("gpt-4.1").context_window(1_000_000).without("reasoning_effort"),
/// ])?;
/// assert_eq!(chain.candidates().len(), 2);
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
#[derive(Clone, Debug)]
pub struct Candidate {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) place: Option<Arc<Place>>,
    /// Told by the user.
    pub(crate) dialect: Option<Dialect>,
    /// Told, or surely known; filled in when the chain is made.
    pub(crate) speaks: Option<Dialect>,
    pub(crate) window: Option<u64>,
    pub(crate) edits: Vec<Edit>,
}

/// A change of one parameter's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    Rename(Box<str>, Box<str>),
    Drop(Box<str>),
}

impl Candidate {
    /// Another model of the same provider: the same origin, path and key.
    pub fn model(name: impl Into<Arc<str>>) -> Self {
        Self {
            model: Some(name.into()),
            ..Self::own()
        }
    }

    /// A whole target.
    #[must_use]
    pub fn target(target: Target) -> Self {
        target.into()
    }

    /// The most tokens, prompt and answer together, that the model takes. Default: unknown.
    ///
    /// A request that is estimated to be larger is not sent there, and one that was too long for
    /// another candidate only if this one is larger.
    #[must_use]
    pub fn context_window(mut self, tokens: u64) -> Self {
        self.window = Some(tokens);
        self
    }

    /// Gives a top-level parameter another name, such as `max_tokens` that of
    /// `max_completion_tokens`. Nothing happens to a request that has the new name already.
    #[must_use]
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.edits.push(Edit::Rename(from.into(), to.into()));
        self
    }

    /// Takes a top-level parameter out that the model does not know.
    #[must_use]
    pub fn without(mut self, parameter: &str) -> Self {
        self.edits.push(Edit::Drop(parameter.into()));
        self
    }

    /// The request as it came.
    pub(crate) const fn own() -> Self {
        Self {
            name: None,
            model: None,
            place: None,
            dialect: None,
            speaks: None,
            window: None,
            edits: Vec::new(),
        }
    }

    /// What it is called in messages: the target's name, or the model's.
    pub(crate) fn label(&self) -> &str {
        self.name
            .as_deref()
            .or(self.model.as_deref())
            .unwrap_or("the request's own model")
    }

    /// Whether a request for this model is already what this candidate would be sent.
    pub(crate) fn is_as_it_came(&self, model: Option<&str>) -> bool {
        self.place.is_none()
            && self.edits.is_empty()
            && (self.model.is_none() || self.model.as_deref() == model)
    }

    /// Whether it serves a request for this model as a chain's first.
    pub(crate) fn serves(&self, model: Option<&str>) -> bool {
        match &self.model {
            Some(mine) => model == Some(mine),
            // A target that keeps the request's model.
            None => true,
        }
    }
}

impl From<&str> for Candidate {
    fn from(model: &str) -> Self {
        Self::model(model)
    }
}

impl From<String> for Candidate {
    fn from(model: String) -> Self {
        Self::model(model)
    }
}

impl From<Target> for Candidate {
    fn from(target: Target) -> Self {
        target.candidate
    }
}
