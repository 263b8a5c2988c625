//! The side of a budget that a store drives which several processes share.
//!
//! The requests are admitted here, in this process, as ever: queue, deadlines, gates, estimates and settlement stay. What
//! the processes share is *bought in advance*: a store grants units ([`Grant`]) against [`Order`]s, a request spends what
//! is in hand, and nobody asks the store while a request waits unless nothing is in hand. Whoever writes a store makes a
//! budget with [`BudgetBuilder::leased`](crate::BudgetBuilder::leased) and runs a loop: [`collect`](Leases::collect), ask
//! the store, [`granted`](Leases::granted) or [`failed`](Leases::failed), and wait until it [rings](Leases::rings).
//! `tollgate-redis` is one.
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use tokio::{sync::Notify, time::Instant};
use tollgate_core::principal::Principal;

use crate::{
    engine::{
        core::{
            Core,
            leases::{Line, Shut, Terms},
        },
        lease::{Given, Holding, Shape, Without},
        rate::{NEVER, narrow},
        rule::Rule,
    },
    limit::{Unit, time_of},
    memory::Memory,
};

/// What is done when the store cannot be reached and nothing is left in hand.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outage {
    /// Requests are refused ([`Reason::StoreDown`](tollgate_core::extensions::Reason::StoreDown), 503). Nothing is
    /// overspent. The default for money and calendar caps.
    FailClosed,
    /// This part of the limit (above 0, at most 1), divided by the processes that share it ([`Leases::share_among`]), is
    /// kept here, and begins used up. With 1 the processes together send at the limit's rate, as long as no more of them
    /// come. The default for rates.
    LocalShare(f64),
    /// The whole limit is kept here, by each process: together they may send a multiple of it.
    FailOpen,
}

impl Outage {
    fn without(self) -> Without {
        match self {
            Self::FailClosed => Without::Closed,
            Self::LocalShare(part) => Without::Share {
                parts: (part.clamp(0.0, 1.0) * 1e6) as u64,
            },
            Self::FailOpen => Without::Open,
        }
    }
}

/// How limits are leased.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct LeaseTerms {
    /// How long units may be used after they were bought. Default 1 s; less for limits that are finer than that. What is
    /// not used by then is lost to a bucket, and goes back to a window.
    pub hold: Duration,
    /// By how much the ways of two requests to the provider may differ. Default 100 ms.
    pub spread: Duration,
    /// The longest visit to the store. With nothing in hand, a request that may not wait so long waits for one visit all
    /// the same, but not beyond its deadline. Default 100 ms.
    pub visit: Duration,
    /// What rates do without the store.
    pub rates: Outage,
    /// What limits of money and calendar caps do without the store.
    pub caps: Outage,
}

impl Default for LeaseTerms {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(1),
            spread: Duration::from_millis(100),
            visit: Duration::from_millis(100),
            rates: Outage::LocalShare(1.0),
            caps: Outage::FailClosed,
        }
    }
}

impl LeaseTerms {
    pub(crate) fn terms(&self) -> Terms {
        Terms {
            holding: Holding {
                hold: narrow(self.hold.as_nanos()).max(1),
                spread: narrow(self.spread.as_nanos()),
            },
            visit: narrow(self.visit.as_nanos()),
            rates: self.rates.without(),
            caps: self.caps.without(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let wrong =
            |outage| matches!(outage, Outage::LocalShare(part) if !(part > 0.0 && part <= 1.0));
        if wrong(self.rates) || wrong(self.caps) {
            return Err("a local share must be above 0 and at most 1");
        }
        if self.hold < Duration::from_millis(10) || self.hold > Duration::from_secs(60) {
            return Err("what is bought may be held from 10 ms to 60 s");
        }
        if self.spread > Duration::from_secs(10) {
            return Err("ways to the provider may differ by 10 s at most");
        }
        Ok(())
    }
}

/// How the store is to keep a limit, with what is set apart for the time between buying and arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// A bucket of `burst` units that refills with [`Order::amount`] a [`Order::period`].
    Bucket {
        /// Units that it holds.
        burst: u64,
    },
    /// No more than `amount` units in any span of `window`.
    Rolling {
        /// Units.
        amount: u64,
        /// The span: the period, and the time that a unit may be on its way.
        window: Duration,
    },
    /// [`Order::amount`] units until the calendar period ends.
    Cap {
        /// When it ends.
        ends: SystemTime,
    },
}

/// What one limit asks of the store, and tells it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Order {
    line: Line,
    /// The limit's name.
    pub limit: Arc<str>,
    /// Whose requests it counts, and in what parts of a unit: limits of one name that differ in it are different limits.
    /// For a digest, not for people.
    pub whose: Box<str>,
    /// What it counts. Units here are the smallest part of one where the limit weighs tokens.
    pub unit: Unit,
    /// The model, or the digest, of a limit that is one for each.
    pub key: Option<Arc<str>>,
    /// Units a period.
    pub amount: u64,
    /// The period.
    pub period: Duration,
    /// How it is to be kept.
    pub kept: Kept,
    /// How long what is granted may be used.
    pub hold: Duration,
    /// Units that would be good to have; 0: none.
    pub want: u64,
    /// Less than this is of no use, for a request waits for so much; at most [`want`](Self::want), or 0.
    pub need: u64,
    /// Units a second that this process would use.
    pub demand: f64,
    /// Units that were used and not bought: to be debited.
    pub owed: u64,
    /// Units that were used while the store was away, and how long ago: to be debited for then.
    pub away: Vec<(Duration, u64)>,
    /// Units of requests that were sent, which the provider has given back. A bucket is fuller by them, as far as it was not
    /// full at any time since: they are told a [`hold`](Self::hold) later at most.
    pub freed: u64,
    /// Units that were bought and not used: by [`Grant::date`].
    pub refunds: Vec<(i64, u64)>,
    /// Units that the provider counts as used, and how long ago it counted.
    pub seen: Option<(u64, Duration)>,
    /// Of a cap: all that this process has used of it in the period, and what it has in hand.
    pub claim: u64,
}

