//! The settings of a simulated provider.
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{SimProvider, ask::Endpoint, digest};
use crate::{
    books::Enforcement,
    charge::Charging,
    fault::{Fault, Incoming},
    latency::Latency,
    limit::SimLimit,
    mix::FaultMix,
    wall,
};

pub(super) type Predicate = dyn Fn(&Incoming<'_>) -> Fault + Send + Sync;

#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) limits: Vec<SimLimit>,
    pub(crate) window: Duration,
    pub(crate) enforcement: Enforcement,
    pub(crate) charging: Charging,
    pub(crate) unset_cap: u64,
    pub(crate) per_model: bool,
    pub(crate) per_key: bool,
    pub(crate) count_refused: bool,
    pub(crate) models: Vec<(Arc<str>, Option<u64>)>,
    pub(crate) keys: Vec<u64>,
    pub(crate) dated: Option<Arc<str>>,
    pub(crate) seed: u64,
    pub(crate) latency: Latency,
    pub(crate) error_latency: Latency,
    pub(crate) arrival_skew: Latency,
    pub(crate) pace: Duration,
    pub(crate) output_share: f64,
    pub(crate) typical_cap: u64,
    pub(crate) reply_tokens: Option<u64>,
    pub(crate) chars_per_token: f64,
    pub(crate) cached_share: f64,
    pub(crate) tokens_per_event: u64,
    pub(crate) state_limits: bool,
    pub(crate) state_wait: bool,
    pub(crate) state_processing: bool,
    pub(crate) mix: Option<FaultMix>,
    pub(crate) predicate: Option<Arc<Predicate>>,
    pub(crate) script: Vec<Fault>,
    pub(crate) epoch: SystemTime,
    pub(crate) keep: usize,
}

impl Config {
    /// The context window of a model; `Err` if there is no such model.
    pub(crate) fn context(&self, model: &str) -> Result<Option<u64>, ()> {
        if self.models.is_empty() {
            return Ok(None);
        }
        self.models
            .iter()
            .find(|(name, _)| **name == *model)
            .map(|(_, context)| *context)
            .ok_or(())
    }

    /// Tokens of the prompt as the provider's own tokenizer counts them.
    pub(crate) fn input_tokens(&self, chars: u64, ids: u64) -> u64 {
        ((chars as f64 / self.chars_per_token).ceil() as u64 + ids).max(1)
    }

    /// Tokens of one answer: the same for the same request and seed.
    pub(crate) fn output_tokens(
        &self,
        endpoint: Endpoint,
        body: u64,
        answer: u64,
        cap: Option<u64>,
    ) -> u64 {
        if endpoint == Endpoint::Embeddings {
            return 0;
        }
        if let Some(tokens) = self.reply_tokens {
            return cap.map_or(tokens, |cap| tokens.min(cap));
        }
        let cap = cap.unwrap_or(self.typical_cap);
        let seed = self.seed ^ body ^ answer.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let draw = fastrand::Rng::with_seed(seed).f64();
        // U^a has the mean 1 / (a + 1), so this has the mean that was asked for, within (0, 1).
        let share = draw.powf(1.0 / self.output_share - 1.0);
        ((cap as f64 * share).ceil() as u64).clamp(cap.min(1), cap)
    }
}

/// Makes a [`SimProvider`].
///
/// | setting | default |
/// |---|---|
/// | limits | none |
/// | window, enforcement | 60 s, [`Enforcement::Rolling`] |
/// | charging | [`Charging::Sum`], 16 tokens for a cap that is not stated |
/// | scope of the limits | all requests together |
/// | refused requests | count against the request limits |
/// | models, keys | all are welcome |
/// | latency, pace, skew | none |
/// | answer | half of the cap on average, 256 tokens where none is stated |
/// | headers | all |
/// | faults | none |
#[derive(Clone)]
#[must_use]
pub struct SimBuilder {
    config: Config,
}

impl SimBuilder {
    pub(super) fn new() -> Self {
        Self {
            config: Config {
                limits: Vec::new(),
                window: Duration::from_secs(60),
                enforcement: Enforcement::Rolling,
                charging: Charging::Sum,
                unset_cap: 16,
                per_model: false,
                per_key: false,
                count_refused: true,
                models: Vec::new(),
                keys: Vec::new(),
                dated: None,
                seed: 0,
                latency: Latency::ZERO,
                error_latency: Latency::ZERO,
                arrival_skew: Latency::ZERO,
                pace: Duration::ZERO,
                output_share: 0.5,
                typical_cap: 512,
                reply_tokens: None,
                chars_per_token: 4.0,
                cached_share: 0.0,
                tokens_per_event: 1,
                state_limits: true,
                state_wait: true,
                state_processing: true,
                mix: None,
                predicate: None,
                script: Vec::new(),
                epoch: UNIX_EPOCH + wall::EPOCH,
                keep: 1_000_000,
            },
        }
    }

    /// Builds it. Its account starts now.
    #[must_use]
    pub fn build(self) -> SimProvider {
        SimProvider::of(self.config)
    }

    /// Adds a limit; any number of them hold at once, all or nothing.
    ///
    /// Headers state the first of each unit.
    pub fn limit(mut self, limit: SimLimit) -> Self {
        self.config.limits.push(limit);
        self
    }

    /// Adds a limit of requests per window.
    pub fn requests(self, amount: u64) -> Self {
        self.limit(SimLimit::requests(amount))
    }

    /// Adds a limit of tokens per window.
    pub fn tokens(self, amount: u64) -> Self {
        self.limit(SimLimit::tokens(amount))
    }

