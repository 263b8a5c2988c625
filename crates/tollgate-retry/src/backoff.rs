//! How long to pause when nobody says how long.
use std::time::Duration;

use crate::delay;

/// The pause before a retry that the server has said nothing about.
///
/// A closure from the number of the retry will do:
///
/// ```
/// use std::time::Duration;
/// use tollgate_retry::Backoff;
///
/// let linear = |retry: u32| Duration::from_secs(1) * retry;
/// assert_eq!(linear.pause(2), Duration::from_secs(2));
/// ```
pub trait Backoff: Send + Sync {
    /// The pause before retry number `retry`, 1 for the first of a call.
    ///
    /// A pause longer than the policy's wait cap is cut to it.
    fn pause(&self, retry: u32) -> Duration;
}

impl<F: Fn(u32) -> Duration + Send + Sync> Backoff for F {
    fn pause(&self, retry: u32) -> Duration {
        self(retry)
    }
}

/// Exponential back-off with full jitter: a random pause up to a ceiling that doubles.
///
/// The default, with a base of 0.5 s and a ceiling of at most 8 s: the first pause is up to 0.5 s,
/// the second up to 1 s, and so on. It is never less than a tenth of the base.
///
/// ```
/// use std::time::Duration;
/// use tollgate_retry::{Backoff, FullJitter};
///
/// let backoff = FullJitter::new(Duration::from_secs(1), Duration::from_secs(30));
/// assert!((0.1..=4.0).contains(&backoff.pause(3).as_secs_f64()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullJitter {
    base: Duration,
    cap: Duration,
}

impl FullJitter {
    /// The first ceiling is `base`, the last one `cap` (at least `base`).
    #[must_use]
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap: cap.max(base),
        }
    }
}

impl Default for FullJitter {
    fn default() -> Self {
        Self::new(Duration::from_millis(500), Duration::from_secs(8))
    }
}

impl Backoff for FullJitter {
    fn pause(&self, retry: u32) -> Duration {
        delay::full_jitter(self.base, self.cap, retry, fastrand::f64())
    }
}
