//! What answers have shown of a model: how long they become, and how many tokens its prompts are.
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tollgate_core::wire::{prompt::RequestFacts, usage::Usage};

/// Answers of one model that are remembered.
const LAST: usize = 256;
/// Answers that are enough to go by.
const ENOUGH: usize = 20;
/// Models that are remembered.
const MODELS: usize = 1_000;
/// Prompts of fewer characters say more of what is put around them than of their text.
const LEAST: u64 = 64;

/// Learned of each model; shared by all clones of a budget.
#[derive(Default)]
pub(crate) struct Learned(Mutex<HashMap<Arc<str>, Model>>);

#[derive(Default)]
struct Model {
    output: Window,
    density: Window,
}

/// What is known of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Output tokens that 95 of 100 answers stay at or below.
    pub(crate) output: Option<u64>,
    /// Tokens of 1,024 characters of prompt, likewise.
    pub(crate) density: Option<u64>,
}

#[derive(Default)]
struct Window {
    last: Vec<u64>,
    at: usize,
    high: Option<u64>,
}

impl Window {
    fn add(&mut self, seen: u64) {
        if self.last.len() < LAST {
            self.last.push(seen);
        } else {
            self.last[self.at] = seen;
            self.at = (self.at + 1) % LAST;
        }
        if self.last.len() >= ENOUGH {
            let mut sorted = self.last.clone();
            let rank = (sorted.len() * 95).div_ceil(100) - 1;
            self.high = Some(*sorted.select_nth_unstable(rank).1);
        }
    }
}

impl Learned {
    /// A whole answer to this request stated this usage.
    pub(crate) fn hear(&self, facts: &RequestFacts, usage: &Usage) {
        let Some(model) = &facts.model else {
            return;
        };
        let answers = facts.generated();
        let output = usage.output.exact().map(|output| output / answers);
        // Of text alone: what an image or a tool adds is not in proportion to it.
        let text = facts.prompt_chars >= LEAST
            && facts.images == 0
            && facts.prompt_token_ids == 0
            && facts.tool_chars == 0;
        let input = usage.input.exact().filter(|_| text);
        let density = input.map(|input| input.saturating_mul(1024).div_ceil(facts.prompt_chars));
        self.add(model, output, density);
    }

    fn add(&self, model: &Arc<str>, output: Option<u64>, density: Option<u64>) {
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if models.len() >= MODELS && !models.contains_key(model) {
            // To forget costs a few reservations of the cap each.
            models.clear();
        }
        let model = models.entry(Arc::clone(model)).or_default();
        if let Some(output) = output {
            model.output.add(output);
        }
        if let Some(density) = density {
            model.density.add(density);
        }
    }

    pub(crate) fn of(&self, model: &str) -> Known {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        models
            .get(model)
            .map_or_else(Known::default, |model| Known {
                output: model.output.high,
                density: model.density.high,
            })
    }
}

impl fmt::Debug for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Learned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_bounded() {
        let learned = Learned::default();
        for n in 0..3 * MODELS {
            learned.add(&n.to_string().into(), Some(1), None);
        }
        assert!(learned.0.lock().unwrap().len() <= MODELS);
    }

    #[test]
    fn the_high_quantile_is_of_the_last_answers_once_there_are_enough() {
        let learned = Learned::default();
        let model: Arc<str> = "m".into();
        for n in 1..20 {
            learned.add(&model, Some(n), None);
            assert_eq!(learned.of("m"), Known::default());
        }
        learned.add(&model, Some(1000), None);
        assert_eq!(
            learned.of("m").output,
            Some(19),
            "one in twenty may be longer"
        );
        for _ in 0..LAST {
            learned.add(&model, Some(7), Some(300));
        }
        let known = learned.of("m");
        assert_eq!(
            (known.output, known.density),
            (Some(7), Some(300)),
            "the rest is forgotten"
        );
        assert_eq!(learned.of("other"), Known::default());
    }
}
