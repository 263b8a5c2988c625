//! The settings of a budget.
use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use tollgate_core::{clock::WallClock, price::PriceTable};

use crate::{
    budget::Budget,
    charging::{Charging, DropPolicy},
    engine::{
        calendar::nanos_of,
        core::{Bounds, Core},
        rate::narrow,
        rule::Rule,
    },
    leases::{LeaseTerms, Leases},
    limit::{InvalidLimit, Limit},
    scope::Look,
};

/// Most limits of one budget: each request looks at all of them.
const MOST_LIMITS: usize = 64;

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
///
/// ```
/// use std::time::Duration;
/// use tollgate_budget::{Budget, ChargeProfile, Limit, Oversized};
///
/// let budget = Budget::builder()
///     .limit(Limit::requests(500).per_minute())
///     .limit(Limit::tokens(200_000).per_minute())
///     .max_wait(Duration::from_secs(600))
///     .oversized(Oversized::RunAlone)
///     .charging(ChargeProfile::prompt_only())
///     .build()?;
/// # let _ = budget;
/// # Ok::<(), tollgate_budget::InvalidLimit>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct BudgetBuilder {
    limits: Vec<Limit>,
    learn: bool,
    learn_period: Duration,
    keys: usize,
    queue_len: usize,
    queue_bytes: u64,
    size_classes: bool,
    shadow: bool,
    own: bool,
    max_wait: Duration,
    oversized: Oversized,
    charging: Charging,
    on_drop: Option<DropPolicy>,
    prices: Option<PriceTable>,
    assumed_output: Option<u64>,
    wall: Option<SystemTime>,
}

impl BudgetBuilder {
    pub(crate) fn new() -> Self {
        Self {
            limits: Vec::new(),
            learn: false,
            learn_period: Duration::from_secs(60),
            keys: 10_000,
            queue_len: 10_000,
            queue_bytes: 256 << 20,
            size_classes: false,
            shadow: false,
            own: false,
            max_wait: Duration::from_secs(90),
            oversized: Oversized::default(),
            charging: Charging::default(),
            on_drop: None,
            prices: None,
            assumed_output: None,
            wall: None,
        }
    }

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

    /// Learns limits from the provider's headers, for each model, beside those that are told. Default: no.
    ///
    /// Until the first answers to requests for a model have come, at most 16 of them are in flight; twice as many for each
    /// [`learn_period`](Self::learn_period) in which none has taught anything.
    pub fn learn(mut self, learn: bool) -> Self {
        self.learn = learn;
        self
    }

    /// The period of a learned limit, where the headers do not tell it. Default: one minute.
    pub fn learn_period(mut self, period: Duration) -> Self {
        self.learn_period = period;
        self
    }

    /// Most keys (models, principals, …) whose limits are kept at once, over all limits. Default 10,000.
    ///
    /// A key that nobody uses and that owes nothing is forgotten when there is need of its place, one in use never.
    /// When all are in use, those that come share one count for each limit: it may be too strict for them, never too
    /// lax.
    pub fn keys(mut self, keys: usize) -> Self {
        self.keys = keys;
        self
    }

    /// Most requests that may wait. Default 10,000.
    pub fn queue_len(mut self, requests: usize) -> Self {
        self.queue_len = requests;
        self
    }

    /// Lets requests of unlike size wait in lines of their own, so that small ones need not wait behind large ones.
    /// Default: no, first come is first served within a principal and priority.
    ///
    /// For interactive traffic. There are four classes: up to a 64th of the scarcest limit, up to a 16th, up to a quarter,
    /// and above. They weigh 4, 3, 3 and 2, so none starves; a principal whose requests are of several sizes counts once for
    /// each. A batch had better leave it off: where requests and tokens both bind, any order but that of arrival
    /// costs throughput.
    pub fn size_classes(mut self, on: bool) -> Self {
        self.size_classes = on;
        self
    }

    /// Decides and enforces nothing: every request passes at once, as it is, and what would have waited or been refused
    /// is counted in [`BudgetSnapshot::shadow`](crate::BudgetSnapshot::shadow) and told to `tracing`. Default: no.
    ///
    /// To try limits on live traffic. The books are kept as always, so they can show more than the limit; a predicted wait
    /// is then the one that this much work would have had.
    pub fn shadow(mut self, on: bool) -> Self {
        self.shadow = on;
        self
    }

    /// Takes all limits for our own, whatever they count and for whom: what a provider states in its headers, and its
    /// refusals, concern none of them. Default: no; then limits of requests and tokens in a period are the provider's where
    /// they hold for all, a model or an API key.
    ///
    /// For what we allow, around several providers or targets: one that refuses holds up nobody who is on his way to another.
    /// As all limits of our own they reserve the most that a request can use, and settle to what it used.
    ///
    /// ```
    /// use tollgate_budget::{Budget, Limit};
    ///
    /// let ours = Budget::builder()
    ///     .limit(Limit::tokens(1_000_000).per_minute())
    ///     .own(true)
    ///     .build()?;
    /// # let _ = ours;
    /// # Ok::<(), tollgate_budget::InvalidLimit>(())
    /// ```
    pub fn own(mut self, own: bool) -> Self {
        self.own = own;
        self
    }

