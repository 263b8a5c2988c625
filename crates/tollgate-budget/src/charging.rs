//! What a request is charged: the provider's rule, copied.
//!
//! Every provider charges a request when it admits it, before it knows what the answer will use, and each by its
//! own rule. A budget that reserves by another rule wastes the limit or runs into refusals, so the rule is data:
//! one [`ChargeProfile`] for each dialect, and a user may replace any of them.
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::request::Parts;

use tollgate_core::{
    price::{Pico, PriceTable},
    wire::{
        estimate::{PER_IMAGE, PER_MESSAGE},
        prompt::{Dialect, Endpoint, Facts, RequestFacts},
        usage::Usage,
    },
};

use crate::{
    learned::{Known, Learned},
    telemetry,
    uncapped::{self, Uncapped},
    used::{Tariff, Used},
};

/// Units of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Cost {
    /// Requests; 1 for one request.
    pub requests: u64,
    /// Tokens that count against a limit of input and output together.
    pub tokens: u64,
    /// Tokens that count against a limit of input.
    pub input: u64,
    /// Tokens that count against a limit of output.
    pub output: u64,
    /// Images.
    pub images: u64,
    /// What it uses, which is what our own limits count.
    pub used: Used,
}

impl Cost {
    /// One request that uses no tokens.
    #[must_use]
    pub fn request() -> Self {
        Self {
            requests: 1,
            ..Self::default()
        }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            tokens: self.tokens.saturating_add(other.tokens),
            input: self.input.saturating_add(other.input),
            output: self.output.saturating_add(other.output),
            images: self.images.saturating_add(other.images),
            // Of no account where limits are learned, which are the provider's.
            used: self.used,
        }
    }

    /// The same with so many images.
    #[must_use]
    pub fn images(mut self, images: u64) -> Self {
        self.images = images;
        self
    }

    /// The same with so much money.
    #[must_use]
    pub fn money(mut self, amount: Pico) -> Self {
        self.used = self.used.money(amount);
        self
    }

    /// The same for the provider's limits, and this for our own.
    #[must_use]
    pub fn using(mut self, used: Used) -> Self {
        self.used = used;
        self
    }

    /// The same with so many input and output tokens, and their sum.
    #[must_use]
    pub fn tokens(mut self, input: u64, output: u64) -> Self {
        self.input = input;
        self.output = output;
        self.tokens = input.saturating_add(output);
        self.used = Used {
            money: self.used.money,
            ..Used::tokens(input, output)
        };
        self
    }
}

/// How much of the output is reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OutputCharge {
    /// The cap, added to the input.
    Sum,
    /// The larger of the cap and the input.
    Max,
    /// Nothing: the prompt is all that is charged.
    Nothing,
}

/// How the tokens of a prompt's text are known.
#[derive(Clone, Copy)]
enum Text {
    /// Characters / 4.
    Characters,
    /// So many tokens for 1,024 characters.
    Density(u64),
    /// Counted, with what is put around each message.
    Exact(u64),
}

/// How one provider charges a request.
///
/// ```
/// use tollgate_budget::ChargeProfile;
///
/// let azure = ChargeProfile::sum().unset_cap(4096);
/// let bedrock = ChargeProfile::sum().settles(true);
/// assert_ne!(azure, bedrock);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChargeProfile {
    output: OutputCharge,
    settles: bool,
    unset_cap: u64,
    per_message: u64,
    per_image: u64,
}

impl ChargeProfile {
    /// Characters / 4 (rounded up) of the prompt, 765 for an image, plus the output cap for each answer; never
    /// given back.
    #[must_use]
    pub fn sum() -> Self {
        Self {
            output: OutputCharge::Sum,
            settles: false,
            unset_cap: 16,
            per_message: 0,
            per_image: PER_IMAGE,
        }
    }

    /// The larger of the estimated prompt and the output cap; never given back.
    #[must_use]
    pub fn max() -> Self {
        Self {
            output: OutputCharge::Max,
            ..Self::sum()
        }
    }

    /// The estimated prompt and 2 for each message, and nothing for the output.
    #[must_use]
    pub fn prompt_only() -> Self {
        Self {
            output: OutputCharge::Nothing,
            per_message: PER_MESSAGE,
            ..Self::sum()
        }
    }

    /// Whether the provider puts the charge right when the answer has ended. Default: no.
    ///
    /// Giving back where the provider does not is answered with refusals; not giving back where it does wastes
    /// what was reserved.
    #[must_use]
    pub fn settles(mut self, settles: bool) -> Self {
        self.settles = settles;
        self
    }

