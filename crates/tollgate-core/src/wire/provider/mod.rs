//! What one document or event says, in the dialects of all providers.
//!
//! The dialects hardly share a key with two meanings, so one reader understands them all and the dialect need not be
//! known beforehand: a proxy that answers in another shape than its path promises is read all the same. Each file knows
//! one dialect's parts.
use super::{
    json::{Cursor, Kind, Result, Text},
    prompt::Endpoint,
    usage::tally::Tally,
};

mod anthropic;
mod bedrock;
mod cohere;
mod gemini;
mod ollama;
mod openai;

pub(crate) use bedrock::frames;

/// What a document said. It is taken over only when the document was read whole.
#[derive(Debug, Default)]
pub(crate) struct Said<'a> {
    pub(crate) model: Option<Text<'a>>,
    pub(crate) id: Option<Text<'a>>,
    pub(crate) tier: Option<Text<'a>>,
    /// The `type` or `event_type` of the document.
    pub(crate) kind: Option<Text<'a>>,
    pub(crate) finish: Option<Reason<'a>>,
    /// The status of a response or interaction, and why it is incomplete.
    pub(crate) status: Option<Text<'a>>,
    pub(crate) incomplete: Option<Text<'a>>,
    /// It is a response or an interaction, so that the status is its finish.
    pub(crate) has_state: bool,
    /// There is an error somewhere in it.
    pub(crate) error: bool,
    /// `choices` came and was empty.
    pub(crate) no_choices: bool,
    /// A top-level `usage` object came, whether it said anything new or not.
    pub(crate) usage: bool,
    /// It has generated text, a tool call or a reason to finish.
    pub(crate) content: bool,
    /// Characters of generated text.
    pub(crate) chars: u64,
    /// A piece of generated text, and how many there are.
    pub(crate) text: Option<Text<'a>>,
    pub(crate) texts: u32,
    /// Bytes that vary and mean nothing: padding, a running number.
    pub(crate) padding: Option<Text<'a>>,
    pub(crate) number: Option<&'a [u8]>,
    /// The last document of its stream.
    pub(crate) last: bool,
    /// It is one of a stream.
    pub(crate) event: bool,
    /// A tool of the provider's own ran that is charged beside the tokens.
    pub(crate) hosted: bool,
}

/// Why generation ended, as sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason<'a> {
    Word(Text<'a>),
    /// Gemini, when asked for numbers in the place of names.
    Number(u64),
}

impl<'a> Said<'a> {
    /// Reads one document; usage goes to `tally`.
    pub(crate) fn read(
        &mut self,
        endpoint: Endpoint,
        c: &mut Cursor<'a>,
        tally: &mut Tally,
    ) -> Result {
        c.object(|c, key| self.member(endpoint, c, key, tally))?;
        Ok(())
    }

    fn member(
        &mut self,
        endpoint: Endpoint,
        c: &mut Cursor<'a>,
        key: &[u8],
        tally: &mut Tally,
    ) -> Result {
        match key {
            b"choices" => openai::choices(self, c, tally),
            b"usage" => {
                self.usage |= self.counts(c, tally)?;
                Ok(())
            }
            b"model" | b"modelVersion" | b"model_version" => keep(&mut self.model, c),
            b"id" | b"responseId" | b"response_id" | b"generation_id" => keep(&mut self.id, c),
            b"service_tier" => keep(&mut self.tier, c),
            b"type" | b"event_type" => keep(&mut self.kind, c),
            b"error" => {
                self.error |= !matches!(c.kind()?, Kind::Null | Kind::Bool | Kind::Number);
                c.skip().map(drop)
            }
            b"delta" => match c.kind()? {
                // Responses API: a piece of text.
                Kind::String => self.generated(c),
                _ => anthropic::delta(self, c, tally),
            },
            b"object" => {
                self.has_state |= c
                    .text()?
                    .is_some_and(|t| t == *"response" || t == *"interaction");
                Ok(())
            }
            b"status" => {
                keep(&mut self.status, c)?;
                self.has_state |= matches!(endpoint, Endpoint::Responses | Endpoint::Interactions);
                Ok(())
            }
            b"incomplete_details" => openai::incomplete(self, c),
            b"response" => match c.kind()? {
                Kind::String => self.generated(c),
                _ => openai::response(self, endpoint, c, tally),
            },
            b"interaction" => openai::response(self, endpoint, c, tally),
            b"output" => openai::output(self, c),
            b"x_groq" => openai::groq(self, c, tally),
            b"message" => anthropic::message(self, c, tally),
            b"content" => openai::parts(self, c),
            b"content_block" => anthropic::block(self, c),
            b"stop_reason" | b"stopReason" | b"finish_reason" | b"completionReason"
            | b"done_reason" => self.reason(c),
            b"candidates" => gemini::candidates(self, c),
            b"usageMetadata" | b"usage_metadata" => gemini::usage(self, c, tally),
            b"promptFeedback" => gemini::feedback(self, c),
            b"predictions" => gemini::predictions(c, tally),
            b"steps" | b"outputs" => openai::parts(self, c),
            b"meta" => cohere::meta(c, tally),
            b"is_finished" => {
                self.last |= c.boolean()? == Some(true);
                Ok(())
            }
            b"done" | b"prompt_eval_count" | b"eval_count" => ollama::member(self, c, key, tally),
            b"timings" => openai::timings(c, tally),
            b"text" | b"completion" | b"generation" | b"outputText" | b"generated_text" => {
                self.generated(c)
            }
            b"totalTokens" | b"input_tokens" | b"total_tokens"
                if endpoint == Endpoint::CountTokens =>
            {
                super::usage::tally::set(&mut tally.input, c)
            }
            b"obfuscation" | b"p" => {
                self.padding = c.text()?;
                Ok(())
            }
            b"sequence_number" if c.kind()? == Kind::Number => {
                self.number = Some(c.scalar());
                Ok(())
            }
            _ => bedrock::member(self, endpoint, c, key, tally),
        }
    }

