//! Keeps retries a small share of the traffic, so that an outage is not made worse.
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// Bounds retries: a share of all requests, and a floor so that a quiet client may retry too.
///
/// Each request earns a fraction of a retry, and the floor adds some a second whether there are
/// requests or not; each retry costs one. A retry that cannot be paid is not made. Over any time
/// of *t* seconds: attempts ≤ requests × (1 + ratio) + floor × (*t* + 10). At most
/// 1,000 earned retries and ten seconds' worth of the floor are kept for later.
///
/// It is a handle: clones share one account.
///
/// ```
/// use tokio::time::Instant;
/// use tollgate_retry::RetryBudget;
///
/// let budget = RetryBudget::new(0.1, 10);
/// assert_eq!(budget.balance(Instant::now()), 100.0, "ten seconds of the floor");
/// ```
#[derive(Clone)]
pub struct RetryBudget {
    ratio: u64,
    floor: u64,
    account: Arc<Mutex<Account>>,
    #[cfg(feature = "tower")]
    theirs: Option<Arc<dyn tower::retry::budget::Budget + Send + Sync>>,
}

/// In billionths of a retry.
#[derive(Debug)]
struct Account {
    earned: u64,
    floor: u64,
    at: Option<Instant>,
}

/// One retry.
const ONE: u64 = 1_000_000_000;
const MAX_EARNED: u64 = 1_000 * ONE;
const FLOOR_SECONDS: u64 = 10;

/// The most of the floor that is kept.
fn most(floor: u64) -> u64 {
    floor.saturating_mul(FLOOR_SECONDS * ONE)
}

impl RetryBudget {
    /// `ratio` retries for each request (0.1: ten percent; from 0 to 100, not a number counts as 0), and
    /// `floor` more a second.
    #[must_use]
    pub fn new(ratio: f64, floor: u32) -> Self {
        let ratio = if ratio.is_nan() { 0.0 } else { ratio };
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let ratio = (ratio.clamp(0.0, 100.0) * ONE as f64).round() as u64;
        let floor = u64::from(floor);
        Self {
            ratio,
            floor,
            account: Arc::new(Mutex::new(Account {
                earned: 0,
                floor: most(floor),
                at: None,
            })),
            #[cfg(feature = "tower")]
            theirs: None,
        }
    }

    /// A budget of tower's ([`TpsBudget`], or any other [`Budget`]) in place of our own account: each request deposits, each
    /// retry withdraws. A retry that was paid for and then not made, because its place at the gate came too late, stays paid.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate_retry::{RateLimitPolicy, RetryBudget};
    /// use tower::retry::budget::TpsBudget;
    ///
    /// let theirs = TpsBudget::new(Duration::from_secs(10), 10, 0.2);
    /// let policy = RateLimitPolicy::new().retry_budget(RetryBudget::tower(theirs));
    /// ```
    ///
    /// [`Budget`]: tower::retry::budget::Budget
    /// [`TpsBudget`]: tower::retry::budget::TpsBudget
    #[cfg(feature = "tower")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tower")))]
    #[must_use]
    pub fn tower(budget: impl tower::retry::budget::Budget + Send + Sync + 'static) -> Self {
        Self {
            theirs: Some(Arc::new(budget)),
            ..Self::new(0.0, 0)
        }
    }

    /// [`balance`](Self::balance); `None` if a foreign budget does not tell.
    pub(crate) fn known_balance(&self, now: Instant) -> Option<f64> {
        #[cfg(feature = "tower")]
        if self.theirs.is_some() {
            return None;
        }
        Some(self.balance(now))
    }

    /// How many retries could be paid at `now`; 0 of a foreign budget, which does not tell.
    #[must_use]
    pub fn balance(&self, now: Instant) -> f64 {
        let account = self.at(now);
        #[allow(clippy::cast_precision_loss)]
        let balance = account.earned.saturating_add(account.floor) as f64 / ONE as f64;
        balance
    }

    /// A request was made.
    pub(crate) fn deposit(&self) {
        #[cfg(feature = "tower")]
        if let Some(theirs) = &self.theirs {
            return theirs.deposit();
        }
        let mut account = self.lock();
        account.earned = account.earned.saturating_add(self.ratio).min(MAX_EARNED);
    }

