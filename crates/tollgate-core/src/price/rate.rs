//! What one model charges for its tokens.
use super::amount::{Cost, InvalidPrice, Pico, scaled};
use crate::wire::usage::{Count, Usage};

/// What one model charges for a token, at one tier.
///
/// Unset kinds are charged as what they are part of: cached input and cache writes as input,
/// reasoning as output. Only audio is dearer than text everywhere, so that a cost with audio in it
/// is a lower bound where audio has no price of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Price {
    /// An input token.
    pub input: Pico,
    /// An input token read from a cache.
    pub cached_input: Option<Pico>,
    /// An input token written to a cache.
    pub cache_write: Option<Pico>,
    /// An input token written to a cache that keeps it for an hour.
    pub cache_write_1h: Option<Pico>,
    /// An input token of audio.
    pub audio_input: Option<Pico>,
    /// An output token.
    pub output: Pico,
    /// An output token of reasoning.
    pub reasoning: Option<Pico>,
    /// An output token of audio.
    pub audio_output: Option<Pico>,
    /// Every call costs something beside its tokens (a search, a session): all costs are lower bounds.
    pub fees: bool,
}

impl Price {
    /// Dollars per million tokens, in decimal.
    ///
    /// # Errors
    ///
    /// If either is not a decimal number with at most six digits after the point.
    pub fn per_million(input: &str, output: &str) -> Result<Self, InvalidPrice> {
        let (input, output) = (million(input)?, million(output)?);
        Ok(Self {
            input,
            output,
            ..Self::default()
        })
    }

    /// Sets the price of cached input, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn cached(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.cached_input = Some(million(price)?);
        Ok(self)
    }

    /// Sets the price of cache writes, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn cache_write(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.cache_write = Some(million(price)?);
        Ok(self)
    }

    /// Sets the price of cache writes that are kept for an hour, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn cache_write_1h(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.cache_write_1h = Some(million(price)?);
        Ok(self)
    }

    /// Sets the prices of audio in and out, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn audio(mut self, input: &str, output: &str) -> Result<Self, InvalidPrice> {
        self.audio_input = Some(million(input)?);
        self.audio_output = Some(million(output)?);
        Ok(self)
    }

    /// Sets the price of reasoning where it is not that of output, in dollars per million tokens.
    ///
    /// # Errors
    ///
    /// As for [`per_million`](Self::per_million).
    pub fn reasoning(mut self, price: &str) -> Result<Self, InvalidPrice> {
        self.reasoning = Some(million(price)?);
        Ok(self)
    }

    /// What an answer with this usage costs.
    ///
    /// A part that is larger than its whole, as some providers report, is cut at the whole. An
    /// output that is missing counts as none where the input is known (embeddings).
    #[must_use]
    pub fn cost(&self, usage: &Usage) -> Cost {
        let some = |count: Count| count.get().unwrap_or(0);
        let (input, output) = match (usage.input.get(), usage.billed_output().get()) {
            (None, None) => return Cost::Unknown,
            (input, output) => (input, output.unwrap_or(0)),
        };
        let known = input.is_some();
        let input = input.unwrap_or(0);
        let cached = some(usage.cached_input).min(input);
        let written = some(usage.cache_write).min(input - cached);
        let hour = some(usage.cache_write_1h).min(written);
        let plain = input - cached - written;
        // Nobody says how much of the audio was cached. Taking all that may be as cached gives the
        // least that it can have cost.
        let heard = some(usage.audio_input).min(input);
        let surely_heard = heard.saturating_sub(cached + written).min(plain);
        let thought = some(usage.reasoning).min(output);
        let spoken = some(usage.audio_output).min(output - thought);

        let cached_price = self.cached_input.unwrap_or(self.input);
        let write_price = self.cache_write.unwrap_or(self.input);
        let hour_price = self.cache_write_1h.unwrap_or(write_price);
        let sum = self.input.times(plain - surely_heard)
            + self.audio_input.unwrap_or(self.input).times(surely_heard)
            + cached_price.times(cached)
            + write_price.times(written - hour)
            + hour_price.times(hour)
            + self.output.times(output - thought - spoken)
            + self.reasoning.unwrap_or(self.output).times(thought)
            + self.audio_output.unwrap_or(self.output).times(spoken);

        let bound = |count: Count| matches!(count, Count::AtLeast(_));
        let in_audio = heard > surely_heard || (heard > 0 && self.audio_input.is_none());
        let out_audio = spoken > 0 && self.audio_output.is_none();
        let least = !known || bound(usage.input) || bound(usage.output);
        if least || in_audio || out_audio || self.fees {
            Cost::AtLeast(sum)
        } else {
            Cost::Exact(sum)
        }
    }

    /// For each kind of token the dearer of two prices.
    #[must_use]
    pub fn dearer(&self, other: &Self) -> Self {
        // A kind that has no price of its own has that of the kind it is part of.
        let part = |mine: Option<Pico>, my: Pico, theirs: Option<Pico>, their: Pico| {
            (mine.is_some() || theirs.is_some())
                .then(|| mine.unwrap_or(my).max(theirs.unwrap_or(their)))
        };
        let (a, b) = (self, other);
        let write = |price: &Self| price.cache_write.unwrap_or(price.input);
        Self {
            input: a.input.max(b.input),
            cached_input: part(a.cached_input, a.input, b.cached_input, b.input),
            cache_write: part(a.cache_write, a.input, b.cache_write, b.input),
            cache_write_1h: part(a.cache_write_1h, write(a), b.cache_write_1h, write(b)),
            audio_input: part(a.audio_input, a.input, b.audio_input, b.input),
            output: a.output.max(b.output),
            reasoning: part(a.reasoning, a.output, b.reasoning, b.output),
            audio_output: part(a.audio_output, a.output, b.audio_output, b.output),
            fees: a.fees || b.fees,
        }
    }
}

pub(super) fn million(price: &str) -> Result<Pico, InvalidPrice> {
    // Dollars per million, times 10^12 pico, over 10^6 tokens.
    scaled(price, 6).map(Pico::new)
}

#[cfg(test)]
mod tests;