    /// A usage object; Anthropic and Mistral name the tier in it. True if it was an object.
    fn counts(&mut self, c: &mut Cursor<'a>, tally: &mut Tally) -> Result<bool> {
        c.object(|c, key| match key {
            b"service_tier" => keep(&mut self.tier, c),
            b"server_tool_use" => c
                .object(|c, key| match key {
                    b"web_search_requests" => self.hosted_count(c),
                    _ => c.skip().map(drop),
                })
                .map(drop),
            b"num_search_queries" | b"num_sources_used" | b"num_server_side_tools_used" => {
                self.hosted_count(c)
            }
            // Perplexity: each call has a fee by this size.
            b"search_context_size" => {
                self.hosted = true;
                c.skip().map(drop)
            }
            _ => tally.member(c, key),
        })
    }

    /// How often a hosted tool was used.
    fn hosted_count(&mut self, c: &mut Cursor<'a>) -> Result {
        self.hosted |= c.count()?.is_some_and(|count| count > 0);
        Ok(())
    }

    /// A string of generated text.
    fn generated(&mut self, c: &mut Cursor<'a>) -> Result {
        if let Some(text) = c.text()? {
            self.note(text);
        }
        Ok(())
    }

    fn note(&mut self, text: Text<'a>) {
        self.content |= !text.is_empty();
        self.chars += text.chars();
        self.text = Some(text);
        self.texts += 1;
    }

    /// Why generation ended; null means that it has not, and an empty string says nothing.
    fn reason(&mut self, c: &mut Cursor<'a>) -> Result {
        match c.kind()? {
            Kind::String => {
                let word = c.string()?;
                if word.is_empty() {
                    return Ok(());
                }
                self.finish = Some(Reason::Word(word));
            }
            Kind::Number => self.finish = c.count()?.map(Reason::Number),
            _ => {
                c.skip()?;
                return Ok(());
            }
        }
        self.content = true;
        Ok(())
    }
}

/// Whether an item of output is the trace of a tool that the provider runs and charges by the call
/// or by time.
///
/// <https://platform.openai.com/docs/pricing> (built-in tools),
/// <https://docs.anthropic.com/en/docs/about-claude/pricing> (code execution; searches are counted
/// in the usage), as of 2026-11.
pub(crate) fn hosted(kind: &[u8]) -> bool {
    matches!(
        kind,
        b"web_search_call"
            | b"file_search_call"
            | b"code_interpreter_call"
            | b"image_generation_call"
            | b"google_search_call"
            | b"code_execution_tool_result"
            | b"bash_code_execution_tool_result"
            | b"text_editor_code_execution_tool_result"
            | b"response.web_search_call.completed"
            | b"response.file_search_call.completed"
            | b"response.code_interpreter_call.completed"
            | b"response.image_generation_call.completed"
    )
}

/// Keeps a string that is not empty; the first one wins.
fn keep<'a>(slot: &mut Option<Text<'a>>, c: &mut Cursor<'a>) -> Result {
    if let Some(text) = c.text()? {
        if slot.is_none() && !text.is_empty() {
            *slot = Some(text);
        }
    }
    Ok(())
}