    pub(crate) fn is_settling(&self) -> bool {
        self.settles
    }

    /// Output tokens reserved where a request states no cap. Default 16.
    #[must_use]
    pub fn unset_cap(mut self, tokens: u64) -> Self {
        self.unset_cap = tokens;
        self
    }

    /// Tokens added for each message. Default 0, for [`prompt_only`](Self::prompt_only) 2.
    #[must_use]
    pub fn per_message(mut self, tokens: u64) -> Self {
        self.per_message = tokens;
        self
    }

    /// Tokens for each image in the prompt. Default 765.
    #[must_use]
    pub fn per_image(mut self, tokens: u64) -> Self {
        self.per_image = tokens;
        self
    }

    /// What a request is charged when it is admitted.
    ///
    /// Never fails and never overflows: a request of 2^64 tokens is one that no limit can hold.
    #[must_use]
    pub fn estimate(&self, facts: &RequestFacts) -> Cost {
        self.estimate_of(
            facts,
            facts.max_output_tokens.unwrap_or(self.unset_cap),
            Text::Characters,
        )
    }

    /// The same with so much output for each answer, and the text known so.
    fn estimate_of(&self, facts: &RequestFacts, cap: u64, text: Text) -> Cost {
        let one = Cost::request();
        match facts.endpoint {
            // Accepted now, charged elsewhere; or not charged in tokens at all.
            Endpoint::Deferred
            | Endpoint::Other
            | Endpoint::CountTokens
            | Endpoint::Moderations
            | Endpoint::Transcriptions => return one,
            _ => {}
        }
        // Each input of a batch is rounded up for itself, and only their sum is known.
        let rounding = u64::from(facts.inputs.unwrap_or(1).saturating_sub(1))
            .saturating_mul(3)
            .div_ceil(4);
        let guessed = |text: u64| {
            text.saturating_add(rounding)
                .saturating_add(u64::from(facts.messages).saturating_mul(self.per_message))
        };
        let text = match text {
            Text::Characters => guessed(facts.prompt_chars.div_ceil(4)),
            Text::Density(density) => {
                guessed(facts.prompt_chars.saturating_mul(density).div_ceil(1024))
            }
            Text::Exact(tokens) => tokens,
        };
        let input = text
            .saturating_add(facts.prompt_token_ids)
            .saturating_add(u64::from(facts.images).saturating_mul(self.per_image));
        if !facts.endpoint.generates() {
            return one.tokens(input, 0);
        }
        let output = cap.saturating_mul(facts.generated());
        match self.output {
            OutputCharge::Sum => one.tokens(input, output),
            OutputCharge::Max => Cost {
                tokens: input.max(output),
                ..one.tokens(input, output)
            },
            OutputCharge::Nothing => one.tokens(input, 0),
        }
    }

    /// What it is charged in the end, if the provider settles and the usage is known; `None`: the estimate stands.
    #[must_use]
    pub fn actual(&self, usage: &Usage) -> Option<Cost> {
        if !self.settles {
            return None;
        }
        // Reads from the cache are free where a provider settles (Anthropic, Bedrock).
        let input = usage.input.exact()?;
        let input = input.saturating_sub(usage.cached_input.get().unwrap_or(0));
        let output = usage.output.exact().or_else(|| {
            // An answer without output, such as an embedding.
            (self.output == OutputCharge::Nothing).then_some(0)
        })?;
        Some(match self.output {
            OutputCharge::Sum => Cost::request().tokens(input, output),
            OutputCharge::Max => Cost {
                tokens: input.max(output),
                ..Cost::request().tokens(input, output)
            },
            OutputCharge::Nothing => Cost::request().tokens(input, 0),
        })
    }

    /// What is charged for an answer that was left early: the prompt, and what was received of the output.
    pub(crate) fn received(&self, estimate: Cost, output_chars: u64) -> Option<Cost> {
        if !self.settles {
            return None;
        }
        let output = output_chars.div_ceil(4);
        let cost = Cost::request().tokens(estimate.input, output);
        Some(match self.output {
            OutputCharge::Max => Cost {
                tokens: estimate.input.max(output),
                ..cost
            },
            OutputCharge::Nothing => Cost::request().tokens(estimate.input, 0),
            OutputCharge::Sum => cost,
        })
    }
}

/// What stands when the caller leaves before the usage is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropPolicy {
    /// The reservation: the provider may generate to the end and charge all of it.
    #[default]
    Keep,
    /// The prompt and what was received, where the profile settles.
    Received,
}

