//! Exact counts of a prompt's tokens, for the models whose tokenizers are public.
use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll},
};

use tokio::{runtime::Handle, task::JoinHandle};
use tollgate_core::wire::prompt::{Endpoint, Facts, RequestFacts};

use crate::count::Count;

/// Bytes of text that are counted where the request is; more than that are counted on a thread for blocking work.
const INLINE: u64 = 16 << 10;

/// Tokens of a chat message beside its text: three that frame it, and its role.
///
/// `num_tokens_from_messages` in OpenAI's cookbook ("How to count tokens with tiktoken"), which counts the role as text.
const PER_MESSAGE: u64 = 4;
/// Tokens that begin the answer and are counted as input; same source.
const PER_REPLY: u64 = 3;

/// The tokenizer that prompts are counted with ([`Charging::exact`](crate::Charging::exact)).
///
/// Each has a table that takes some 40 ms and 35 MB to load, when the first prompt needs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tokenizer {
    /// The one of the model that is asked for, by its name, if it is one of OpenAI's; no other model's prompts are counted.
    ///
    /// GPT-4, GPT-3.5 and the embeddings have `cl100k_base`; GPT-4o, 4.1, 4.5, 5 and gpt-oss, o1, o3 and o4 have
    /// `o200k_base` (tiktoken's `model.py`). A vendor in front of the name (`openai/gpt-4o`) and `ft:` are passed over.
    #[default]
    ByModel,
    /// `cl100k_base`, whatever the model is called: for deployments with names of their own.
    Cl100k,
    /// `o200k_base`, whatever the model is called.
    O200k,
}

/// A table, and whether it is there already.
struct Table {
    get: fn() -> &'static bpe_openai::Tokenizer,
    loaded: AtomicBool,
}

static CL100K: Table = Table {
    get: bpe_openai::cl100k_base,
    loaded: AtomicBool::new(false),
};
static O200K: Table = Table {
    get: bpe_openai::o200k_base,
    loaded: AtomicBool::new(false),
};

impl Tokenizer {
    fn table(self, model: Option<&str>) -> Option<&'static Table> {
        match self {
            Self::ByModel => by_name(model?),
            Self::Cl100k => Some(&CL100K),
            Self::O200k => Some(&O200K),
        }
    }

    /// Counts what is short; sends what is long, or needs a table that is not there yet, to another thread.
    pub(crate) fn begin(self, facts: &Facts) -> Count {
        let Some(table) = self.table(facts.model.as_deref()) else {
            return Count::Known(None);
        };
        // A character takes at most four bytes, and the document holds all of them.
        let long = facts.prompt_chars.saturating_mul(4).min(facts.body_len) > INLINE;
        if !long && table.loaded.load(Ordering::Relaxed) {
            return Count::Known(tokens(table, facts));
        }
        match Handle::try_current() {
            Ok(runtime) => {
                let facts = facts.clone();
                Count::Away(Away(runtime.spawn_blocking(move || tokens(table, &facts))))
            }
            // No thread to be had from tokio: the estimate by characters will do for what is long.
            Err(_) if long => Count::Known(None),
            Err(_) => Count::Known(tokens(table, facts)),
        }
    }
}

/// The table of a model of OpenAI's.
fn by_name(model: &str) -> Option<&'static Table> {
    let name = model.rsplit('/').next().unwrap_or(model);
    let name = name.strip_prefix("ft:").unwrap_or(name);
    let is_one_of = |families: &[&str]| {
        families.iter().any(|family| {
            name.strip_prefix(family)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        })
    };
    let o200k = [
        "gpt-4o",
        "chatgpt-4o",
        "gpt-4.1",
        "gpt-4.5",
        "gpt-5",
        "gpt-oss",
        "o1",
        "o3",
        "o4",
    ];
    let cl100k = [
        "gpt-4",
        "gpt-3.5",
        "gpt-35",
        "text-embedding-3",
        "text-embedding-ada-002",
        "davinci-002",
        "babbage-002",
    ];
    if is_one_of(&o200k) {
        Some(&O200K)
    } else if is_one_of(&cl100k) {
        Some(&CL100K)
    } else {
        None
    }
}

/// Tokens of the text, and of what is put around it; `None` if not all of the text can be seen.
fn tokens(table: &Table, facts: &RequestFacts) -> Option<u64> {
    let tokenizer = (table.get)();
    table.loaded.store(true, Ordering::Relaxed);
    let mut sum = 0u64;
    let all = facts.each_text(|text| {
        let tokens = tokenizer.count(text);
        sum = sum.saturating_add(tokens as u64);
    });
    let around = match facts.endpoint {
        Endpoint::ChatCompletions | Endpoint::Responses => {
            u64::from(facts.messages) * PER_MESSAGE + PER_REPLY
        }
        _ => 0,
    };
    all.then(|| sum.saturating_add(around))
}

/// A count on another thread. Dropped, it is not begun; what has begun ends unheard.
pub(crate) struct Away(JoinHandle<Option<u64>>);

impl Away {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        // A task that failed leaves the estimate by characters.
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|counted| counted.ok().flatten())
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_by_the_models_name() {
        let named = |model| by_name(model).map(|table| std::ptr::eq(table, &O200K));
        for model in [
            "gpt-4o",
            "gpt-4o-mini-2024-07-18",
            "openai/gpt-5.1",
            "o3-mini",
            "ft:gpt-4o:acme::1",
            "gpt-oss-20b",
        ] {
            assert_eq!(named(model), Some(true), "{model}");
        }
        for model in [
            "gpt-4",
            "gpt-4-turbo",
            "gpt-35-turbo",
            "gpt-3.5-turbo",
            "text-embedding-3-small",
        ] {
            assert_eq!(named(model), Some(false), "{model}");
        }
        for model in [
            "claude-sonnet-4",
            "o30",
            "gpt-400",
            "gpt-test",
            "mistral-small",
            "",
        ] {
            assert_eq!(named(model), None, "{model}");
        }
    }
}