/// What the store grants for an [`Order`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Grant {
    /// Units; 0: none.
    pub units: u64,
    /// From when on, and until when, they may be used. A cap's do not expire.
    pub usable: Option<(Instant, Instant)>,
    /// The store's own date of them, to name them by when they come back; above 0.
    pub date: i64,
    /// It is no use to ask again before this.
    pub back: Option<Instant>,
    /// The fair share of each process in units a second, where there is not enough for all.
    pub share: Option<f64>,
    /// Processes that share the limit.
    pub holders: u32,
}

/// A refusal by the provider, which holds for all who use the key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gated {
    /// The model that was refused.
    pub model: Option<Arc<str>>,
    /// The digest of the API key, where a limit is one for each.
    pub api_key: Option<Principal>,
    /// For how long the gate is shut.
    pub wait: Duration,
}

impl Gated {
    /// A gate that is shut for so long.
    #[must_use]
    pub fn new(model: Option<Arc<str>>, api_key: Option<Principal>, wait: Duration) -> Self {
        Self {
            model,
            api_key,
            wait,
        }
    }
}

/// What there is to do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Collected {
    /// To be asked for, and to be told.
    pub orders: Vec<Order>,
    /// To be told to the other processes.
    pub gated: Vec<Gated>,
    /// When to collect again, at the latest; `None`: when it rings.
    pub due: Option<Instant>,
}

/// What the budget and its store share.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Notify,
    last: Mutex<Vec<Order>>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.notify_one();
    }

    /// The budget is gone; this is left to tell.
    pub(crate) fn close(&self, last: Vec<Order>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        self.ring();
    }
}

/// What a budget has bought of a shared store, for the store's side. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct Leases {
    memory: Weak<Memory>,
    bell: Arc<Bell>,
}

/// Orders of one visit to the store.
const MOST_ORDERS: usize = 128;

impl Leases {
    pub(crate) fn new(memory: &Arc<Memory>, bell: Arc<Bell>) -> Self {
        Self {
            memory: Arc::downgrade(memory),
            bell,
        }
    }

    /// Waits until there is something to do. It may ring for nothing.
    ///
    /// # Cancel safety
    ///
    /// What rings while nobody waits is heard by the next who does.
    pub async fn rings(&self) {
        self.bell.rung.notified().await;
    }

    /// What there is to do now; `None`: the budget and all that it had admitted are gone.
    ///
    /// What is in an order is the caller's to tell: each is to be answered by [`granted`](Self::granted) or
    /// [`failed`](Self::failed), once, and is not collected again before.
    #[must_use]
    pub fn collect(&self) -> Option<Collected> {
        let memory = self.memory.upgrade()?;
        let now = memory.now();
        let (orders, shut, due) = memory.step(|core, _| {
            let lines = core.lines(now, MOST_ORDERS);
            let orders = orders(&memory, core, lines);
            (orders, core.news(), core.asks_at())
        });
        Some(Collected {
            orders,
            gated: shut.into_iter().map(gated).collect(),
            due: (due < NEVER).then(|| memory.instant(due)).flatten(),
        })
    }

