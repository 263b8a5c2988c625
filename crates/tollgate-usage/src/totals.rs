//! Running totals, the last hours, and the limits seen last.
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tollgate_core::principal::Principal;

use crate::{Recorder, UsageRecord};

mod breakdown;
mod history;
mod limits;
mod sums;

pub(crate) use self::limits::share_left;
pub use self::{
    breakdown::Breakdown,
    history::{History, Period},
    limits::SeenLimit,
    sums::{FinishTotals, Totals},
};
use self::{breakdown::Groups, history::Ring, limits::Seen};

/// Models that are counted each by themselves.
const MODELS: usize = 1_000;
/// Of these, models with a history of their own.
const MODELS_WITH_HISTORY: usize = 100;
/// Longest name of such a model, in bytes. Names come from the wire.
const NAME: usize = 128;
/// Keys that are counted each by themselves.
const KEYS: usize = 1_000;
/// Users and tenants that are counted each by themselves.
const PRINCIPALS: usize = 10_000;

/// Adds up records while they come: a handle, made first and passed to the layer.
///
/// Clones share the totals. A call that two recorders of a stack see is added once, from the outer
/// record. Nothing grows without bound: beyond 1,000 models, 1,000 keys and 10,000 principals, the
/// others are added up together.
///
/// ```
/// use tollgate_usage::{UsageRecorderLayer, UsageTotals};
///
/// let totals = UsageTotals::new();
/// let layer = UsageRecorderLayer::new(totals.clone());
/// let snapshot = totals.snapshot();
/// assert_eq!(snapshot.all.calls, 0);
/// assert_eq!(snapshot.model("gpt-5"), None);
/// assert!(totals.history().minutes.is_empty());
/// assert!(totals.limits().is_empty());
/// # drop(layer);
/// ```
#[derive(Clone, Default)]
pub struct UsageTotals(Arc<Mutex<State>>);

struct State {
    all: Totals,
    models: Groups<Arc<str>>,
    keys: Groups<Principal>,
    principals: Groups<Principal>,
    history: Ring,
    model_history: Groups<Arc<str>, Ring>,
    limits: Seen,
}

impl Default for State {
    fn default() -> Self {
        Self {
            all: Totals::default(),
            models: Groups::new(MODELS),
            keys: Groups::new(KEYS),
            principals: Groups::new(PRINCIPALS),
            history: Ring::default(),
            model_history: Groups::new(MODELS_WITH_HISTORY),
            limits: Seen::default(),
        }
    }
}

impl UsageTotals {
    /// Totals of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The totals now.
    #[must_use]
    pub fn snapshot(&self) -> UsageSnapshot {
        let state = self.state();
        UsageSnapshot {
            all: state.all,
            models: state.models.snapshot(),
            keys: state.keys.snapshot(),
            principals: state.principals.snapshot(),
        }
    }

    /// What was used in each of the last minutes and hours.
    #[must_use]
    pub fn history(&self) -> History {
        self.state().history.snapshot()
    }

    /// The same of one model, by the name of the model that answered; `None` if it has not been
    /// seen, or was not among the first 100.
    #[must_use]
    pub fn model_history(&self, model: &str) -> Option<History> {
        self.state().model_history.get(model).map(Ring::snapshot)
    }

    /// The limits that the providers' answers have stated last, for each model and key, in the
    /// order of model, key, dimension and window.
    ///
    /// A limit is read from the headers of every answer, also of an attempt inside a recorder
    /// further out, and kept when the record is made. 1,000 are kept; beyond that the one that was
    /// stated the longest ago goes.
    ///
    /// ```
    /// # use tollgate_usage::UsageTotals;
    /// # let totals = UsageTotals::new();
    /// for seen in totals.limits() {
    ///     println!("{} {} {:?} of {:?}, full at {:?}", seen.model, seen.stated.dimension.as_str(),
    ///         seen.stated.remaining, seen.stated.limit, seen.resets_at());
    /// }
    /// ```
    #[must_use]
    pub fn limits(&self) -> Vec<SeenLimit> {
        self.state().limits.snapshot()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorder for UsageTotals {
    fn record(&self, record: &UsageRecord) {
        let mut state = self.state();
        let state = &mut *state;
        state.limits.take(record);
        if record.nested {
            return;
        }
        let one = Totals::of(record);
        state.all += one;
        state.history.add(record, &one);
        let model = record.model().filter(|name| name.len() <= NAME);
        *state.models.slot(model) += one;
        if let Some(ring) = model.and_then(|model| state.model_history.own(model)) {
            ring.add(record, &one);
        }
        if record.key.is_some() {
            *state.keys.slot(record.key.as_ref()) += one;
        }
        if record.principal.is_some() {
            *state.principals.slot(record.principal.as_ref()) += one;
        }
    }
}

impl fmt::Debug for UsageTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UsageTotals")
            .field(&self.state().all)
            .finish()
    }
}

/// What [`UsageTotals`] has added up so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UsageSnapshot {
    /// Over all.
    pub all: Totals,
    /// By the name of the model that answered: each of the first 1,000, and the rest together with
    /// what has no model.
    pub models: Breakdown<Arc<str>>,
    /// By the digest of the key: each of the first 1,000, and the rest together. What has no key is
    /// in neither.
    pub keys: Breakdown<Principal>,
    /// By user or tenant: each of the first 10,000, and the rest together. What has none is in
    /// neither.
    pub principals: Breakdown<Principal>,
}

impl UsageSnapshot {
    /// The totals of one model, by the name of the model that answered.
    #[must_use]
    pub fn model(&self, name: &str) -> Option<&Totals> {
        let entries = &self.models.entries;
        let at = entries.binary_search_by(|(model, _)| (**model).cmp(name));
        Some(&entries[at.ok()?].1)
    }

    /// The totals of one user or tenant.
    #[must_use]
    pub fn principal(&self, who: Principal) -> Option<&Totals> {
        let entries = &self.principals.entries;
        let at = entries.binary_search_by(|(principal, _)| principal.cmp(&who));
        Some(&entries[at.ok()?].1)
    }
}
