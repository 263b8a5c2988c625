//! Usage fields as sent, merged over the events of an answer, and their one meaning.
//!
//! The fields are merged as they came, and read only then: Anthropic states the input in the first event and the
//! output in the last, and whether cached tokens lie inside or beside the input shows from the names of all fields
//! together.
use super::{Count, Usage};
use crate::wire::json::{Cursor, Result};

/// What all usage objects of one answer said so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) total: Option<u64>,
    pub(crate) cached: Option<u64>,
    pub(crate) cache_write: Option<u64>,
    pub(crate) cache_write_1h: Option<u64>,
    pub(crate) reasoning: Option<u64>,
    pub(crate) audio_input: Option<u64>,
    pub(crate) audio_output: Option<u64>,
    /// Input of tools that is counted beside the prompt (Google).
    pub(crate) tool_input: Option<u64>,
    /// Cohere's billed units, Bedrock's metrics: good when nothing better is there.
    pub(crate) spare_input: Option<u64>,
    pub(crate) spare_output: Option<u64>,
    /// `prompt_tokens` or `completion_tokens` came: cached tokens are inside.
    chat: bool,
    /// `cache_read_input_tokens` and the like came: cached tokens are beside, unless `chat`.
    cache_beside: bool,
    /// Google's counts: reasoning is beside the output.
    pub(crate) reasoning_beside: bool,
}

/// Takes over a count, unless it is unknown.
pub(crate) fn set(slot: &mut Option<u64>, c: &mut Cursor<'_>) -> Result {
    if let Some(n) = c.count()? {
        *slot = Some(n);
    }
    Ok(())
}

impl Tally {
    /// Reads a usage object of any provider but Google; true if it was an object.
    pub(crate) fn read(&mut self, c: &mut Cursor<'_>) -> Result<bool> {
        c.object(|c, key| self.member(c, key))
    }

    /// Reads one member of a usage object.
    pub(crate) fn member(&mut self, c: &mut Cursor<'_>, key: &[u8]) -> Result {
        match key {
            b"prompt_tokens" => {
                self.chat = true;
                set(&mut self.input, c)
            }
            b"completion_tokens" => {
                self.chat = true;
                set(&mut self.output, c)
            }
            b"input_tokens" | b"inputTokens" => set(&mut self.input, c),
            b"output_tokens" | b"outputTokens" => set(&mut self.output, c),
            b"total_tokens" | b"totalTokens" => set(&mut self.total, c),
            b"cache_read_input_tokens" | b"cacheReadInputTokens" | b"cacheReadInputTokenCount" => {
                self.cache_beside = true;
                set(&mut self.cached, c)
            }
            b"cache_creation_input_tokens"
            | b"cacheWriteInputTokens"
            | b"cacheWriteInputTokenCount" => {
                self.cache_beside = true;
                set(&mut self.cache_write, c)
            }
            b"cache_creation" => c
                .object(|c, key| match key {
                    b"ephemeral_1h_input_tokens" => set(&mut self.cache_write_1h, c),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            b"cached_tokens"
            | b"num_cached_tokens"
            | b"prompt_cache_hit_tokens"
            | b"total_cached_tokens" => set(&mut self.cached, c),
            b"reasoning_tokens" => set(&mut self.reasoning, c),
            b"prompt_tokens_details"
            | b"prompt_token_details"
            | b"input_tokens_details"
            | b"input_token_details" => c
                .object(|c, key| match key {
                    b"cached_tokens" => set(&mut self.cached, c),
                    b"cache_write_tokens" => set(&mut self.cache_write, c),
                    b"audio_tokens" => set(&mut self.audio_input, c),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            b"completion_tokens_details"
            | b"completion_token_details"
            | b"output_tokens_details"
            | b"output_token_details" => c
                .object(|c, key| match key {
                    b"reasoning_tokens" | b"thinking_tokens" => set(&mut self.reasoning, c),
                    b"audio_tokens" => set(&mut self.audio_output, c),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            // Cohere
            b"tokens" => self.read(c).map(drop),
            b"billed_units" => self.spare(c),
            // Google's interactions
            b"total_input_tokens" => set(&mut self.input, c),
            b"total_output_tokens" => set(&mut self.output, c),
            b"total_tool_use_tokens" => set(&mut self.tool_input, c),
            b"total_thought_tokens" => {
                self.reasoning_beside = true;
                set(&mut self.reasoning, c)
            }
            _ => c.skip().map(drop),
        }
    }

    /// Reads counts that stand back behind others.
    pub(crate) fn spare(&mut self, c: &mut Cursor<'_>) -> Result {
        c.object(|c, key| match key {
            b"input_tokens" | b"inputTokenCount" => set(&mut self.spare_input, c),
            b"output_tokens" | b"outputTokenCount" => set(&mut self.spare_output, c),
            _ => c.skip().map(drop),
        })
        .map(drop)
    }

    /// Whether any count of tokens came.
    pub(crate) fn is_some(&self) -> bool {
        self.input.is_some()
            || self.output.is_some()
            || self.total.is_some()
            || self.spare_input.is_some()
            || self.spare_output.is_some()
    }

    /// The counts in their one meaning.
    pub(crate) fn usage(&self) -> Usage {
        let known = |n: Option<u64>| n.map_or(Count::Unknown, Count::Exact);
        let mut input = self.input;
        let mut output = self.output;
        if input.is_none() && output.is_none() {
            (input, output) = (self.spare_input, self.spare_output);
        }
        let sent = |input: u64, output: u64| self.total == input.checked_add(output);
        let cache_write = self.cache_write;
        if self.cache_beside && !self.chat {
            // Anthropic and Bedrock Converse: what was cached is not in the input.
            let beside = self
                .cached
                .unwrap_or(0)
                .saturating_add(cache_write.unwrap_or(0));
            input = input.map(|n| n.saturating_add(beside));
        }
        if self.reasoning_beside {
            let tools = self.tool_input.unwrap_or(0);
            let reasoning = self.reasoning.unwrap_or(0);
            input = input.map(|n| n.saturating_add(tools));
            output = match (output, self.reasoning) {
                (None, None) => None,
                (output, _) => Some(output.unwrap_or(0).saturating_add(reasoning)),
            };
        } else if let (Some(i), Some(o)) = (input, output) {
            if !sent(i, o) {
                // xAI counts reasoning beside the completion, Mistral audio beside the prompt: the total tells.
                let reasoning = self.reasoning.unwrap_or(0);
                let audio = self.audio_input.unwrap_or(0);
                if self.chat && sent(i, o.saturating_add(reasoning)) {
                    output = Some(o + reasoning);
                } else if self.chat && sent(i.saturating_add(audio), o) {
                    input = Some(i + audio);
                }
            }
        }
        let sum = match (input, output) {
            (Some(i), Some(o)) => i.checked_add(o),
            _ => None,
        };
        Usage {
            input: known(input),
            cached_input: known(self.cached),
            cache_write: known(cache_write),
            cache_write_1h: known(self.cache_write_1h),
            output: known(output),
            reasoning: known(self.reasoning),
            audio_input: known(self.audio_input),
            audio_output: known(self.audio_output),
            total: known(self.total.or(sum)),
        }
    }
}
