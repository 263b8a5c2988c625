//! The limits that a simulated provider enforces.
use std::{sync::Arc, time::Duration};

use serde::Serialize;

use crate::{books::Enforcement, charge::Cost};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
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
    /// This unit's part of one request's cost.
    pub(crate) fn of(self, cost: &Cost) -> u64 {
        match self {
            Self::Requests => 1,
            Self::Tokens => cost.tokens,
            Self::InputTokens => cost.input,
            Self::OutputTokens => cost.output,
        }
    }
}

/// One limit: so many units in each window.
///
/// Window and enforcement are the provider's, unless the limit has its own.
///
/// ```
/// use std::time::Duration;
/// use tollgate_sim::{Enforcement, SimLimit};
///
/// let per_minute = SimLimit::tokens(200_000);
/// let per_day = SimLimit::requests(10_000)
///     .per(Duration::from_secs(86_400))
///     .enforced(Enforcement::Bucket { burst: None })
///     .for_model("gpt-test");
/// assert_ne!(per_minute, per_day);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimLimit {
    pub(crate) unit: Unit,
    pub(crate) amount: u64,
    pub(crate) window: Option<Duration>,
    pub(crate) enforcement: Option<Enforcement>,
    pub(crate) model: Option<Arc<str>>,
}

impl SimLimit {
    /// So many units of this kind. A limit of 0 refuses everything, for ever.
    #[must_use]
    pub fn new(unit: Unit, amount: u64) -> Self {
        Self {
            unit,
            amount,
            window: None,
            enforcement: None,
            model: None,
        }
    }

    /// Requests.
    #[must_use]
    pub fn requests(amount: u64) -> Self {
        Self::new(Unit::Requests, amount)
    }

    /// Input and output tokens together.
    #[must_use]
    pub fn tokens(amount: u64) -> Self {
        Self::new(Unit::Tokens, amount)
    }

    /// Input tokens.
    #[must_use]
    pub fn input_tokens(amount: u64) -> Self {
        Self::new(Unit::InputTokens, amount)
    }

    /// Output tokens.
    #[must_use]
    pub fn output_tokens(amount: u64) -> Self {
        Self::new(Unit::OutputTokens, amount)
    }

    /// Its own window, instead of the provider's.
    #[must_use]
    pub fn per(mut self, window: Duration) -> Self {
        self.window = Some(window);
        self
    }

    /// Its own enforcement, instead of the provider's.
    #[must_use]
    pub fn enforced(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = Some(enforcement);
        self
    }

    /// Counts only requests for this model.
    #[must_use]
    pub fn for_model(mut self, model: &str) -> Self {
        self.model = Some(model.into());
        self
    }
}