    /// Pays for a retry; false if the account does not have it.
    pub(crate) fn withdraw(&self, now: Instant) -> bool {
        #[cfg(feature = "tower")]
        if let Some(theirs) = &self.theirs {
            return theirs.withdraw();
        }
        let mut account = self.at(now);
        // The floor first: it comes back by itself.
        if account.floor >= ONE {
            account.floor -= ONE;
        } else if account.earned >= ONE {
            account.earned -= ONE;
        } else {
            return false;
        }
        true
    }

    /// A retry that was paid for was not made after all.
    pub(crate) fn refund(&self) {
        let mut account = self.lock();
        account.earned = account.earned.saturating_add(ONE).min(MAX_EARNED);
    }

    /// The account with what the floor has added up to `now`.
    fn at(&self, now: Instant) -> MutexGuard<'_, Account> {
        let mut account = self.lock();
        let since = account.at.map_or(0, |at| {
            now.saturating_duration_since(at)
                .as_nanos()
                .try_into()
                .unwrap_or(u64::MAX)
        });
        // A nanosecond at one a second is a billionth of a retry.
        let added = since.saturating_mul(self.floor);
        account.floor = account.floor.saturating_add(added).min(most(self.floor));
        // Never backwards, or the same time would count twice.
        account.at = Some(account.at.map_or(now, |at| at.max(now)));
        account
    }

    fn lock(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for RetryBudget {
    /// Ten percent of the requests, and ten a second.
    fn default() -> Self {
        Self::new(0.1, 10)
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_precision_loss)]
        let ratio = self.ratio as f64 / ONE as f64;
        f.debug_struct("RetryBudget")
            .field("ratio", &ratio)
            .field("floor", &self.floor)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ten_requests_earn_one_retry() {
        let (budget, now) = (RetryBudget::new(0.1, 0), Instant::now());
        for _ in 0..9 {
            budget.deposit();
        }
        assert!(!budget.withdraw(now), "nine have not earned it");
        budget.deposit();
        assert!(budget.withdraw(now));
        assert!(!budget.withdraw(now));
    }

    #[test]
    fn the_floor_comes_back_with_time_and_not_twice() {
        let (budget, now) = (RetryBudget::new(0.0, 1), Instant::now());
        for _ in 0..10 {
            assert!(budget.withdraw(now), "ten seconds' worth is there at first");
        }
        assert!(!budget.withdraw(now));
        let later = now + Duration::from_secs(1);
        assert!(budget.withdraw(later));
        assert!(!budget.withdraw(now), "an older clock reading adds nothing");
        assert!(!budget.withdraw(later));
    }

    #[test]
    fn hostile_ratios_are_bounded() {
        for ratio in [f64::NAN, -1.0, f64::NEG_INFINITY] {
            let budget = RetryBudget::new(ratio, 0);
            budget.deposit();
            assert_eq!(budget.balance(Instant::now()), 0.0);
        }
        let budget = RetryBudget::new(f64::INFINITY, u32::MAX);
        budget.deposit();
        assert!(
            budget
                .balance(Instant::now() + Duration::from_secs(1 << 40))
                .is_finite()
        );
    }

    proptest! {
        // R24
        #[test]
        fn retries_stay_within_the_share_and_the_floor(
            steps in proptest::collection::vec((0_u64..2_000, 0_usize..20, 0_usize..20), 1..100),
        ) {
            let budget = RetryBudget::new(0.1, 10);
            let start = Instant::now();
            let (mut now, mut requests, mut retries) = (start, 0_u32, 0_u32);
            for (millis, calls, wanted) in steps {
                now += Duration::from_millis(millis);
                for _ in 0..calls {
                    budget.deposit();
                    requests += 1;
                }
                for _ in 0..wanted {
                    retries += u32::from(budget.withdraw(now));
                }
            }
            let most = 0.1 * f64::from(requests) + 10.0 * ((now - start).as_secs_f64() + 10.0);
            prop_assert!(f64::from(retries) <= most + 1e-6, "{retries} of at most {most}");
        }
    }
}
