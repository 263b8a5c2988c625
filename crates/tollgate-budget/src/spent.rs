//! What was spent of a cap, to be kept elsewhere and put back after a restart.
use std::{sync::Arc, time::SystemTime};

/// What was spent of one cap in its running period.
///
/// [`Budget::spent`](crate::Budget::spent) reads it out, [`Budget::restore`](crate::Budget::restore) puts it back.
///
/// ```
/// use tollgate_budget::{Budget, Limit, Spent};
///
/// let limits = || [Limit::tokens(2_000_000).per_calendar_day("Europe/Berlin")];
/// let before = Budget::in_memory(limits())?;
/// // … and at the end of the process, or every minute:
/// let kept: Vec<Spent> = before.spent();
///
/// let after = Budget::in_memory(limits())?;
/// after.restore(kept)?;
/// // From a ledger that knows nothing of budgets:
/// after.restore([Spent::new("tokens per calendar day", 12_000)])?;
/// assert_eq!(after.snapshot().limits[0].used, 12_000);
/// # Ok::<(), tollgate_budget::InvalidLimit>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spent {
    /// The cap's name.
    pub limit: Arc<str>,
    /// The model or the digest (sixteen hexadecimal digits) whose cap it is, where it is kept for each; `"*"`: all those
    /// that no place was left for.
    ///
    /// Digests are the same in the next process only if they were made with a key of one's own:
    /// [`Principal::set_key`](tollgate_core::principal::Principal::set_key), or
    /// [`CallOptions::principal_digest`](tollgate_core::call::CallOptions::principal_digest).
    pub key: Option<Arc<str>>,
    /// Units; of money 10⁻¹² dollars.
    pub units: u64,
    /// When the period ends; what ended before it is put back is forgotten. `None`: the period that runs then.
    pub until: Option<SystemTime>,
}

impl Spent {
    /// So many units of the cap of this name, in the period that runs.
    pub fn new(limit: impl Into<Arc<str>>, units: u64) -> Self {
        Self {
            limit: limit.into(),
            key: None,
            units,
            until: None,
        }
    }

    /// Of this model or digest.
    #[must_use]
    pub fn key(mut self, key: impl Into<Arc<str>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// In the period that ends then.
    #[must_use]
    pub fn until(mut self, end: SystemTime) -> Self {
        self.until = Some(end);
        self
    }
}
