//! What can be told from the words of an error only.
use std::time::Duration;

use super::Document;
use crate::wire::{limits::Dimension, time};

/// "Please try again in 2.87s", "retry after 60 seconds": the wait that a lower-case text states.
pub(super) fn wait(message: &str) -> Option<Duration> {
    const MARKS: [&str; 6] = [
        "try again in ",
        "retry in ",
        "retry after ",
        "try again after ",
        "available again in ",
        "wait ",
    ];
    MARKS
        .iter()
        .find_map(|mark| duration(message.split_once(mark)?.1))
}

/// A duration at the head of a text: `6m0s`, `2.87s.`, `60 seconds`, `about 1 minute`.
fn duration(text: &str) -> Option<Duration> {
    let text = text
        .trim_start_matches("about ")
        .trim_start_matches("another ");
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == 'µ'))
        .unwrap_or(text.len());
    let first = text[..end].trim_end_matches('.');
    if let Some(wait) = time::go_duration(first) {
        return Some(wait);
    }
    let wait = time::seconds(first)?;
    let rest = text[end..].trim_start();
    let unit = rest.split(|c: char| !c.is_ascii_alphabetic()).next()?;
    let times = match unit {
        "ms" | "millisecond" | "milliseconds" => return Some(wait / 1_000),
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hour" | "hours" => 3_600,
        "d" | "day" | "days" => 86_400,
        _ => return None,
    };
    wait.checked_mul(times)
}

/// Which limit refused, by the error's type, inner codes and words.
pub(super) fn dimension(error: &Document<'_>) -> Option<Dimension> {
    let kind = error.kind.as_deref().unwrap_or_default();
    match kind {
        "requests" => return Some(Dimension::Requests),
        "tokens" => return Some(Dimension::Tokens),
        "input-images" => return Some(Dimension::InputImages),
        _ => {}
    }
    let text = error.message.as_str();
    const WORDS: [(&str, Dimension); 12] = [
        ("(rpm)", Dimension::Requests),
        ("(rpd)", Dimension::Requests),
        ("(tpm)", Dimension::Tokens),
        ("(tpd)", Dimension::Tokens),
        ("(itpm)", Dimension::InputTokens),
        ("(otpm)", Dimension::OutputTokens),
        ("input tokens per minute", Dimension::InputTokens),
        ("output tokens per minute", Dimension::OutputTokens),
        ("number of requests", Dimension::Requests),
        ("requests rate limit", Dimension::Requests),
        ("too many requests", Dimension::Requests),
        ("too many tokens", Dimension::Tokens),
    ];
    if let Some((_, found)) = WORDS.iter().find(|(word, _)| text.contains(word)) {
        return Some(found.clone());
    }
    let code = match &error.code {
        Some(super::Code::Word(word)) => Some(&**word),
        _ => None,
    };
    error
        .inner
        .iter()
        .map(|w| &**w)
        .chain(code)
        .find_map(|word| {
            let word = word.to_ascii_lowercase();
            if word.contains("inputtoken") {
                Some(Dimension::InputTokens)
            } else if word.contains("request_quota") || word.contains("requestsper") {
                Some(Dimension::Requests)
            } else if word.contains("token_quota") || word.contains("tokensper") {
                Some(Dimension::Tokens)
            } else {
                None
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_in_words() {
        for (text, ms) in [
            (
                "limit 3, used 3, requested 1. please try again in 20s. visit",
                Some(20_000),
            ),
            ("please try again in 2.87s. need more", Some(2_870)),
            ("please try again in 6m0s.", Some(360_000)),
            ("please retry in 49.025140071s.", Some(49_025)),
            ("please retry after 60 seconds.", Some(60_000)),
            ("please wait 1 minute", Some(60_000)),
            ("try again in 150ms", Some(150)),
            ("try again in a while", None),
            ("please try again later", None),
            ("wait 5", None),
            ("retry after ", None),
            ("retry after 1e400 seconds", None),
        ] {
            assert_eq!(wait(text).map(|d| d.as_millis()), ms, "{text}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_words_never_panic(text in "(try again in |retry after |wait )?\\PC{0,30}") {
            let _ = wait(&text);
        }
    }
}
