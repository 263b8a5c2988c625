//! A limit as a user writes it down.
mod amount;
mod calendar;
mod kinds;
mod weights;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tollgate_core::{price::Pico, principal::Principal};

pub(crate) use self::calendar::{Plan, Wall};
pub use self::{
    amount::Amount,
    calendar::{Calendar, Weekday},
    kinds::{Enforcement, Exhausted, Scope, Unit, Unpriced},
    weights::Weights,
};
use crate::{
    engine::{calendar::nanos_of, rate::narrow},
    review::{Decision, Review, ReviewFn},
    scope::{Asking, KeyFn, Models},
};

/// So many units in a period.
///
/// ```
/// use std::time::Duration;
/// use tollgate_budget::{Enforcement, Limit, Scope};
///
/// let requests = Limit::requests(500).per_minute();
/// let tokens = Limit::tokens(2_000_000).per_day().scope(Scope::Model);
/// let own = Limit::requests(20)
///     .per(Duration::from_secs(10))
///     .named("twenty a user")
///     .scope(Scope::Principal)
///     .enforcement(Enforcement::Rolling)
///     .refuse();
/// assert_eq!(own.name(), "twenty a user");
/// assert_eq!(requests.name(), "requests per minute");
/// # let _ = tokens;
/// ```
#[derive(Clone, Debug)]
pub struct Limit {
    pub(crate) unit: Unit,
    pub(crate) amount: u64,
    pub(crate) period: Duration,
    pub(crate) calendar: Option<Calendar>,
    pub(crate) name: Arc<str>,
    pub(crate) enforcement: Enforcement,
    pub(crate) scope: Scope,
    pub(crate) models: Option<Models>,
    pub(crate) key: Option<KeyFn>,
    pub(crate) review: Option<ReviewFn>,
    pub(crate) exhausted: Exhausted,
    pub(crate) weights: Weights,
    pub(crate) unpriced: Unpriced,
}

impl Limit {
    pub(crate) fn of(unit: Unit, amount: u64) -> Amount {
        Amount::of(unit, amount)
    }

    /// So many requests.
    pub fn requests(amount: u64) -> Amount {
        Self::of(Unit::Requests, amount)
    }

    /// So many tokens, input and output together, as the provider charges them.
    pub fn tokens(amount: u64) -> Amount {
        Self::of(Unit::Tokens, amount)
    }

    /// So many input tokens.
    pub fn input_tokens(amount: u64) -> Amount {
        Self::of(Unit::InputTokens, amount)
    }

    /// So many output tokens.
    pub fn output_tokens(amount: u64) -> Amount {
        Self::of(Unit::OutputTokens, amount)
    }

    /// So many images.
    ///
    /// What a request to an images endpoint asks for (`n`) is counted; one whose body is not read counts as one image.
    pub fn images(amount: u64) -> Amount {
        Self::of(Unit::Images, amount)
    }