    /// Admits nothing more, for good: who waits or comes is refused as with [`Outage::FailClosed`]. What is in hand goes
    /// back. Returns what is left to tell, which is to be answered as any other order; as often as this is called, what
    /// has ended since.
    #[must_use]
    pub fn close(&self) -> Vec<Order> {
        let Some(memory) = self.memory.upgrade() else {
            return self.last();
        };
        let now = memory.now();
        memory.step(|core, wakes| {
            let lines = core.close(now, wakes);
            orders(&memory, core, lines)
        })
    }

    /// What is left to tell when the budget is gone: what was used, and what is in hand and goes back.
    #[must_use]
    pub fn last(&self) -> Vec<Order> {
        let mut last = self
            .bell
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut last)
    }

    /// The store has answered. Who waits for it is looked at anew.
    pub fn granted(&self, order: &Order, grant: Grant) {
        let Some(memory) = self.memory.upgrade() else {
            return;
        };
        let at = |at: Instant| memory.nanos(at);
        let (usable, expires) = match grant.usable {
            Some((usable, expires)) => (at(usable), at(expires)),
            None => (0, NEVER),
        };
        let given = Given {
            units: grant.units,
            usable,
            expires,
            date: match order.line.shape {
                // Those are named by their period.
                Shape::Cap { ends } => ends,
                _ => grant.date,
            },
            back: grant.back.map_or(0, at),
            share: grant.share.unwrap_or(0.0),
            holders: grant.holders,
        };
        let now = memory.now();
        memory.step(|core, wakes| core.answered(now, &order.line, Some(given), wakes));
    }

    /// The store has not answered this order. What it was to be told is told the next time.
    pub fn failed(&self, order: &Order) {
        if let Some(memory) = self.memory.upgrade() {
            let now = memory.now();
            memory.step(|core, wakes| core.answered(now, &order.line, None, wakes));
        }
    }

    /// The store cannot be reached from now on, or can be again. Who waits is dealt with as the [`Outage`] says.
    pub fn outage(&self, down: bool) {
        if let Some(memory) = self.memory.upgrade() {
            let now = memory.now();
            memory.step(|core, wakes| core.outage(now, down, wakes));
        }
    }

    /// So many processes share the limits, as far as is known; by so many [`Outage::LocalShare`] divides them.
    pub fn share_among(&self, processes: u32) {
        if let Some(memory) = self.memory.upgrade() {
            memory.step(|core, _| core.share_among(processes));
        }
    }

    /// The models that have been asked for here, as far as they are known.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<str>> {
        let memory = self.memory.upgrade();
        memory.map_or_else(Vec::new, |memory| memory.look(|core| core.models()))
    }

    /// Another process was refused by the provider: shuts the gate here too.
    pub fn shut(&self, gated: &Gated) {
        if let Some(memory) = self.memory.upgrade() {
            let now = memory.now();
            let shut = Shut {
                model: gated.model.clone(),
                api_key: gated.api_key,
                wait: narrow(gated.wait.as_nanos()),
            };
            memory.step(|core, wakes| core.shut(now, shut, wakes));
        }
    }
}

fn gated(shut: Shut) -> Gated {
    Gated {
        model: shut.model,
        api_key: shut.api_key,
        wait: Duration::from_nanos(shut.wait),
    }
}

/// What the lines ask for and tell, of limits that are still there.
pub(crate) fn orders(memory: &Memory, core: &Core, lines: Vec<Line>) -> Vec<Order> {
    let order = |line: Line| {
        let (rule, key) = core.leased(line.account, line.lease)?;
        Some(order(memory, line, rule, key.cloned()))
    };
    lines.into_iter().filter_map(order).collect()
}

fn order(memory: &Memory, line: Line, rule: &Rule, key: Option<Arc<str>>) -> Order {
    let now = memory.now();
    let wish = &line.wish;
    Order {
        limit: rule.name.clone(),
        whose: rule.whose(),
        unit: rule.unit,
        key,
        amount: line.rate.amount,
        period: Duration::from_nanos(line.rate.period),
        kept: match line.shape {
            Shape::Bucket { burst } => Kept::Bucket { burst },
            Shape::Rolling { amount, window } => Kept::Rolling {
                amount,
                window: Duration::from_nanos(window),
            },
            Shape::Cap { ends } => Kept::Cap {
                ends: time_of(ends),
            },
        },
        hold: Duration::from_nanos(line.holding.hold),
        want: wish.want.max(wish.need),
        need: wish.need,
        demand: wish.demand,
        owed: wish.owed,
        away: wish
            .away
            .iter()
            .map(|&(at, units)| (Duration::from_nanos(now.saturating_sub(at)), units))
            .collect(),
        freed: wish.freed,
        refunds: wish.refunds.clone(),
        seen: wish
            .seen
            .map(|(used, at)| (used, Duration::from_nanos(now.saturating_sub(at)))),
        claim: wish.claim,
        line,
    }
}
