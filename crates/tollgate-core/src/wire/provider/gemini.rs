//! Gemini and Vertex: candidates, usage with reasoning beside the output, predictions.
use super::{Said, keep, openai};
use crate::wire::{
    json::{Cursor, Result, Text},
    usage::tally::{Tally, set},
};

pub(super) fn candidates<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    c.array(|c| {
        c.object(|c, key| match key {
            b"content" => openai::parts(said, c),
            b"groundingMetadata" | b"grounding_metadata" => c
                .object(|c, _| {
                    said.hosted = true;
                    c.skip().map(drop)
                })
                .map(drop),
            b"finishReason" | b"finish_reason" => {
                said.reason(c)?;
                // There is no other end: Gemini sends neither a last event nor a sentinel.
                said.last |= said.finish.is_some();
                Ok(())
            }
            _ => c.skip().map(drop),
        })
        .map(drop)
    })
    .map(drop)
}

/// A prompt that was refused has no candidates, only this.
pub(super) fn feedback<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>) -> Result {
    c.object(|c, key| match key {
        b"blockReason" => {
            said.reason(c)?;
            said.last |= said.finish.is_some();
            Ok(())
        }
        _ => c.skip().map(drop),
    })
    .map(drop)
}

pub(super) fn usage<'a>(said: &mut Said<'a>, c: &mut Cursor<'a>, tally: &mut Tally) -> Result {
    tally.reasoning_beside = true;
    c.object(|c, key| match key {
        b"serviceTier" => keep(&mut said.tier, c),
        b"promptTokenCount" => set(&mut tally.input, c),
        b"cachedContentTokenCount" => set(&mut tally.cached, c),
        b"candidatesTokenCount" | b"responseTokenCount" => set(&mut tally.output, c),
        b"thoughtsTokenCount" => set(&mut tally.reasoning, c),
        b"toolUsePromptTokenCount" => set(&mut tally.tool_input, c),
        b"totalTokenCount" => set(&mut tally.total, c),
        b"promptTokensDetails" => audio(c, &mut tally.audio_input),
        b"candidatesTokensDetails" | b"responseTokensDetails" => audio(c, &mut tally.audio_output),
        _ => c.skip().map(drop),
    })
    .map(drop)
}

/// The audio part of a list by modality.
fn audio(c: &mut Cursor<'_>, slot: &mut Option<u64>) -> Result {
    c.array(|c| {
        let (mut modality, mut count): (Option<Text<'_>>, _) = (None, None);
        c.object(|c, key| match key {
            b"modality" => {
                modality = c.text()?;
                Ok(())
            }
            b"tokenCount" => set(&mut count, c),
            _ => c.skip().map(drop),
        })?;
        if modality.is_some_and(|m| m == *"AUDIO") {
            *slot = count;
        }
        Ok(())
    })
    .map(drop)
}

/// Vertex embeddings state their tokens one by one.
pub(super) fn predictions(c: &mut Cursor<'_>, tally: &mut Tally) -> Result {
    let mut sum: Option<u64> = None;
    c.array(|c| {
        c.object(|c, key| match key {
            b"embeddings" => c
                .object(|c, key| match key {
                    b"statistics" => c
                        .object(|c, key| match key {
                            b"token_count" => {
                                let count = c.count()?;
                                if let Some(n) = count {
                                    sum = Some(sum.unwrap_or(0).saturating_add(n));
                                }
                                Ok(())
                            }
                            _ => c.skip().map(drop),
                        })
                        .map(drop),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            _ => c.skip().map(drop),
        })
        .map(drop)
    })?;
    tally.input = sum.or(tally.input);
    Ok(())
}
