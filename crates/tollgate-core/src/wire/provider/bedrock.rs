//! Bedrock: the vendors' own bodies under `invoke`, and what Bedrock adds to them.
use super::{Said, anthropic, openai};
use crate::wire::{
    json::{Cursor, Result},
    prompt::Endpoint,
    usage::tally::{Tally, set},
};

pub(crate) mod frames;

pub(super) fn member<'a>(
    said: &mut Said<'a>,
    endpoint: Endpoint,
    c: &mut Cursor<'a>,
    key: &[u8],
    tally: &mut Tally,
) -> Result {
    match key {
        b"amazon-bedrock-invocationMetrics" => {
            said.last = true;
            tally.spare(c)
        }
        // Llama
        b"prompt_token_count" => set(&mut tally.input, c),
        b"generation_token_count" => set(&mut tally.output, c),
        // Titan
        b"inputTextTokenCount" => set(&mut tally.input, c),
        b"totalOutputTextTokenCount" => set(&mut tally.output, c),
        b"results" if endpoint == Endpoint::Invoke => titan(said, c, tally),
        // Nova wraps Converse's events in their names; Converse itself names them in the frame.
        b"contentBlockDelta" => c
            .object(|c, key| match key {
                b"delta" => anthropic::delta(said, c, tally),
                _ => c.skip().map(drop),
            })
            .map(drop),
        b"start" | b"contentBlockStart" => {
            said.content = true;
            c.skip().map(drop)
        }
        b"messageStop" => c
            .object(|c, key| match key {
                b"stopReason" => said.reason(c),
                _ => c.skip().map(drop),
            })
            .map(drop),
        b"metadata" => c
            .object(|c, key| match key {
                b"usage" => said.counts(c, tally).map(drop),
                _ => c.skip().map(drop),
            })
            .map(drop),
        b"generations" => openai::parts(said, c),
        _ => c.skip().map(drop),
    }
}

fn titan<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>, tally: &mut Tally) -> Result {
    c.array(|c| {
        c.object(|c, key| match key {
            b"tokenCount" => set(&mut tally.output, c),
            b"outputText" => said.generated(c),
            b"completionReason" => said.reason(c),
            _ => c.skip().map(drop),
        })
        .map(drop)
    })
    .map(drop)
}
