//! The last calls that were not served, for the status page.
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::StatusCode;

/// So many are kept.
const KEPT: usize = 50;
/// So much of a name that came from a caller.
const NAME: usize = 64;

/// A call that was not served.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When.
    pub at: SystemTime,
    /// The name of the caller's key.
    pub caller: Option<Arc<str>>,
    /// What was asked for.
    pub endpoint: &'static str,
    /// Of which model.
    pub model: Option<Arc<str>>,
    /// The answer's status.
    pub status: StatusCode,
    /// Why.
    pub why: String,
}

/// The last of them.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<VecDeque<Refusal>>>);

impl Refusals {
    /// One more.
    pub fn note(&self, mut refusal: Refusal) {
        if let Some(model) = refusal.model.as_mut().filter(|model| model.len() > NAME) {
            *model = model
                .chars()
                .take(NAME / 4)
                .chain("…".chars())
                .collect::<String>()
                .into();
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.truncate(KEPT - 1);
        kept.push_front(refusal);
    }

    /// The latest first.
    #[must_use]
    pub fn latest(&self) -> Vec<Refusal> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fifty_are_kept_and_long_names_are_cut() {
        let refusals = Refusals::default();
        for number in 0..60_u16 {
            refusals.note(Refusal {
                at: SystemTime::UNIX_EPOCH,
                caller: None,
                endpoint: "other",
                model: Some(format!("{number}-{}", "ü".repeat(1_000)).into()),
                status: StatusCode::FORBIDDEN,
                why: String::new(),
            });
        }
        let latest = refusals.latest();
        assert_eq!(latest.len(), 50);
        let first = latest[0].model.as_deref().unwrap();
        assert!(first.starts_with("59-") && first.len() <= NAME, "{first}");
    }
}
