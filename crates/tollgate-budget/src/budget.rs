//! The budget that is kept in memory: the handle.
use std::{fmt, sync::Arc, time::Duration};

use tollgate_core::{clock::WallClock, price::Pico};

use crate::{
    acquire::Acquire,
    builder::BudgetBuilder,
    charging::Charging,
    engine::{
        calendar::nanos_of,
        core::Core,
        rate::{Nanos, narrow},
        rule::Rule,
    },
    leases::{Bell, Leases},
    limit::{InvalidLimit, Limit, Unit, time_of},
    memory::Memory,
    platform,
    scope::{Asking, Keys, Look},
    snapshot::{BudgetSnapshot, ChargingSnapshot, LimitSnapshot, ShadowSnapshot},
    spent::Spent,
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
    /// answers come, at most 16 requests for it are in flight (and twice as many each minute, if nothing is heard).
    #[must_use]
    pub fn learned() -> Self {
        Self::builder().learn(true).make()
    }

    /// Settings other than the default.
    pub fn builder() -> BudgetBuilder {
        BudgetBuilder::new()
    }

    pub(crate) fn of(core: Core, charging: Charging, look: Look, wall: Option<WallClock>) -> Self {
        Self(Arc::new(Memory::new(core, charging, look, wall)))
    }

    /// The same, where a store shares out the limits among processes.
    pub(crate) fn leased(
        core: Core,
        charging: Charging,
        look: Look,
        wall: Option<WallClock>,
    ) -> (Self, Leases) {
        let bell = Arc::new(Bell::default());
        let memory = Memory::new(core, charging, look, wall).with_bell(Arc::clone(&bell));
        let memory = Arc::new(memory);
        let leases = Leases::new(&memory, bell);
        (Self(memory), leases)
    }

    /// Raises or lowers a limit: `amount` units instead of what was told. Its use stays as it is, and all who wait are
    /// looked at anew, now.
    ///
    /// What the provider had said of the limit is forgotten until it says it again. Of a limit for each key, the limit
    /// of every key changes.
    ///
    /// ```
    /// use tollgate_budget::{Budget, Limit};
    ///
    /// let budget = Budget::in_memory([Limit::requests(500).per_minute()])?;
    /// budget.set_limit("requests per minute", 5000)?;
    /// assert_eq!(budget.snapshot().limits[0].limit, 5000);
    /// # Ok::<(), tollgate_budget::InvalidLimit>(())
    /// ```
    ///
    /// # Errors
    ///
    /// If no limit or more than one has this name, or the amount cannot be.
    pub fn set_limit(&self, name: &str, amount: u64) -> Result<(), InvalidLimit> {
        let now = self.0.now();
        self.0
            .step(|core, wakes| core.set_limit(now, name, |_| true, amount, wakes))
            .map_err(|why| InvalidLimit(why.into()))
    }

    /// The same for a limit of money.
    ///
    /// # Errors
    ///
    /// As for [`set_limit`](Self::set_limit); or if the limit of this name is none of money.
    pub fn set_money(&self, name: &str, amount: Pico) -> Result<(), InvalidLimit> {
        let (now, amount) = (self.0.now(), narrow(amount.get()));
        let money = |rule: &Rule| rule.unit == Unit::Money;
        self.0
            .step(|core, wakes| core.set_limit(now, name, money, amount, wakes))
            .map_err(|why| InvalidLimit(why.into()))
    }

    /// What has been spent of each cap per calendar period, for a ledger to keep. What requests in flight hold is in
    /// it: after a crash nobody knows what they cost.
    #[must_use]
    pub fn spent(&self) -> Vec<Spent> {
        let seen = self.snapshot().limits.into_iter();
        seen.filter(|limit| limit.resets_at.is_some() && limit.used > 0)
            .map(|limit| Spent {
                limit: limit.name,
                key: limit.key,
                units: limit.used,
                until: limit.resets_at,
            })
            .collect()
    }

    /// Adds what was spent of caps per calendar period before this budget was made; what belongs to a period that has
    /// ended is left out. All of it is taken over or nothing.
    ///
    /// # Errors
    ///
    /// If no cap or more than one has a name, or a key cannot be one of its.
    pub fn restore(&self, spent: impl IntoIterator<Item = Spent>) -> Result<(), InvalidLimit> {
        let until = |spent: Spent| {
            let until = spent.until.map(nanos_of);
            (spent, until)
        };
        let spent: Vec<_> = spent.into_iter().map(until).collect();
        // Without a calendar there is no cap, and whatever is named is named in vain.
        let (now, wall) = self.0.wall().unwrap_or((self.0.now(), 0));
        self.0
            .step(|core, _| core.restore(now, wall, &spent))
            .map_err(|why| InvalidLimit(why.into()))
    }

    /// What it looks like now.
    #[must_use]
    pub fn snapshot(&self) -> BudgetSnapshot {
        let now = self.0.now();
        // A step: it sees first whether the wall clock has moved.
        self.0.step(|core, _| snapshot(core, now))
    }
}

fn snapshot(core: &mut Core, now: Nanos) -> BudgetSnapshot {
    let (queued, queued_bytes) = core.queued();
    let mut limits = Vec::new();
    core.each_account(|rule, account| {
        let used = account.used(now);
        let limit = account.rate.amount;
        let (free_at, resets_at) = account.free_at(now);
        limits.push(LimitSnapshot {
            name: rule.name.clone(),
            unit: rule.unit,
            scope: rule.scope,
            key: account.key.clone(),
            limit: rule.whole(limit.into()),
            told: account.ceiling().map(|told| rule.whole(told.into())),
            period: Duration::from_nanos(account.rate.period),
            used: rule.whole(used),
            reserved: rule.whole(account.reserved),
            debt: rule.whole(used.saturating_sub(u128::from(limit))),
            queued: rule.whole(account.backlog),
            free_in: Duration::from_nanos(free_at.saturating_sub(now)),
            resets_at: resets_at.map(time_of),
            enforcement: rule.shown(account.book.enforcement(rule.enforcement)),
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