/// The charging rules of a budget, one for each dialect.
///
/// ```
/// use tollgate_budget::{ChargeProfile, Charging};
/// use tollgate_core::wire::prompt::Dialect;
///
/// let charging = Charging::auto().with(Dialect::Azure, ChargeProfile::sum().unset_cap(4096));
/// let everywhere = Charging::all(ChargeProfile::prompt_only());
/// assert_ne!(charging.profile(Dialect::Azure), everywhere.profile(Dialect::Azure));
/// ```
#[derive(Clone)]
pub struct Charging {
    rest: Option<ChargeProfile>,
    exceptions: Arc<[(Dialect, ChargeProfile)]>,
    on_drop: DropPolicy,
    pub(crate) tariff: Tariff,
    uncapped: Uncapped,
    warned: Arc<AtomicBool>,
    learned: Option<Arc<Learned>>,
    /// A budget in shadow mode: nothing is written.
    shadow: bool,
    #[cfg(feature = "bpe-openai")]
    pub(crate) exact: Option<crate::exact::Tokenizer>,
}

impl Charging {
    /// The rule known for each dialect.
    ///
    /// Anthropic and Bedrock settle to real usage; Gemini counts input alone; all others reserve prompt and cap
    /// and are given nothing back.
    #[must_use]
    pub fn auto() -> Self {
        Self {
            rest: None,
            exceptions: Arc::from([]),
            on_drop: DropPolicy::default(),
            tariff: Tariff::default(),
            uncapped: Uncapped::default(),
            warned: Arc::default(),
            learned: None,
            shadow: false,
            #[cfg(feature = "bpe-openai")]
            exact: None,
        }
    }

    pub(crate) fn shadow(mut self, on: bool) -> Self {
        self.shadow = on;
        self
    }

    /// One rule for all.
    #[must_use]
    pub fn all(profile: ChargeProfile) -> Self {
        Self {
            rest: Some(profile),
            ..Self::auto()
        }
    }

    /// Another rule for one dialect.
    #[must_use]
    pub fn with(self, dialect: Dialect, profile: ChargeProfile) -> Self {
        let exceptions = self
            .exceptions
            .iter()
            .copied()
            .filter(|(other, _)| *other != dialect)
            .chain([(dialect, profile)])
            .collect();
        Self { exceptions, ..self }
    }

    /// Prices, for limits of money. Default: none.
    #[must_use]
    pub fn prices(mut self, prices: PriceTable) -> Self {
        self.tariff.set_prices(prices);
        self
    }

    /// Output tokens that limits of our own reserve for each answer of a request that states no cap. Default 4,096.
    #[must_use]
    pub fn assumed_output(mut self, tokens: u64) -> Self {
        self.tariff.set_assumed_output(tokens);
        self
    }

    /// What is done with a request that states no output cap. Default: [`Uncapped::Reserve`].
    #[must_use]
    pub fn uncapped(mut self, policy: Uncapped) -> Self {
        self.uncapped = policy;
        self
    }

    /// Reserves what the model's answers have shown to need: of the last 256 with their usage, once there are 20, what 95 of
    /// 100 stayed at or below. Default: no.
    ///
    /// For the output it takes the place of the unset cap, and of a cap where the provider settles to real usage and so
    /// does not charge it: a cap of 32,000 for answers of 500 would let hardly anything through. For the input it takes
    /// the place of characters / 4 where the provider settles; another guesses by characters itself. What is used beyond
    /// becomes a debt that those after it wait for. Limits of our own reserve the worst case as before.
    #[must_use]
    pub fn learned_estimates(mut self, on: bool) -> Self {
        self.learned = on.then(Arc::default);
        self
    }

    /// Counts the tokens of the prompt's text exactly, where the model's tokenizer is known. Default: no.
    ///
    /// The count takes the place of the estimated input in limits of our own (of a principal, of money, per calendar
    /// period), and in those of a provider that settles to real usage. A provider that gives nothing back charges by an
    /// estimate of its own, and its limits are kept by that. Every message of a chat adds 4 tokens and the answer 3, as
    /// in OpenAI's cookbook ("How to count tokens with tiktoken"); images and token ids are added as before; tool
    /// definitions are not in it, for how they are put to the model is not public.
    ///
    /// More than 16 KiB of text are counted on a thread for blocking work, and so is what waits for a tokenizer's table to
    /// be loaded; the request asks for admission when that is done. Where there is no tokio runtime, or the count fails,
    /// the estimate by characters stands. The time is linear in the text, whatever it is.
    ///
    /// ```
    /// use tollgate_budget::{Budget, Charging, Limit, Tokenizer};
    ///
    /// let budget = Budget::builder()
    ///     .limit(Limit::input_tokens(1_000_000).per_calendar_day("UTC"))
    ///     .charging(Charging::auto().exact(Tokenizer::ByModel))
    ///     .build()?;
    /// # let _ = budget;
    /// # Ok::<(), tollgate_budget::InvalidLimit>(())
    /// ```
    #[cfg(feature = "bpe-openai")]
    #[cfg_attr(docsrs, doc(cfg(feature = "bpe-openai")))]
    #[must_use]
    pub fn exact(mut self, tokenizer: crate::exact::Tokenizer) -> Self {
        self.exact = Some(tokenizer);
        self
    }

