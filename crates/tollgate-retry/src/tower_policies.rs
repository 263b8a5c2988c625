//! tower's own retry policies in ours: its back-offs, its budgets.
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, Sleep};
use tower::retry::backoff::{Backoff as _, MakeBackoff};

use crate::Backoff;

/// A back-off of tower's ([`MakeBackoff`]) as one of ours.
///
/// It must be one that waits with tokio's [`Sleep`], as [`ExponentialBackoff`] does: how long a wait is, must be known
/// before it begins, so that one beyond the deadline is not begun at all.
///
/// ```
/// use std::time::Duration;
/// use tollgate_retry::{RateLimitPolicy, TowerBackoff};
/// use tower::{retry::backoff::ExponentialBackoffMaker, util::rng::HasherRng};
///
/// let (min, max) = (Duration::from_millis(100), Duration::from_secs(5));
/// let maker = ExponentialBackoffMaker::new(min, max, 0.5, HasherRng::default())?;
/// let policy = RateLimitPolicy::new().backoff(TowerBackoff::new(maker));
/// # Ok::<(), tower::retry::backoff::InvalidBackoff>(())
/// ```
///
/// [`ExponentialBackoff`]: tower::retry::backoff::ExponentialBackoff
pub struct TowerBackoff<M>(Mutex<M>);

impl<M> TowerBackoff<M> {
    /// Asks `maker` for a new back-off for each pause.
    pub fn new(maker: M) -> Self {
        Self(Mutex::new(maker))
    }
}

impl<M> Backoff for TowerBackoff<M>
where
    M: MakeBackoff + Send,
    M::Backoff: tower::retry::backoff::Backoff<Future = Sleep>,
{
    fn pause(&self, retry: u32) -> Duration {
        let mut backoff = {
            let mut maker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            maker.make_backoff()
        };
        // Its sequence is asked for again from the beginning: a policy holds no state of a call's.
        for _ in 1..retry.min(64) {
            drop(backoff.next_backoff());
        }
        let sleep = backoff.next_backoff();
        sleep.deadline().saturating_duration_since(Instant::now())
    }
}

impl<M> fmt::Debug for TowerBackoff<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TowerBackoff").finish_non_exhaustive()
    }
}
