//! What a simulated provider saw and did, for assertions.
use std::{sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    body::BodyFate,
    books::{Enforcement, nanos, quantum},
    charge::{Billed, Cost},
    limit::Unit,
    provider::ask::Endpoint,
};

/// What the provider decided about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "is")]
#[non_exhaustive]
pub enum Decision {
    /// Within the limits: served, or broken on the way back by a fault.
    Admitted,
    /// Over a limit: 429.
    Refused {
        /// Which limit.
        unit: Unit,
        /// Larger than the whole limit.
        never: bool,
    },
    /// Wrong request, key, model or path: 4xx, no tokens charged.
    Rejected,
    /// Answered by a fault instead; a request was counted, no tokens were charged.
    Faulted,
}

/// One request that arrived. Holds neither its text nor its key.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Seen {
    /// When it arrived, from the start of the account.
    #[serde(serialize_with = "secs")]
    pub at: Duration,
    /// When its answer's headers were sent, or its connection broke.
    #[serde(serialize_with = "maybe_secs")]
    pub answered_at: Option<Duration>,
    /// When its answer's body ended or was dropped.
    #[serde(serialize_with = "maybe_secs")]
    pub ended_at: Option<Duration>,
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The model asked for; empty if it could not be read.
    pub model: Arc<str>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// What was decided.
    pub decision: Decision,
    /// The status of the answer; 0 for a transport error or none yet.
    pub status: u16,
    /// Whether a fault changed or replaced the answer.
    pub fault: bool,
    /// What the limits were charged, as last corrected.
    pub cost: Cost,
    /// The real usage that was billed; zero until the answer was made.
    pub billed: Billed,
    /// A digest of the API key.
    pub key: Option<u64>,
    /// The `idempotency-key` header.
    pub idempotency_key: Option<Arc<str>>,
    /// The `x-stainless-retry-count` header.
    pub retry_count: Option<u32>,
    /// A digest of the request's body.
    pub body: u64,
    /// What became of the answer's body.
    #[serde(serialize_with = "fate")]
    pub body_fate: BodyFate,
}

/// Sums over all requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Requests that arrived.
    pub requests: u64,
    /// Those within the limits.
    pub admitted: u64,
    /// Those over a limit; real ones, not those of a fault.
    pub refused: u64,
    /// Wrong requests.
    pub rejected: u64,
    /// Answered by a fault instead.
    pub faulted: u64,
    /// Connections that a fault refused: nothing arrived.
    pub unreached: u64,
    /// Answers with status 429, of any cause.
    pub status_429: u64,
    /// Tokens that the limits were charged, as last corrected.
    pub charged_tokens: u64,
    /// Input tokens billed.
    pub billed_input: u64,
    /// Output tokens billed.
    pub billed_output: u64,
    /// Requests that arrived and whose answer has not ended.
    pub in_flight: u64,
    /// The most of them at one time.
    pub max_in_flight: u64,
}

/// One limit, with how far it was used.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LimitUse {
    /// What it counts.
    pub unit: Unit,
    /// Units per window.
    pub amount: u64,
    /// The window.
    #[serde(serialize_with = "secs")]
    pub window: Duration,
    /// The model that it is for; `None`: all.
    pub model: Option<Arc<str>>,
    /// The enforcement.
    #[serde(serialize_with = "debug")]
    pub enforcement: Enforcement,
}

/// A snapshot of what the provider saw.
///
/// With limits per model or per key, the sums over windows are taken over all of them together.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Account {
    /// Every request that arrived, in order, up to the configured number.
    pub requests: Vec<Seen>,
    /// Sums, also over requests that are not kept.
    pub totals: Totals,
    /// The limits.
    pub limits: Vec<LimitUse>,
}

/// What an account comes to, for a report or another process. Times are seconds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// Sums.
    pub totals: Totals,
    /// The limits.
    pub limits: Vec<LimitUse>,
    /// For each limit, [`Account::max_in_any_window`].
    pub max_in_any_window: Vec<u64>,
    /// [`Account::first_arrival`].
    #[serde(serialize_with = "maybe_secs")]
    pub first_arrival: Option<Duration>,
    /// [`Account::last_admission`].
    #[serde(serialize_with = "maybe_secs")]
    pub last_admission: Option<Duration>,
    /// [`Account::last_end`].
    #[serde(serialize_with = "maybe_secs")]
    pub last_end: Option<Duration>,
    /// [`Account::least_span`].
    #[serde(serialize_with = "secs")]
    pub least_span: Duration,
    /// [`Account::admission_ratio`].
    pub admission_ratio: Option<f64>,
    /// [`Account::makespan_ratio`].
    pub makespan_ratio: Option<f64>,
}

