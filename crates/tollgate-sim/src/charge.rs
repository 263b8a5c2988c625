//! What a request costs, by the provider's rule.
use serde::Serialize;

use crate::provider::ask::{Ask, Endpoint};

/// What is taken from the limits when a request is admitted, and when it is corrected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Charging {
    /// ceil(characters / 4) + cap × n, never given back (OpenAI as recorded to 2025).
    #[default]
    Sum,
    /// The larger of the two, never given back (OpenAI as documented).
    Max,
    /// ceil(characters / 4) + 2 for each message, never given back (OpenAI as recorded since).
    PromptOnly,
    /// As [`Sum`](Self::Sum), and the real usage takes its place when the answer ends (Bedrock).
    Settle,
    /// Uncached input when it comes, real output when the answer ends (Anthropic).
    RealUsage,
}

/// Units of each kind that one request was charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// Input and output tokens together.
    pub tokens: u64,
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
}

/// Tokens really used, as billed and as the answer states them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct Billed {
    /// Input tokens, cached ones among them.
    pub input: u64,
    /// The part of them that came from a cache.
    pub cached: u64,
    /// Output tokens.
    pub output: u64,
}

impl Charging {
    /// The charge on arrival. `unset` stands for a cap that the request does not state.
    pub(crate) fn on_arrival(
        self,
        endpoint: Endpoint,
        ask: &Ask,
        unset: u64,
        real: Billed,
    ) -> Cost {
        let input = match endpoint {
            Endpoint::Embeddings => ask.text.quarters,
            _ => ask.text.chars.div_ceil(4),
        } + ask.text.ids;
        let output = match endpoint {
            Endpoint::Embeddings => 0,
            _ => ask.cap.unwrap_or(unset).saturating_mul(ask.n),
        };
        let cost = |input: u64, output: u64, tokens: u64| Cost {
            tokens,
            input,
            output,
        };
        match self {
            Self::Sum | Self::Settle => cost(input, output, input.saturating_add(output)),
            Self::Max => cost(input, output, input.max(output)),
            Self::PromptOnly => {
                let messages = match endpoint {
                    Endpoint::Embeddings => 0,
                    _ => 2 * ask.text.items,
                };
                cost(input + messages, 0, input + messages)
            }
            Self::RealUsage => {
                let uncached = real.input - real.cached;
                cost(uncached, 0, uncached)
            }
        }
    }

    /// The charge once the answer has ended; `None`: it stays as it was.
    pub(crate) fn at_end(self, real: Billed) -> Option<Cost> {
        match self {
            Self::Settle => Some(Cost {
                tokens: real.input + real.output,
                input: real.input,
                output: real.output,
            }),
            _ => None,
        }
    }

    /// What is charged on top once the answer has ended.
    pub(crate) fn added_at_end(self, real: Billed) -> Option<Cost> {
        (self == Self::RealUsage).then_some(Cost {
            tokens: real.output,
            input: 0,
            output: real.output,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &str) -> Ask {
        Ask::read(body.as_bytes()).unwrap()
    }

    #[test]
    fn each_profile_charges_by_its_rule() {
        let text = "x".repeat(41);
        let chat = ask(&format!(
            r#"{{"model":"m","n":2,"max_tokens":300,"messages":[{{"role":"user","content":"{text}"}}]}}"#
        ));
        let real = Billed {
            input: 15,
            cached: 5,
            output: 40,
        };
        let charge = |charging: Charging| {
            let cost = charging.on_arrival(Endpoint::Chat, &chat, 16, real);
            (cost.tokens, cost.input, cost.output)
        };
        assert_eq!(charge(Charging::Sum), (611, 11, 600));
        assert_eq!(charge(Charging::Max), (600, 11, 600));
        assert_eq!(charge(Charging::PromptOnly), (13, 13, 0));
        assert_eq!(charge(Charging::Settle), (611, 11, 600));
        assert_eq!(charge(Charging::RealUsage), (10, 10, 0));

        let settled = Charging::Settle.at_end(real).unwrap();
        assert_eq!(
            (settled.tokens, settled.input, settled.output),
            (55, 15, 40)
        );
        assert_eq!(Charging::RealUsage.added_at_end(real).unwrap().tokens, 40);
        assert_eq!(Charging::Sum.at_end(real), None);
    }

    #[test]
    fn an_unset_cap_counts_as_sixteen_and_an_embedding_by_its_inputs() {
        let chat = ask(r#"{"model":"m","messages":[{"role":"user","content":"12345"}]}"#);
        let cost = Charging::Sum.on_arrival(Endpoint::Chat, &chat, 16, Billed::default());
        assert_eq!(cost.tokens, 18);
        let embed = ask(r#"{"model":"m","input":["12345","1"]}"#);
        let cost = Charging::Sum.on_arrival(Endpoint::Embeddings, &embed, 16, Billed::default());
        assert_eq!(cost.tokens, 3);
    }
}