    /// Most bytes that waiting requests may hold. Default 256 MiB.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = bytes;
        self
    }

    /// The longest wait: a request that would wait longer is refused at once, and one that has waited so long is
    /// refused then. Default 90 s: a whole window of a minute, and what a refusal may add.
    ///
    /// A batch job that hands over more than that much work at once needs more.
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
        self.charging = charging.into();
        self
    }

    /// What stands when the caller leaves before the usage is known. Default: the reservation.
    pub fn on_drop(mut self, policy: DropPolicy) -> Self {
        self.on_drop = Some(policy);
        self
    }

    /// What models cost, for limits of money. Default: nothing is known.
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.prices = Some(prices);
        self
    }

    /// Output tokens that limits of our own (of a principal, of money, per calendar period) reserve for each answer
    /// of a request that states no cap; or what the limit holds, if that is less. Default 4,096.
    pub fn assumed_output(mut self, tokens: u64) -> Self {
        self.assumed_output = Some(tokens);
        self
    }

    /// What the calendar shows now, instead of the system's time: for tests of calendar caps, which then go by tokio's
    /// clock alone and may pause it.
    pub fn wall_clock(mut self, now: SystemTime) -> Self {
        self.wall = Some(now);
        self
    }

    /// Makes the budget.
    ///
    /// # Errors
    ///
    /// A limit or a setting that cannot be; the text says which and why.
    pub fn build(self) -> Result<Budget, InvalidLimit> {
        self.check()?;
        Ok(self.make())
    }

    /// Makes the budget of limits that a store shares out among processes, and the side of it that the store drives
    /// (see [`leases`](crate::leases)). Learned limits are not shared.
    ///
    /// # Errors
    ///
    /// As for [`build`](Self::build); or terms that cannot be, or two limits that the store would take for one, such as
    /// two of one name that differ in their amounts alone.
    pub fn leased(self, terms: LeaseTerms) -> Result<(Budget, Leases), InvalidLimit> {
        self.check()?;
        let wrong = |why: &str| InvalidLimit(why.into());
        terms.check().map_err(wrong)?;
        let mut kept = HashSet::new();
        for limit in &self.limits {
            if !kept.insert(Rule::told(limit).kept_as()) {
                return limit.wrong(
                    "a shared store would take two limits for one: give each a name of its own",
                );
            }
        }
        let (mut core, charging, look, wall) = self.parts();
        core.lease(terms.terms());
        Ok(Budget::leased(core, charging, look, wall))
    }

    fn check(&self) -> Result<(), InvalidLimit> {
        for limit in &self.limits {
            limit.check()?;
        }
        let priced = self.prices.is_some() || self.charging.tariff.has_prices();
        for limit in self.limits.iter().filter(|limit| limit.needs_prices()) {
            if !priced {
                return limit.wrong(
                    "a limit of money needs prices, or must let requests without a price pass",
                );
            }
        }
        if self.limits.len() > MOST_LIMITS {
            return Err(InvalidLimit(
                format!("a budget has at most {MOST_LIMITS} limits").into(),
            ));
        }
        if self.limits.is_empty() && !self.learn {
            return Err(InvalidLimit(
                "a budget needs a limit, or must learn them".into(),
            ));
        }
        if self.own && self.learn {
            return Err(InvalidLimit(
                "limits of our own are told, not learned from a provider's headers".into(),
            ));
        }
        if self.keys == 0 {
            return Err(InvalidLimit("a budget keeps at least one key".into()));
        }
        if self.learn_period < Duration::from_millis(1) {
            return Err(InvalidLimit("a period must be 1 ms or longer".into()));
        }
        Ok(())
    }

    pub(crate) fn make(self) -> Budget {
        let (core, charging, look, wall) = self.parts();
        Budget::of(core, charging, look, wall)
    }

    fn parts(self) -> (Core, Charging, Look, Option<WallClock>) {
        let calendar = |limit: &Limit| limit.calendar.is_some();
        let wall = self.limits.iter().any(calendar).then(|| match self.wall {
            Some(now) => WallClock::beginning(now),
            None => WallClock::system(),
        });
        let bounds = Bounds {
            epoch: wall.map(|wall| nanos_of(wall.now())),
            queue_len: self.queue_len,
            queue_bytes: self.queue_bytes,
            max_wait: narrow(self.max_wait.as_nanos()),
            run_alone: self.oversized == Oversized::RunAlone,
            learn: self.learn,
            usual: narrow(self.learn_period.as_nanos()),
            keys: self.keys,
            size_classes: self.size_classes,
            shadow: self.shadow,
            own: self.own,
        };
        let mut charging = self.charging.shadow(self.shadow);
        if let Some(policy) = self.on_drop {
            charging = charging.on_drop(policy);
        }
        if let Some(prices) = self.prices {
            charging = charging.prices(prices);
        }
        if let Some(tokens) = self.assumed_output {
            charging = charging.assumed_output(tokens);
        }
        let (mut functions, mut reviews) = (Vec::new(), Vec::new());
        let rules: Vec<_> = self
            .limits
            .into_iter()
            .map(|limit| {
                let mut rule = Rule::told(&limit);
                rule.own = self.own;
                reviews.push(limit.review);
                if let Some(function) = limit.key {
                    rule.key = Some(functions.len());
                    functions.push(function);
                }
                rule
            })
            .collect();
        let look = Look::new(&rules, functions, reviews);
        (Core::new(rules, bounds), charging, look, wall)
    }
}