    pub(crate) fn learned(&self) -> Option<&Arc<Learned>> {
        self.learned.as_ref()
    }

    /// The request as it is to be sent.
    pub(crate) fn cap(&self, parts: &mut Parts, body: Bytes, facts: Facts) -> (Bytes, Facts) {
        if facts.max_output_tokens.is_some() || !facts.endpoint.generates() {
            return (body, facts);
        }
        match self.uncapped {
            Uncapped::Reserve => {}
            Uncapped::Warn => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    telemetry::uncapped(facts.model.as_deref());
                }
            }
            Uncapped::Write(cap) if self.shadow => {
                // It is reckoned with, and goes as it is.
                if let Some((_, capped)) = uncapped::write(&mut parts.clone(), &body, &facts, cap) {
                    return (body, capped);
                }
            }
            Uncapped::Write(cap) => {
                if let Some(capped) = uncapped::write(parts, &body, &facts, cap) {
                    return capped;
                }
            }
        }
        (body, facts)
    }

    /// The rule for a request: its dialect's, with what was learned of the model's output; what it is charged; and the
    /// input that limits of our own reserve. `exact`: the tokens of its text, if they were counted.
    pub(crate) fn rule(
        &self,
        facts: &RequestFacts,
        exact: Option<u64>,
    ) -> (ChargeProfile, Cost, u64) {
        let mut profile = self.profile(facts.dialect());
        let model = facts.model.as_deref();
        let known = || Some(self.learned.as_ref()?.of(model?));
        let Known { output, density } = known().unwrap_or_default();
        if let Some(output) = output {
            profile = profile.unset_cap(output);
        }
        let cap = facts.max_output_tokens.unwrap_or(profile.unset_cap);
        let text = match (exact, density) {
            (Some(tokens), _) => Text::Exact(tokens),
            (None, Some(density)) => Text::Density(density),
            (None, None) => Text::Characters,
        };
        let cost = if profile.settles {
            profile.estimate_of(facts, output.map_or(cap, |output| cap.min(output)), text)
        } else {
            profile.estimate_of(facts, cap, Text::Characters)
        };
        let input = match text {
            Text::Characters => cost.input,
            Text::Exact(_) => profile.estimate_of(facts, cap, text).input,
            // The worst case, whatever was learned.
            Text::Density(_) => cost.input.max(profile.estimate(facts).input),
        };
        (profile, cost, input)
    }

    /// What stands when the caller leaves early. Default: [`DropPolicy::Keep`].
    #[must_use]
    pub fn on_drop(mut self, policy: DropPolicy) -> Self {
        self.on_drop = policy;
        self
    }

    /// What stands when the caller leaves early.
    #[must_use]
    pub fn drop_policy(&self) -> DropPolicy {
        self.on_drop
    }

    /// The rule for a dialect.
    #[must_use]
    pub fn profile(&self, dialect: Dialect) -> ChargeProfile {
        if let Some((_, profile)) = self.exceptions.iter().find(|(d, _)| *d == dialect) {
            return *profile;
        }
        self.rest.unwrap_or(match dialect {
            Dialect::Anthropic | Dialect::Bedrock => ChargeProfile::sum().settles(true),
            Dialect::Gemini => ChargeProfile::prompt_only().settles(true),
            _ => ChargeProfile::sum(),
        })
    }
}

impl Default for Charging {
    fn default() -> Self {
        Self::auto()
    }
}

impl From<ChargeProfile> for Charging {
    fn from(profile: ChargeProfile) -> Self {
        Self::all(profile)
    }
}

impl fmt::Debug for Charging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Charging")
            .field("rest", &self.rest)
            .field("exceptions", &self.exceptions)
            .field("on_drop", &self.on_drop)
            .finish()
    }
}
