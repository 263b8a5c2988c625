//! A limit as it was told or learned, and what a request takes of it.
use std::{collections::BTreeSet, hash::Hash, sync::Arc, time::Duration};

use super::{
    rate::{Nanos, Rate, narrow},
    skew::Skew,
};
use crate::{
    charging::Cost,
    limit::{Enforcement, Exhausted, Limit, Plan, Scope, Unit, Unpriced, Weights},
    scope::Models,
    store::Settlement,
    used::Used,
};

/// A limit. Its units are cut into so many parts that weights are whole numbers of them.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: Arc<str>,
    pub(crate) unit: Unit,
    pub(crate) rate: Rate,
    /// The calendar, of a cap.
    pub(crate) calendar: Option<Arc<Plan>>,
    /// Parts of a unit.
    pub(crate) parts: u64,
    weights: Option<Weights>,
    unpriced: Unpriced,
    pub(crate) enforcement: Enforcement,
    pub(crate) scope: Scope,
    models: Option<Models>,
    /// Which of the keys that functions find is its own.
    pub(crate) key: Option<usize>,
    pub(crate) exhausted: Exhausted,
    pub(crate) learned: bool,
    /// It is ours, though it looks like one of the provider's.
    pub(crate) own: bool,
}

/// Why a limit cannot say what a request takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// It has no price.
    Price,
    /// It was not read.
    Unread,
}

impl Rule {
    pub(crate) fn told(limit: &Limit) -> Self {
        let parts = limit.weights.parts();
        Self {
            name: limit.name.clone(),
            unit: limit.unit,
            rate: Rate {
                amount: limit.amount.saturating_mul(parts),
                period: narrow(limit.period.as_nanos()),
            },
            // Checked when the budget was built.
            calendar: limit
                .calendar
                .as_ref()
                .and_then(|c| c.plan().ok())
                .map(Arc::new),
            parts,
            weights: Some(limit.weights).filter(|weights| *weights != Weights::even()),
            unpriced: limit.unpriced,
            enforcement: match limit.enforcement {
                Enforcement::Bucket { burst } => Enforcement::Bucket {
                    burst: burst.map(|units| units.saturating_mul(parts)),
                },
                other => other,
            },
            scope: limit.scope,
            models: limit.models.clone(),
            key: None,
            exhausted: limit.exhausted,
            learned: false,
            own: false,
        }
    }

    /// One that was read from headers.
    pub(crate) fn learned(unit: Unit, rate: Rate) -> Self {
        let period = Duration::from_nanos(rate.period);
        Self {
            rate,
            learned: true,
            scope: Scope::Model,
            ..Self::told(&Limit::of(unit, rate.amount).per(period))
        }
    }

    /// Whether what the provider says of its limits can concern this one.
    pub(crate) fn is_the_providers(&self) -> bool {
        let scope = matches!(self.scope, Scope::Global | Scope::Model | Scope::ApiKey);
        scope && !self.own && self.unit != Unit::Money && self.calendar.is_none()
    }

    /// Whose requests it counts, and in what parts, in words that are the same in all processes.
    pub(crate) fn whose(&self) -> Box<str> {
        let mut whose = format!("{:?}, {} parts", self.scope, self.parts);
        let models = self.models.iter().flat_map(|models| &models.0);
        // In whatever order they were told.
        for model in models.collect::<BTreeSet<_>>() {
            whose.push('\n');
            whose.push_str(model);
        }
        whose.into()
    }

    /// All that a store that processes share tells limits by, beside keys and periods that come and go. Two caps may end
    /// at the same time.
    pub(crate) fn kept_as(&self) -> impl Hash + Eq + use<> {
        let kept = match (&self.calendar, self.enforcement) {
            (Some(_), _) => ("cap", 0),
            (None, Enforcement::Bucket { .. }) => ("bucket", self.rate.period / 1000),
            (None, _) => ("window", self.rate.period / 1000),
        };
        (Arc::clone(&self.name), self.whose(), self.unit, kept)
    }

    /// Whether it counts requests for this model.
    pub(crate) fn concerns(&self, model: Option<&str>) -> bool {
        let family = |models: &Models| models.contain(model);
        self.models.as_ref().is_none_or(family)
    }

    /// Whether what waits for it holds up all others too.
    pub(crate) fn is_shared(&self) -> bool {
        self.scope == Scope::Global && self.models.is_none()
    }

    /// Whether the provider may refuse one model's requests and serve another's.
    pub(crate) fn is_of_models(&self) -> bool {
        self.is_the_providers() && (self.scope == Scope::Model || self.models.is_some())
    }

