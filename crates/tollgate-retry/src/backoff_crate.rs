//! The policies of the `backoff` crate in ours.
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::Backoff;

/// A policy of the [`backoff`] crate as one of ours.
///
/// That crate is no longer maintained ([RUSTSEC-2025-0012](https://rustsec.org/advisories/RUSTSEC-2025-0012)); this is for those
/// who have a policy of it already. [`FullJitter`](crate::FullJitter) does what its `ExponentialBackoff` does.
///
/// ```
/// use std::time::Duration;
/// use backoff::ExponentialBackoffBuilder;
/// use tollgate_retry::{BackoffPolicy, RateLimitPolicy};
///
/// let theirs = ExponentialBackoffBuilder::new()
///     .with_initial_interval(Duration::from_millis(100))
///     .build();
/// let policy = RateLimitPolicy::new().backoff(BackoffPolicy::new(theirs));
/// ```
///
/// Where the policy has no further pause (its maximal elapsed time is over), the pause is the wait cap: how often is tried is
/// [`RateLimitPolicy::attempts`](crate::RateLimitPolicy::attempts)' to say.
pub struct BackoffPolicy<P>(Mutex<P>);

impl<P: backoff::backoff::Backoff> BackoffPolicy<P> {
    /// Resets `policy` and asks it, for each pause.
    pub fn new(policy: P) -> Self {
        Self(Mutex::new(policy))
    }
}

impl<P: backoff::backoff::Backoff + Send> Backoff for BackoffPolicy<P> {
    fn pause(&self, retry: u32) -> Duration {
        let mut policy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        policy.reset();
        // Its sequence is asked for again from the beginning: a policy holds no state of a call's.
        for _ in 1..retry.min(64) {
            let _ = policy.next_backoff();
        }
        policy.next_backoff().unwrap_or(Duration::MAX)
    }
}

impl<P> fmt::Debug for BackoffPolicy<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackoffPolicy").finish_non_exhaustive()
    }
}
