//! The budget that is kept in memory: the handle and its settings.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tollgate_core::extensions::Refused;

use crate::{
    charging::{Charging, DropPolicy},
    limit::{InvalidLimit, Limit},
    snapshot::BudgetSnapshot,
    store::{Ask, BudgetStore, Observation, Reservation, Settle, Settlement, Ticket},
};

/// What is done with a request that is larger than a whole limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Oversized {
    /// It is refused at once and for good.
    #[default]
    Refuse,
    /// It runs when the limit is wholly free, and those after it wait until its debt is paid.
    RunAlone,
}

/// The settings of a [`Budget`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct BudgetBuilder {
    pub(crate) limits: Vec<Limit>,
    pub(crate) learn: bool,
    pub(crate) queue_len: usize,
    pub(crate) queue_bytes: u64,
    pub(crate) max_wait: Duration,
    pub(crate) oversized: Oversized,
    pub(crate) charging: Charging,
}

impl BudgetBuilder {
    /// Adds a limit; all of them hold at once, and a request takes from all or from none.
    pub fn limit(mut self, limit: Limit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Adds limits.
    pub fn limits(mut self, limits: impl IntoIterator<Item = Limit>) -> Self {
        self.limits.extend(limits);
        self
    }

    /// Learns the limits that it is not told from the provider's headers. Default: no, unless it is
    /// [`learned`](Budget::learned).
    pub fn learn(mut self, yes: bool) -> Self {
        self.learn = yes;
        self
    }

    /// Most requests that may wait. Default 10,000.
    pub fn queue_len(mut self, requests: usize) -> Self {
        self.queue_len = requests;
        self
    }

    /// Most bytes that waiting requests may hold. Default 256 MiB.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// The longest wait: a request that would wait longer is refused at once. Default 60 s.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// What is done with a request larger than a whole limit. Default: refused.
    pub fn oversized(mut self, oversized: Oversized) -> Self {
        self.oversized = oversized;
        self
    }

    /// What a request is charged. Default: [`Charging::auto`].
    pub fn charging(mut self, charging: impl Into<Charging>) -> Self {
        let on_drop = self.charging.drop_policy();
        self.charging = charging.into();
        if self.charging.drop_policy() == DropPolicy::default() {
            self.charging = self.charging.on_drop(on_drop);
        }
        self
    }

    /// What stands when the caller leaves before the usage is known. Default: the reservation.
    pub fn on_drop(mut self, policy: DropPolicy) -> Self {
        self.charging = self.charging.on_drop(policy);
        self
    }

    /// Makes the budget.
    ///
    /// # Errors
    ///
    /// A limit or a setting that cannot be; the text says which and why.
    pub fn build(self) -> Result<Budget, InvalidLimit> {
        for limit in &self.limits {
            limit.check()?;
        }
        Ok(Budget(Arc::new(Shared { settings: self })))
    }
}

/// A budget, kept in memory and shared by all its clones. See the [crate docs](crate).
#[derive(Clone)]
pub struct Budget(Arc<Shared>);

struct Shared {
    settings: BudgetBuilder,
}

impl Budget {
    /// A budget of these limits, and the default settings.
    ///
    /// # Errors
    ///
    /// A limit that cannot be, such as one of zero units.
    pub fn in_memory(limits: impl IntoIterator<Item = Limit>) -> Result<Self, InvalidLimit> {
        Self::builder().limits(limits).build()
    }

    /// A budget that is told no limits and learns them from the provider's headers; until the first come, at most
    /// 16 requests are in flight.
    #[must_use]
    pub fn learned() -> Self {
        let settings = BudgetBuilder {
            learn: true,
            ..Self::builder()
        };
        Self(Arc::new(Shared { settings }))
    }

    /// Settings other than the default.
    pub fn builder() -> BudgetBuilder {
        BudgetBuilder {
            limits: Vec::new(),
            learn: false,
            queue_len: 10_000,
            queue_bytes: 256 << 20,
            max_wait: Duration::from_secs(60),
            oversized: Oversized::default(),
            charging: Charging::default(),
        }
    }

    /// What it looks like now.
    #[must_use]
    pub fn snapshot(&self) -> BudgetSnapshot {
        BudgetSnapshot::default()
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").finish_non_exhaustive()
    }
}

impl Settle for Shared {
    fn sent(&self, _: Ticket) {}
    fn observe(&self, _: Ticket, _: &Observation<'_>) {}
    fn settle(&self, _: Ticket, _: Settlement) {}
}

impl BudgetStore for Budget {
    type Acquire = Acquire;

    fn acquire(&self, _: Ask) -> Acquire {
        Acquire {
            budget: self.clone(),
        }
    }

    fn charging(&self) -> Charging {
        self.0.settings.charging.clone()
    }
}

/// The wait for admission to a [`Budget`].
#[derive(Debug)]
pub struct Acquire {
    budget: Budget,
}

impl Future for Acquire {
    type Output = Result<Reservation, Refused>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let store: Arc<dyn Settle> = Arc::clone(&self.budget.0) as _;
        Poll::Ready(Ok(Reservation::new(store, Ticket(0))))
    }
}