    /// So much money. It needs prices: [`BudgetBuilder::prices`](crate::BudgetBuilder::prices).
    ///
    /// Reserved is the most that the request can cost: its estimated input, and its output cap for each answer. The
    /// answer's usage settles that, whether or not the provider settles its own limits. What a provider charges
    /// elsewhere (batches, files, hosted tools) is not seen here.
    ///
    /// ```
    /// use tollgate_budget::{Budget, Limit};
    /// use tollgate_core::price::{Price, PriceTable};
    ///
    /// let budget = Budget::builder()
    ///     .limit(Limit::money("2.50".parse()?).per_hour())
    ///     .prices(PriceTable::new().with("gpt-4o-mini", Price::per_million("0.15", "0.60")?))
    ///     .build()?;
    /// # let _ = budget;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn money(amount: Pico) -> Amount {
        Self::of(Unit::Money, narrow(amount.get()))
    }

    /// So many US dollars: [`money`](Self::money) in whole ones.
    pub fn dollars(amount: u32) -> Amount {
        Self::money(Pico::new(Pico::PER_DOLLAR * u128::from(amount)))
    }

    /// Names it in refusals and snapshots. Default: what it counts and the period.
    #[must_use]
    pub fn named(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How it is enforced. Default: [`Enforcement::Auto`].
    #[must_use]
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// Whose requests share it. Default: [`Scope::Global`].
    #[must_use]
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// Concerns requests for these models only; a name that ends in `*` stands for all that begin so. Default: all.
    ///
    /// With [`Scope::Global`] they share one count, as the models of a family do:
    ///
    /// ```
    /// use tollgate_budget::{Limit, Scope};
    ///
    /// let family = Limit::tokens(200_000).per_minute().models(["gpt-4o", "gpt-4o-2024-*"]).named("4o");
    /// # let _ = family;
    /// ```
    #[must_use]
    pub fn models<M: Into<Box<str>>>(mut self, models: impl IntoIterator<Item = M>) -> Self {
        self.models = Some(Models(models.into_iter().map(Into::into).collect()));
        self
    }

    /// Counts those requests together for which `key` gives one key; those for which it gives none it does not
    /// concern. Sets [`Scope::Custom`].
    ///
    /// Called once for each request, without a lock.
    ///
    /// ```
    /// use tollgate_budget::Limit;
    ///
    /// let team = Limit::requests(100).per_minute().keyed_by(|request| request.header("x-team")).named("a team");
    /// # let _ = team;
    /// ```
    #[must_use]
    pub fn keyed_by(
        mut self,
        key: impl Fn(&Asking<'_>) -> Option<Principal> + Send + Sync + 'static,
    ) -> Self {
        self.key = Some(KeyFn(Arc::new(key)));
        self.scope = Scope::Custom;
        self
    }

    /// Refuses what does not fit instead of letting it wait.
    #[must_use]
    pub fn refuse(mut self) -> Self {
        self.exhausted = Exhausted::Refuse;
        self
    }

    /// Asks `decide` about a request that it has no room for, instead of refusing it or letting it wait. Sets
    /// [`Exhausted::Review`].
    ///
    /// Called from the request's future, without a lock: it may look at the budget, and should answer at once. A
    /// request that waited for another limit when this one was used up is asked about then, and waits again from the
    /// end of its line if it is let through; both waits together are no longer than one may be.
    ///
    /// While it is asked, nothing is reserved: several that are asked at the same time are all shown the same use, and
    /// if all are let through, all of them overdraw the limit.
    ///
    /// ```
    /// use tollgate_budget::{Decision, Limit, Scope};
    ///
    /// let daily = Limit::tokens(100_000)
    ///     .per_calendar_day("Europe/Berlin")
    ///     .scope(Scope::Principal)
    ///     .review(|request| if request.used < 2 * request.amount { Decision::Allow } else { Decision::Refuse });
    /// # let _ = daily;
    /// ```
    #[must_use]
    pub fn review(mut self, decide: impl Fn(&Review) -> Decision + Send + Sync + 'static) -> Self {
        self.review = Some(ReviewFn(Arc::new(decide)));
        self.exhausted = Exhausted::Review;
        self
    }

    /// How much of it one token uses. Default: [`Weights::even`].
    #[must_use]
    pub fn weights(mut self, weights: Weights) -> Self {
        self.weights = weights;
        self
    }

    /// Input tokens that were read from a cache do not count: `weights` with [`Weights::cached_input`]`(0, 1)`.
    #[must_use]
    pub fn without_cached_input(mut self) -> Self {
        self.weights = self.weights.cached_input(0, 1);
        self
    }

    /// What a limit of money does with a request without a price. Default: [`Unpriced::Refuse`].
    #[must_use]
    pub fn unpriced(mut self, unpriced: Unpriced) -> Self {
        self.unpriced = unpriced;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose requests share it.
    #[must_use]
    pub fn whose(&self) -> Scope {
        self.scope
    }

    /// What it counts.
    #[must_use]
    pub fn counts(&self) -> Unit {
        self.unit
    }

    /// Whether it concerns requests for a model; `None`: for one that is not known.
    #[must_use]
    pub fn concerns(&self, model: Option<&str>) -> bool {
        let family = self.models.as_ref();
        family.is_none_or(|family| family.contain(model))
    }

    /// When the calendar period began in which `at` lies: what was spent since then belongs to it. `None` for a rate,
    /// and where there is no such time zone.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use tollgate_budget::Limit;
    ///
    /// let daily = Limit::dollars(25).per_calendar_day("UTC");
    /// let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 * 3 / 2);
    /// assert_eq!(daily.began(noon), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)));
    /// ```
    #[must_use]
    pub fn began(&self, at: SystemTime) -> Option<SystemTime> {
        let calendar = self.calendar.as_ref()?;
        let begin = calendar.plan().ok()?.began(nanos_of(at), calendar.days());
        Some(time_of(begin))
    }

    pub(crate) fn needs_prices(&self) -> bool {
        self.unit == Unit::Money && self.unpriced == Unpriced::Refuse
    }

    pub(crate) fn wrong<T>(&self, what: &str) -> Result<T, InvalidLimit> {
        Err(InvalidLimit(format!("{}: {what}", self.name).into()))
    }

    pub(crate) fn check(&self) -> Result<(), InvalidLimit> {
        let wrong = |what: &str| self.wrong(what);
        if self.amount == 0 {
            return wrong("a limit must be above zero");
        }
        if self.weights != Weights::even() {
            if let Err(why) = self.weights.check(self.unit) {
                return wrong(why);
            }
        }
        if let Some(Err(why)) = self.models.as_ref().map(Models::check) {
            return wrong(why);
        }
        if (self.scope == Scope::Custom) != self.key.is_some() {
            return wrong("a limit of a custom scope needs a function, and another one has none");
        }
        if (self.exhausted == Exhausted::Review) != self.review.is_some() {
            return wrong("it is to be reviewed and to refuse, and can do one of them only");
        }
        // The arithmetic is exact up to here.
        if u128::from(self.amount) * u128::from(self.weights.parts()) > 1 << 62 {
            return wrong(match self.unit {
                Unit::Money => "a limit of money must be below 4,611,686 dollars",
                _ => "a limit must be below 2^62 (with weights: in the smallest part of a unit)",
            });
        }
        if let Some(Err(why)) = self.calendar.as_ref().map(Calendar::plan) {
            return wrong(&why);
        }
        if self.calendar.is_some() && self.enforcement != Enforcement::Auto {
            return wrong("the calendar enforces it, and no other discipline can");
        }
        if self.unpriced != Unpriced::default() && self.unit != Unit::Money {
            return wrong("only a limit of money can let requests without a price pass");
        }
        if self.period < Duration::from_millis(1) || self.period > Duration::from_secs(366 * 86_400)
        {
            return wrong("a period must be from 1 ms to 366 days");
        }
        match self.enforcement {
            Enforcement::Bucket { burst: Some(0) } => wrong("a burst must be above zero"),
            Enforcement::Bucket { burst: Some(burst) } if burst > self.amount => {
                wrong("a burst must not be above the limit")
            }
            Enforcement::Quantised { slice } if slice >= self.period => {
                wrong("a slice must be shorter than the period")
            }
            Enforcement::Quantised { slice } if slice < Duration::from_millis(1) => {
                wrong("a slice must be 1 ms or longer")
            }
            _ => Ok(()),
        }
    }
}

/// A time of the wall clock.
pub(crate) fn time_of(wall: Wall) -> SystemTime {
    let time = Duration::from_nanos(wall.unsigned_abs());
    if wall < 0 {
        SystemTime::UNIX_EPOCH - time
    } else {
        SystemTime::UNIX_EPOCH + time
    }
}

/// A limit or a setting that cannot be; the text says which and why.
///
/// ```
/// use tollgate_budget::{Budget, Limit};
///
/// let error = Budget::in_memory([Limit::requests(0).per_minute()]).unwrap_err();
/// assert_eq!(error.to_string(), "requests per minute: a limit must be above zero");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLimit(pub(crate) Box<str>);

impl fmt::Display for InvalidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidLimit {}