impl Account {
    /// Everything that is computed from it, in one value.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            totals: self.totals,
            limits: self.limits.clone(),
            max_in_any_window: (0..self.limits.len())
                .map(|index| self.max_in_any_window(index))
                .collect(),
            first_arrival: self.first_arrival(),
            last_admission: self.last_admission(),
            last_end: self.last_end(),
            least_span: self.least_span(),
            admission_ratio: self.admission_ratio(),
            makespan_ratio: self.makespan_ratio(),
        }
    }

    /// When the first request arrived.
    #[must_use]
    pub fn first_arrival(&self) -> Option<Duration> {
        self.requests.first().map(|seen| seen.at)
    }

    /// When the last admitted request arrived.
    #[must_use]
    pub fn last_admission(&self) -> Option<Duration> {
        self.admitted().last().map(|seen| seen.at)
    }

    /// When the last answer ended.
    #[must_use]
    pub fn last_end(&self) -> Option<Duration> {
        self.requests.iter().filter_map(|seen| seen.ended_at).max()
    }

    /// First arrival to last admission.
    #[must_use]
    pub fn span(&self) -> Duration {
        self.since_first(self.last_admission())
    }

    /// First arrival to the end of the last answer.
    #[must_use]
    pub fn makespan(&self) -> Duration {
        self.since_first(self.last_end())
    }

    fn since_first(&self, end: Option<Duration>) -> Duration {
        let first = self.first_arrival().unwrap_or_default();
        end.unwrap_or(first).saturating_sub(first)
    }

    fn admitted(&self) -> impl DoubleEndedIterator<Item = &Seen> {
        self.requests
            .iter()
            .filter(|seen| seen.decision == Decision::Admitted)
    }

    /// The most that was admitted against limit `index` in any stretch as long as its window.
    ///
    /// Exact over every sliding window, whatever the enforcement: a bucket or a fixed counter
    /// rightly lets up to twice the limit through in some windows.
    ///
    /// # Panics
    ///
    /// If there is no such limit.
    #[must_use]
    pub fn max_in_any_window(&self, index: usize) -> u64 {
        let limit = &self.limits[index];
        let entries: Vec<_> = self.charged(limit).collect();
        let (mut sum, mut peak, mut first) = (0, 0, 0);
        for &(at, cost) in &entries {
            sum += cost;
            while entries[first].0 + limit.window <= at {
                sum -= entries[first].1;
                first += 1;
            }
            peak = peak.max(sum);
        }
        peak
    }

    fn charged<'a>(&'a self, limit: &'a LimitUse) -> impl Iterator<Item = (Duration, u64)> + 'a {
        self.admitted()
            .filter(|seen| {
                limit
                    .model
                    .as_ref()
                    .is_none_or(|model| *model == seen.model)
            })
            .map(|seen| (seen.at, limit.unit.of(&seen.cost)))
    }

    /// The least time from the first arrival to the last admission in which the accepted work could
    /// have been admitted, were it all ready at the first arrival.
    ///
    /// With work for k windows: k − 1 whole windows if rolling, the same less the elapsed part of
    /// the first one if fixed, and (work − burst) / limit windows if it is a bucket.
    #[must_use]
    pub fn least_span(&self) -> Duration {
        let start = nanos(self.first_arrival().unwrap_or_default());
        let least = self.limits.iter().map(|limit| {
            let work: u64 = self.charged(limit).map(|(_, cost)| cost).sum();
            let window = nanos(limit.window).max(1);
            let steps = |amount: u64| work.div_ceil(amount.max(1)).saturating_sub(1);
            match limit.enforcement {
                Enforcement::Rolling => steps(limit.amount) * window,
                Enforcement::Fixed => {
                    (steps(limit.amount) * window).saturating_sub(if steps(limit.amount) > 0 {
                        start % window
                    } else {
                        0
                    })
                }
                Enforcement::Bucket { burst } => {
                    let beyond = work.saturating_sub(burst.unwrap_or(limit.amount));
                    let time = u128::from(beyond) * u128::from(window);
                    u64::try_from(time / u128::from(limit.amount.max(1))).unwrap_or(u64::MAX)
                }
                Enforcement::Quantised { q } => {
                    let q = nanos(q).clamp(1, window);
                    let steps = steps(quantum(limit.amount, window, q));
                    (steps * q).saturating_sub(if steps > 0 { start % q } else { 0 })
                }
            }
        });
        Duration::from_nanos(least.max().unwrap_or(0))
    }

    /// [`span`](Self::span) over [`least_span`](Self::least_span); 1.0 is perfect. `None` if the work fits at once.
    #[must_use]
    pub fn admission_ratio(&self) -> Option<f64> {
        let least = self.least_span();
        (!least.is_zero()).then(|| self.span().as_secs_f64() / least.as_secs_f64())
    }

    /// [`makespan`](Self::makespan) over [`least_span`](Self::least_span). `None` if the work fits at once.
    #[must_use]
    pub fn makespan_ratio(&self) -> Option<f64> {
        let least = self.least_span();
        (!least.is_zero()).then(|| self.makespan().as_secs_f64() / least.as_secs_f64())
    }
}

fn secs<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

fn maybe_secs<S: Serializer>(time: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(to)
}

fn fate<S: Serializer>(fate: &BodyFate, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(match fate {
        BodyFate::Open => "open",
        BodyFate::Complete => "complete",
        BodyFate::Broken => "broken",
        BodyFate::Dropped => "dropped",
    })
}

fn debug<S: Serializer>(value: &Enforcement, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format!("{value:?}"))
}