    /// The window of limits without their own. From a nanosecond.
    pub fn window(mut self, window: Duration) -> Self {
        self.config.window = window.max(Duration::from_nanos(1));
        self
    }

    /// The enforcement of limits without their own.
    pub fn enforcement(mut self, enforcement: Enforcement) -> Self {
        self.config.enforcement = enforcement;
        self
    }

    /// What a request costs.
    pub fn charging(mut self, charging: Charging) -> Self {
        self.config.charging = charging;
        self
    }

    /// What a cap that the request does not state counts as.
    pub fn unset_cap(mut self, tokens: u64) -> Self {
        self.config.unset_cap = tokens;
        self
    }

    /// Every model has the limits for itself.
    pub fn per_model(mut self) -> Self {
        self.config.per_model = true;
        self
    }

    /// Every API key has the limits for itself.
    pub fn per_key(mut self) -> Self {
        self.config.per_key = true;
        self
    }

    /// Refused requests do not count.
    pub fn lenient(mut self) -> Self {
        self.config.count_refused = false;
        self
    }

    /// Adds a model; with at least one, every other model is unknown.
    pub fn model(mut self, name: &str) -> Self {
        self.config.models.push((name.into(), None));
        self
    }

    /// Adds a model whose prompt and cap together may have so many tokens.
    pub fn model_with_context(mut self, name: &str, tokens: u64) -> Self {
        self.config.models.push((name.into(), Some(tokens)));
        self
    }

    /// Adds an API key; with at least one, every other is refused with 401.
    pub fn api_key(mut self, key: &str) -> Self {
        self.config.keys.push(digest(key.as_bytes()));
        self
    }

    /// The served model is the one asked for with `-` and this behind it, as with an alias.
    pub fn dated(mut self, date: &str) -> Self {
        self.config.dated = Some(date.into());
        self
    }

    /// The seed of all that is drawn.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = seed;
        self
    }

    /// Time until the headers of a successful answer; of a stream, with them its first event.
    pub fn latency(mut self, latency: impl Into<Latency>) -> Self {
        self.config.latency = latency.into();
        self
    }

    /// Time until the headers of a refusal or an error.
    pub fn error_latency(mut self, latency: impl Into<Latency>) -> Self {
        self.config.error_latency = latency.into();
        self
    }

    /// Time between sending and arriving, drawn for each request: the network's own disorder.
    pub fn arrival_skew(mut self, skew: impl Into<Latency>) -> Self {
        self.config.arrival_skew = skew.into();
        self
    }

    /// Time for each token of output: between the events of a stream, on top of the latency of a document.
    pub fn pace(mut self, per_token: Duration) -> Self {
        self.config.pace = per_token;
        self
    }

    /// The mean share of its cap that an answer uses; 0.01 to 1.
    pub fn output_share(mut self, share: f64) -> Self {
        self.config.output_share = if share.is_nan() {
            0.5
        } else {
            share.clamp(0.01, 1.0)
        };
        self
    }

    /// Every answer has so many tokens, or its cap if that is less.
    pub fn reply_tokens(mut self, tokens: u64) -> Self {
        self.config.reply_tokens = Some(tokens);
        self
    }

    /// How many characters of a prompt are one token, in truth; the charge on arrival always guesses 4.
    pub fn chars_per_token(mut self, chars: f64) -> Self {
        self.config.chars_per_token = if chars > 0.0 { chars } else { 4.0 };
        self
    }

    /// The share of each prompt that comes from a cache; 0 to 1.
    pub fn cached_share(mut self, share: f64) -> Self {
        self.config.cached_share = if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        };
        self
    }

    /// Tokens in one event of a stream, from 1.
    pub fn tokens_per_event(mut self, tokens: u64) -> Self {
        self.config.tokens_per_event = tokens.max(1);
        self
    }

    /// States no limits, no waits and no processing time: a provider without headers.
    pub fn headers_off(self) -> Self {
        self.state_limits(false)
            .state_wait(false)
            .state_processing(false)
    }

    /// Whether the headers state the limits.
    pub fn state_limits(mut self, yes: bool) -> Self {
        self.config.state_limits = yes;
        self
    }

    /// Whether a 429 states a wait, in headers and text.
    pub fn state_wait(mut self, yes: bool) -> Self {
        self.config.state_wait = yes;
        self
    }

    /// Whether `openai-processing-ms` is sent.
    pub fn state_processing(mut self, yes: bool) -> Self {
        self.config.state_processing = yes;
        self
    }

    /// One fault for each request, in the order of the calls; [`Fault::None`] leaves one alone.
    pub fn script(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.config.script.extend(faults);
        self
    }

    /// Asks for a fault for each request that the script has none for.
    pub fn on(mut self, fault: impl Fn(&Incoming<'_>) -> Fault + Send + Sync + 'static) -> Self {
        self.config.predicate = Some(Arc::new(fault));
        self
    }

    /// Draws a fault for each request that neither script nor predicate has one for.
    pub fn mix(mut self, mix: FaultMix) -> Self {
        self.config.mix = Some(mix);
        self
    }

    /// The calendar's time at the start: 2026-01-01T00:00:00Z unless set, so that runs repeat.
    pub fn epoch(mut self, epoch: SystemTime) -> Self {
        self.config.epoch = epoch;
        self
    }

    /// How many requests the account keeps one by one: a million unless set.
    pub fn keep_requests(mut self, count: usize) -> Self {
        self.config.keep = count;
        self
    }
}

impl fmt::Debug for SimBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimBuilder")
            .field("limits", &self.config.limits)
            .field("window", &self.config.window)
            .field("enforcement", &self.config.enforcement)
            .field("charging", &self.config.charging)
            .finish_non_exhaustive()
    }
}
