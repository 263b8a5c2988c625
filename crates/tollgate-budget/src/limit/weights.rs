//! How much of a limit one token uses.
use super::Unit;
use crate::engine::rate::narrow;

/// The finest part of a unit that weights may need.
const MOST_PARTS: u64 = 1_000_000;

/// How much of a limit one token uses, as exact fractions. Default: one unit, whatever token it is.
///
/// ```
/// use tollgate_budget::{Limit, Weights};
///
/// // A family of models that counts one unit for every 200 tokens.
/// let ada = Limit::tokens(250_000).per_minute().weights(Weights::one_unit_per(200));
/// // A provider that counts an output token five times, and reads from its cache not at all.
/// let bedrock = Limit::tokens(400_000).per_minute().weights(Weights::even().output(5, 1).cached_input(0, 1));
/// # let _ = (ada, bedrock);
/// ```
///
/// Nothing is rounded: a limit of one unit for 200 tokens is kept in two-hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weights {
    input: (u32, u32),
    cached: Option<(u32, u32)>,
    output: (u32, u32),
}

impl Weights {
    /// One unit for each token.
    #[must_use]
    pub fn even() -> Self {
        Self::one_unit_per(1)
    }

    /// One unit for so many tokens.
    #[must_use]
    pub fn one_unit_per(tokens: u32) -> Self {
        Self {
            input: (1, tokens),
            cached: None,
            output: (1, tokens),
        }
    }

    /// An input token uses `units / tokens`.
    #[must_use]
    pub fn input(mut self, units: u32, tokens: u32) -> Self {
        self.input = (units, tokens);
        self
    }

    /// An input token that was read from a cache uses `units / tokens`; 0 where such reads are not counted. Default:
    /// what an input token uses.
    ///
    /// How many there were is known when the answer ends: until then they are reserved in full.
    #[must_use]
    pub fn cached_input(mut self, units: u32, tokens: u32) -> Self {
        self.cached = Some((units, tokens));
        self
    }

    /// An output token uses `units / tokens`.
    #[must_use]
    pub fn output(mut self, units: u32, tokens: u32) -> Self {
        self.output = (units, tokens);
        self
    }

    /// Parts into which a unit is cut so that every weight is a whole number of them.
    pub(crate) fn parts(&self) -> u64 {
        [self.input, self.cached.unwrap_or((0, 1)), self.output]
            .iter()
            .fold(1, |parts, &(_, tokens)| lcm(parts, tokens.max(1).into()))
    }

    pub(crate) fn check(&self, unit: Unit) -> Result<(), &'static str> {
        if !unit.is_tokens() {
            return Err("weights belong to a limit of tokens");
        }
        let all = [self.input, self.cached.unwrap_or((0, 1)), self.output];
        if all.iter().any(|&(_, tokens)| tokens == 0) {
            return Err("a weight must be so many units for one token or more");
        }
        if self.of(unit, 1, 0, 1) == 0 {
            return Err("with these weights the limit counts nothing");
        }
        if self.parts() > MOST_PARTS {
            return Err("weights must be multiples of one millionth of a unit or more");
        }
        Ok(())
    }

    /// What so many tokens use of a limit of `unit`, in parts.
    pub(crate) fn of(&self, unit: Unit, input: u64, cached: u64, output: u64) -> u64 {
        let parts = self.parts();
        let part = |(units, tokens): (u32, u32), count: u64| {
            let weight = u128::from(units) * u128::from(parts / u64::from(tokens.max(1)));
            weight.saturating_mul(count.into())
        };
        let cached = cached.min(input);
        let read = part(self.input, input - cached)
            .saturating_add(part(self.cached.unwrap_or(self.input), cached));
        let written = part(self.output, output);
        narrow(match unit {
            Unit::InputTokens => read,
            Unit::OutputTokens => written,
            _ => read.saturating_add(written),
        })
    }

    /// What is left of an estimate when so much of the input turns out to have been read from a cache.
    pub(crate) fn less_cached(&self, unit: Unit, estimate: u64, cached: u64) -> u64 {
        if self.cached.is_none() || unit == Unit::OutputTokens {
            return estimate;
        }
        let full = self.of(unit, cached, 0, 0);
        let less = self.of(unit, cached, cached, 0);
        estimate.saturating_sub(full.saturating_sub(less))
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self::even()
    }
}

fn lcm(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    // L03
    #[test]
    fn a_unit_for_so_many_tokens_is_exact() {
        for tokens in [25, 100, 200] {
            let weights = Weights::one_unit_per(tokens);
            assert_eq!(weights.parts(), u64::from(tokens));
            let used = weights.of(Unit::Tokens, 7, 0, u64::from(tokens) - 7);
            assert_eq!(used, weights.parts(), "{tokens} tokens are one unit");
        }
    }

    #[test]
    fn each_kind_of_token_has_a_weight_of_its_own() {
        let weights = Weights::even().input(1, 2).output(4, 3).cached_input(0, 1);
        assert_eq!(weights.parts(), 6);
        assert_eq!(weights.of(Unit::Tokens, 10, 4, 3), 6 * 3 + 6 * 4);
        assert_eq!(weights.of(Unit::InputTokens, 10, 4, 3), 6 * 3);
        assert_eq!(weights.of(Unit::OutputTokens, 10, 4, 3), 6 * 4);
        assert_eq!(weights.less_cached(Unit::Tokens, 60, 4), 60 - 6 * 2);
        let most = weights.of(Unit::Tokens, u64::MAX, 0, u64::MAX);
        assert_eq!(most, u64::MAX, "saturates");
    }
}