    /// Whether nothing may ever be sent beyond it, as far as can be known.
    pub(crate) fn is_hard(&self) -> bool {
        self.unit == Unit::Money || self.calendar.is_some()
    }

    /// How long a request may be on its way to where it is counted: our own limits are counted here.
    pub(crate) fn way(&self, skew: &Skew, rate: Rate) -> Nanos {
        if self.is_the_providers() {
            skew.bound(rate.period)
        } else {
            0
        }
    }

    /// What a request takes, in parts. A limit may let what it does not know pass as nothing.
    pub(crate) fn units(&self, cost: &Cost) -> Result<u64, Unknown> {
        let used = &cost.used;
        if used.unread && self.is_hard() && (self.unit.is_tokens() || self.unit == Unit::Money) {
            return Err(Unknown::Unread);
        }
        Ok(match self.unit {
            Unit::Requests => cost.requests,
            Unit::Images => cost.images,
            Unit::Money => match (used.money, self.unpriced) {
                (Some(money), _) if used.assumed => {
                    self.assumed(money, used.input_money.unwrap_or(0))
                }
                (Some(money), _) => money,
                (None, Unpriced::Pass) => 0,
                (None, Unpriced::Refuse) => return Err(Unknown::Price),
            },
            _ if !self.is_the_providers() => {
                let full = self.used(used);
                if !used.assumed {
                    return Ok(full);
                }
                self.assumed(full, self.used(&Used { output: 0, ..*used }))
            }
            _ => match self.weights {
                // Nothing was read from a cache yet, or the provider's rule has left it out already.
                Some(weights) => weights.of(self.unit, cost.input, 0, cost.output),
                None => plain(self.unit, cost.tokens, cost.input, cost.output),
            },
        })
    }

    /// What is reserved of `full` where all but `stated` is assumed: no more of that than the limit holds.
    fn assumed(&self, full: u64, stated: u64) -> u64 {
        let holds = match self.enforcement {
            Enforcement::Bucket { burst: Some(burst) } => burst.min(self.rate.amount),
            _ => self.rate.amount,
        };
        full.min(stated.max(holds))
    }

    /// What a request took in the end that had taken so much at first.
    pub(crate) fn settled(&self, taken: u64, how: Settlement) -> u64 {
        match how {
            Settlement::Keep => taken,
            Settlement::AllBack => 0,
            // Providers count failed requests.
            Settlement::TokensBack if self.unit == Unit::Requests => taken,
            Settlement::TokensBack => 0,
            Settlement::Actual(cost) => match self.unit {
                // No answer tells how many it was.
                Unit::Images => taken,
                Unit::Money => cost.used.money.unwrap_or(taken),
                _ => self.units(&cost).unwrap_or(taken),
            },
            Settlement::Used(used) => match self.unit {
                Unit::Requests | Unit::Images => taken,
                Unit::Money => used.money.unwrap_or(taken),
                _ if !self.is_the_providers() => self.used(&used),
                unit => match self.weights {
                    Some(weights) => weights.less_cached(unit, taken, used.cached_input),
                    None => taken,
                },
            },
        }
    }

    fn used(&self, used: &Used) -> u64 {
        let (input, output) = (used.input, used.output);
        match self.weights {
            Some(weights) => weights.of(self.unit, input, used.cached_input, output),
            None => plain(self.unit, input.saturating_add(output), input, output),
        }
    }

    /// An enforcement in parts as one in units.
    pub(crate) fn shown(&self, enforcement: Enforcement) -> Enforcement {
        match enforcement {
            Enforcement::Bucket { burst } => Enforcement::Bucket {
                burst: burst.map(|parts| self.whole(parts.into())),
            },
            other => other,
        }
    }

    /// Parts as units, rounded up.
    pub(crate) fn whole(&self, parts: u128) -> u64 {
        narrow(parts.div_ceil(u128::from(self.parts)))
    }
}

fn plain(unit: Unit, tokens: u64, input: u64, output: u64) -> u64 {
    match unit {
        Unit::InputTokens => input,
        Unit::OutputTokens => output,
        _ => tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_the_same_one_in_whatever_order_its_models_are_told() {
        let of = |models: &[&str]| {
            let limit = Limit::tokens(1).per_minute().models(models.iter().copied());
            Rule::told(&limit).whose()
        };
        assert_eq!(of(&["a", "b*", "c"]), of(&["c", "a", "b*", "a"]));
        assert_ne!(of(&["a", "b"]), of(&["a", "b*"]));
    }
}
