//! Stored responses whose usage has been told, for they can be fetched again and again.
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
};

use http::{Method, Uri};

/// Ids that are remembered.
const MOST: usize = 10_000;

/// Whether a request fetches a stored response, perhaps one that runs in the background:
/// `GET /v1/responses/resp_…`.
///
/// <https://platform.openai.com/docs/api-reference/responses/get>, as of 2026-11.
pub(crate) fn fetches(method: &Method, uri: &Uri) -> bool {
    let mut segments = uri.path().rsplit('/');
    let (id, place) = (segments.next(), segments.next());
    *method == Method::GET
        && place == Some("responses")
        && id.is_some_and(|id| id.starts_with("resp_"))
}

/// The latest ids, each with the call that told it.
#[derive(Default)]
pub(crate) struct Told(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    hasher: RandomState,
    calls: HashMap<u64, u64>,
    order: VecDeque<u64>,
}

impl Told {
    /// Whether no other call has told this id before. Two recorders may see the same call.
    pub(crate) fn first(&self, id: &str, call: u64) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = inner.hasher.hash_one(id);
        if let Some(before) = inner.calls.get(&id) {
            return *before == call;
        }
        if inner.order.len() >= MOST {
            if let Some(oldest) = inner.order.pop_front() {
                inner.calls.remove(&oldest);
            }
        }
        inner.order.push_back(id);
        inner.calls.insert(id, call);
        true
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_by_one_call_and_forgotten_after_many_others() {
        let told = Told::default();
        assert!(told.first("a", 1) && told.first("a", 1) && !told.first("a", 2));
        for n in 0..MOST as u64 {
            assert!(told.first(&format!("r-{n}"), n));
        }
        assert!(told.first("a", 2), "the oldest went");
        assert_eq!(told.0.lock().unwrap().calls.len(), MOST);
    }
}
