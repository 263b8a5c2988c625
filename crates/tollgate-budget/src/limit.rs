//! A limit as a user writes it down.
use std::{fmt, sync::Arc, time::Duration};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
}

impl Unit {
    fn noun(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input tokens",
            Self::OutputTokens => "output tokens",
        }
    }
}

/// How the other side enforces a limit, or how we do where it is our own.
///
/// A wrong choice costs refusals (a bucket where the provider counts a window) or throughput (a window where it
/// has a bucket), so the default finds out by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Enforcement {
    /// As [`Rolling`](Self::Rolling), which is safe under all of them, until the provider's headers prove a
    /// bucket; back again when a refusal disproves it.
    #[default]
    Auto,
    /// A bucket of `burst` units that fills continuously: OpenAI, Groq, Anthropic. `None`: the whole limit.
    Bucket {
        /// Units that may be sent at once when it is full; at least 1, at most the limit.
        burst: Option<u64>,
    },
    /// No more than the limit in any span of one period.
    Rolling,
    /// A counter that starts anew each period.
    ///
    /// The first window begins with the first request, until a `reset` in the headers tells when it ends.
    Fixed,
    /// A limit that is enforced in slices: 60 a minute as 1 a second.
    Quantised {
        /// Length of a slice; shorter than the period.
        slice: Duration,
    },
}

/// Whose requests share one count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All of them.
    #[default]
    Global,
    /// Those of one model, as asked for.
    Model,
    /// Those of one principal: the call's, or else the user whom the request names.
    ///
    /// Such a limit is our own: what the provider says of its limits does not change it.
    Principal,
}

/// What happens to a request that does not fit just now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Exhausted {
    /// It waits in the queue.
    #[default]
    Wait,
    /// It is refused, and told when to come back.
    Refuse,
}

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
    pub(crate) name: Arc<str>,
    pub(crate) enforcement: Enforcement,
    pub(crate) scope: Scope,
    pub(crate) exhausted: Exhausted,
}

/// A number of units; the period makes it a [`Limit`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a limit needs a period: `.per_minute()`"]
pub struct Amount {
    unit: Unit,
    amount: u64,
}

impl Amount {
    /// A second.
    pub fn per_second(self) -> Limit {
        self.per(Duration::from_secs(1))
    }

    /// A minute.
    pub fn per_minute(self) -> Limit {
        self.per(Duration::from_secs(60))
    }

    /// An hour.
    pub fn per_hour(self) -> Limit {
        self.per(Duration::from_secs(3600))
    }

    /// A day of 24 hours, as a rate: it refills all the time and knows no midnight.
    pub fn per_day(self) -> Limit {
        self.per(Duration::from_secs(86_400))
    }

    /// Any period from 1 ms to 366 days.
    pub fn per(self, period: Duration) -> Limit {
        let noun = self.unit.noun();
        let name = match period.as_secs() {
            1 if period.subsec_nanos() == 0 => format!("{noun} per second"),
            60 if period.subsec_nanos() == 0 => format!("{noun} per minute"),
            3600 if period.subsec_nanos() == 0 => format!("{noun} per hour"),
            86_400 if period.subsec_nanos() == 0 => format!("{noun} per day"),
            _ => format!("{noun} per {period:?}"),
        };
        Limit {
            unit: self.unit,
            amount: self.amount,
            period,
            name: name.into(),
            enforcement: Enforcement::default(),
            scope: Scope::default(),
            exhausted: Exhausted::default(),
        }
    }
}

impl Limit {
    pub(crate) fn of(unit: Unit, amount: u64) -> Amount {
        Amount { unit, amount }
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

    /// Refuses what does not fit instead of letting it wait.
    #[must_use]
    pub fn refuse(mut self) -> Self {
        self.exhausted = Exhausted::Refuse;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn check(&self) -> Result<(), InvalidLimit> {
        let wrong = |what: &str| Err(InvalidLimit(format!("{}: {what}", self.name).into()));
        if self.amount == 0 {
            return wrong("a limit must be above zero");
        }
        // The arithmetic is exact up to here.
        if self.amount > 1 << 62 {
            return wrong("a limit must be below 2^62");
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
