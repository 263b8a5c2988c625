//! The budget that is kept in memory: the handle.
use std::{fmt, sync::Arc, time::Duration};

use crate::{
    acquire::Acquire,
    builder::BudgetBuilder,
    charging::Charging,
    engine::{core::Core, rate::Nanos},
    limit::{InvalidLimit, Limit},
    memory::Memory,
    platform,
    scope::{Asking, Keys, Look},
    snapshot::{BudgetSnapshot, ChargingSnapshot, LimitSnapshot, ShadowSnapshot},
    store::{Ask, BudgetStore},
};

/// A budget, kept in memory and shared by all its clones. See the [crate docs](crate).
///
/// ```
/// use tollgate_budget::{Budget, Limit};
///
/// let budget = Budget::in_memory([
///     Limit::requests(500).per_minute(),
///     Limit::tokens(200_000).per_minute(),
/// ])?;
/// let seen = budget.snapshot();
/// assert_eq!(seen.limit("tokens per minute").unwrap().used, 0);
/// assert_eq!(seen.queued, 0);
/// # Ok::<(), tollgate_budget::InvalidLimit>(())
/// ```
#[derive(Clone)]
pub struct Budget(Arc<Memory>);

impl Budget {
    /// A budget of these limits, and the default settings.
    ///
    /// # Errors
    ///
    /// A limit that cannot be, such as one of zero units; or no limit at all.
    pub fn in_memory(limits: impl IntoIterator<Item = Limit>) -> Result<Self, InvalidLimit> {
        Self::builder().limits(limits).build()
    }

    /// A budget that is told no limits and learns them from the provider's headers, for each model; until the first
    /// answers come, at most 16 requests for it are in flight.
    #[must_use]
    pub fn learned() -> Self {
        Self::builder().learn(true).make()
    }

    /// Settings other than the default.
    pub fn builder() -> BudgetBuilder {
        BudgetBuilder::new()
    }

    pub(crate) fn of(core: Core, charging: Charging, look: Look) -> Self {
        Self(Arc::new(Memory::new(core, charging, look)))
    }

    /// What it looks like now.
    #[must_use]
    pub fn snapshot(&self) -> BudgetSnapshot {
        let now = self.0.now();
        self.0.look(|core| snapshot(core, now))
    }
}

fn snapshot(core: &mut Core, now: Nanos) -> BudgetSnapshot {
    let (queued, queued_bytes) = core.queued();
    let mut limits = Vec::new();
    core.each_account(|rule, account| {
        let used = account.used(now);
        let limit = account.rate.amount;
        limits.push(LimitSnapshot {
            name: rule.name.clone(),
            unit: rule.unit,
            scope: rule.scope,
            key: account.key.clone(),
            limit: rule.whole(limit.into()),
            period: Duration::from_nanos(account.rate.period),
            used: rule.whole(used),
            reserved: rule.whole(account.reserved),
            debt: rule.whole(used.saturating_sub(u128::from(limit))),
            queued: rule.whole(account.backlog),
            enforcement: account.book.enforcement(rule.enforcement),
            learned: rule.learned,
        });
    });
    let mut charging = Vec::new();
    core.each_witness(|model, charged, mismatches| {
        charging.push(ChargingSnapshot {
            model: model.cloned(),
            charged,
            mismatches,
        });
    });
    BudgetSnapshot {
        limits,
        charging,
        queued,
        queued_bytes,
        in_flight: core.in_flight(),
        unpriced: core.unpriced(),
        shadow: core.shadowed().map(|seen| ShadowSnapshot {
            admitted: seen.admitted,
            waited: seen.waited,
            refused: seen.refused,
            longest_wait: Duration::from_nanos(seen.longest),
        }),
        gated: core.gated(now).map(Duration::from_nanos),
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = self.snapshot();
        f.debug_struct("Budget")
            .field("queued", &seen.queued)
            .field("in_flight", &seen.in_flight)
            .field("limits", &seen.limits.len())
            .finish_non_exhaustive()
    }
}

impl BudgetStore for Budget {
    type Acquire = Acquire;

    fn acquire(&self, ask: Ask) -> Acquire {
        Acquire::new(Arc::clone(&self.0), ask, platform::now())
    }

    fn look(&self, keys: &mut Keys, asking: &Asking<'_>) {
        self.0.look_for().fill(keys, asking);
    }

    fn charging(&self) -> Charging {
        self.0.charging().clone()
    }
}
