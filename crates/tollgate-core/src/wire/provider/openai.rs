//! OpenAI's shapes, which most others copy: choices, responses, items of output.
use super::{Said, keep};
use crate::wire::{
    json::{Cursor, Kind, Result, Word},
    prompt::Endpoint,
    usage::tally::{Tally, set},
};

/// Chat and legacy completions.
pub(super) fn choices<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>, tally: &mut Tally) -> Result {
    let mut any = false;
    let is_array = c.array(|c| {
        any = true;
        c.object(|c, key| match key {
            b"delta" => message(said, c),
            // Some streams repeat the whole message beside every piece.
            b"message" => {
                let chars = said.chars;
                message(said, c)?;
                if said.event {
                    said.chars = chars;
                }
                Ok(())
            }
            b"text" => said.generated(c),
            b"finish_reason" | b"stop_reason" if said.finish.is_none() => said.reason(c),
            b"usage" => said.counts(c, tally).map(drop),
            _ => c.skip().map(drop),
        })
        .map(drop)
    })?;
    said.no_choices = is_array && !any;
    Ok(())
}

/// A message or a piece of one.
fn message<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    c.object(|c, key| match key {
        b"role" | b"id" | b"name" => c.skip().map(drop),
        // Twice the same text, in two shapes.
        b"reasoning_details" => c.skip().map(drop),
        b"content" | b"reasoning" | b"reasoning_content" | b"refusal" => parts(said, c),
        b"tool_calls" | b"function_call" | b"audio" => parts(said, c),
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// Text in any nesting: a string, or parts with text in them. Names, pictures and sounds are content too.
pub(super) fn parts<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    match c.kind()? {
        Kind::String => said.generated(c),
        Kind::Null | Kind::Bool | Kind::Number => c.skip().map(drop),
        Kind::Object | Kind::Array => {
            let mut key: &[u8] = b"text";
            let mut any = false;
            c.strings(|word, _| match word {
                Word::Key(name) => key = name.raw(),
                Word::Value(text) => match key {
                    b"type" => said.hosted |= super::hosted(text.raw()),
                    b"role" | b"id" => {}
                    b"text" | b"thinking" | b"arguments" | b"partial_json" | b"transcript"
                    | b"refusal" | b"input" | b"output" | b"content" | b"code" => {
                        said.note(text);
                    }
                    _ => any |= !text.is_empty(),
                },
            })?;
            said.content |= any;
            Ok(())
        }
    }
}

/// The whole response or interaction inside an event; Cohere v1 has one of that name too.
pub(super) fn response<'a>(
    said: &mut Said<'a>,
    endpoint: Endpoint,
    c: &mut Cursor<'a>,
    tally: &mut Tally,
) -> Result {
    c.object(|c, key| match key {
        b"model" => keep(&mut said.model, c),
        b"id" => keep(&mut said.id, c),
        b"service_tier" => keep(&mut said.tier, c),
        b"status" => {
            said.has_state = endpoint != Endpoint::CohereChat;
            keep(&mut said.status, c)
        }
        b"incomplete_details" => incomplete(said, c),
        b"usage" => said.counts(c, tally).map(drop),
        b"error" => {
            said.error |= c.kind()? == Kind::Object;
            c.skip().map(drop)
        }
        b"meta" => super::cohere::meta(c, tally),
        b"finish_reason" => said.reason(c),
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// Why a response is incomplete.
pub(super) fn incomplete<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    c.object(|c, key| match key {
        b"reason" => keep(&mut said.incomplete, c),
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// Output items of a response; Bedrock Converse has a message there.
pub(super) fn output<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    parts(said, c)
}

/// Groq's own field on the last chunk.
pub(super) fn groq<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>, tally: &mut Tally) -> Result {
    c.object(|c, key| match key {
        b"usage" => said.counts(c, tally).map(drop),
        b"error" => {
            said.error |= c.kind()? != Kind::Null;
            c.skip().map(drop)
        }
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// llama.cpp counts here even when nobody asked for usage; what was cached is beside the prompt.
pub(super) fn timings(c: &mut Cursor<'_>, tally: &mut Tally) -> Result {
    let (mut prompt, mut cached) = (None, None);
    c.object(|c, key| match key {
        b"prompt_n" => set(&mut prompt, c),
        b"cache_n" => set(&mut cached, c),
        b"predicted_n" => set(&mut tally.spare_output, c),
        _ => c.skip().map(drop),
    })?;
    let all = prompt.map(|n: u64| n.saturating_add(cached.unwrap_or(0)));
    tally.spare_input = all.or(tally.spare_input);
    Ok(())
}
