//! Anthropic's messages and their events.
use super::{Said, keep, openai};
use crate::wire::{
    json::{Cursor, Kind, Result, Text},
    usage::tally::Tally,
};

/// `message_start.message`, Ollama's and Cohere's `message`; a string is the text of an error.
pub(super) fn message<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>, tally: &mut Tally) -> Result {
    c.object(|c, key| match key {
        b"model" => keep(&mut said.model, c),
        b"id" => keep(&mut said.id, c),
        b"usage" => said.counts(c, tally).map(drop),
        b"stop_reason" => said.reason(c),
        b"content" | b"thinking" | b"tool_calls" | b"tool_plan" => full(said, c),
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// Parts, of which an empty list is no content yet.
fn full<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    openai::parts(said, c)
}

/// A piece of a message, also Cohere's, Bedrock's and those of Google's interactions.
pub(super) fn delta<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>, tally: &mut Tally) -> Result {
    c.object(|c, key| match key {
        b"text" | b"thinking" | b"partial_json" | b"arguments" => said.generated(c),
        b"stop_reason" | b"finish_reason" => said.reason(c),
        b"usage" => said.counts(c, tally).map(drop),
        b"error" => {
            said.error |= c.kind()? != Kind::Null;
            c.skip().map(drop)
        }
        b"message" => message(said, c, tally),
        b"toolUse" | b"reasoningContent" | b"content" => openai::parts(said, c),
        b"citation" | b"signature" => {
            said.content = true;
            c.skip().map(drop)
        }
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// The start of a block: one of text is empty and no content yet, a tool's name is.
pub(super) fn block<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    let mut kind: Option<Text<'a>> = None;
    c.object(|c, key| match key {
        b"type" => keep(&mut kind, c),
        b"text" | b"thinking" if c.kind()? == Kind::String => said.generated(c),
        _ => c.skip().map(drop),
    })?;
    said.hosted |= kind.is_some_and(|kind| super::hosted(kind.raw()));
    said.content |= kind.is_some_and(|kind| kind != *"text" && kind != *"thinking");
    Ok(())
}
