//! Reading the head of a request document.
use std::sync::Arc;

use super::{Dialect, Endpoint, ModelIn, RequestFacts, multipart};
use crate::wire::json::{Cursor, Kind, Result, Text, Word};

/// Longest name of a model or user that is kept.
const LONGEST_NAME: usize = 512;

/// Reads a JSON document into `facts` and hands on each string of the prompt that is text; what came before a broken
/// place is kept.
pub(super) fn document(
    facts: &mut RequestFacts,
    path: &str,
    body: &[u8],
    mut each: impl FnMut(Text<'_>),
) {
    let mut cursor = Cursor::new(body);
    let mut seen = Seen {
        cohere_v2: path.ends_with("/v2/chat"),
        ..Seen::default()
    };
    let _ = cursor.object(|c, key| member(facts, &mut seen, c, key, &mut each));
    if facts.endpoint == Endpoint::CohereChat && seen.messages && !seen.cohere_v2 {
        // `/v1/chat` is Cohere's with `message`, and an OpenAI-like server's with `messages`.
        facts.endpoint = Endpoint::ChatCompletions;
        facts.dialect = Dialect::OpenAi;
    }
    facts.user = seen.safety_identifier.or(seen.user).or(seen.metadata_user);
    if matches!(facts.endpoint, Endpoint::Ollama) && seen.stream.is_none() {
        // Alone among all, Ollama streams unless told otherwise.
        facts.stream = true;
    } else if let Some(stream) = seen.stream {
        facts.stream |= stream;
    }
}

/// What is needed only until the document ends.
#[derive(Default)]
struct Seen {
    stream: Option<bool>,
    messages: bool,
    cohere_v2: bool,
    safety_identifier: Option<Arc<str>>,
    user: Option<Arc<str>>,
    metadata_user: Option<Arc<str>>,
}

fn member(
    facts: &mut RequestFacts,
    seen: &mut Seen,
    c: &mut Cursor<'_>,
    key: &[u8],
    each: &mut impl FnMut(Text<'_>),
) -> Result {
    match key {
        b"model" => {
            if let Some(name) = name(c.text()?) {
                // The path, where it names a model, has the last word.
                if facts.model_in != Some(ModelIn::Path) {
                    facts.model = Some(name);
                    facts.model_in = Some(ModelIn::Body);
                }
            }
        }
        b"stream" => seen.stream = Some(c.boolean()?.unwrap_or(false)),
        b"stream_format" => {
            if c.text()?.is_some_and(|t| t == *"sse") {
                seen.stream = Some(true);
            }
        }
        b"stream_options" => {
            c.object(|c, key| match key {
                b"include_usage" => {
                    facts.include_usage = c.boolean()?;
                    Ok(())
                }
                _ => c.skip().map(drop),
            })?;
        }
        b"max_completion_tokens" => cap(facts, c, "max_completion_tokens")?,
        b"max_tokens" => cap(facts, c, "max_tokens")?,
        b"max_output_tokens" => cap(facts, c, "max_output_tokens")?,
        b"max_tokens_to_sample" => cap(facts, c, "max_tokens_to_sample")?,
        b"max_gen_len" => cap(facts, c, "max_gen_len")?,
        b"max_new_tokens" => cap(facts, c, "max_new_tokens")?,
        b"generationConfig"
        | b"generation_config"
        | b"inferenceConfig"
        | b"textGenerationConfig"
        | b"options"
        | b"parameters" => {
            c.object(|c, key| config(facts, c, key))?;
        }
        b"n" | b"best_of" | b"num_generations" => answers(facts, c)?,
        b"background" => facts.background = c.boolean()? == Some(true),
        b"user" => seen.user = name(c.text()?),
        b"safety_identifier" => seen.safety_identifier = name(c.text()?),
        b"metadata" => {
            c.object(|c, key| match key {
                b"user_id" => {
                    seen.metadata_user = name(c.text()?);
                    Ok(())
                }
                _ => c.skip().map(drop),
            })?;
        }
        b"previous_response_id"
        | b"conversation"
        | b"previous_interaction_id"
        | b"cachedContent"
        | b"cached_content"
        | b"container" => {
            facts.pinned |= c.kind()? != Kind::Null;
            c.skip()?;
        }
        b"tools" | b"functions" | b"toolConfig" => {
            facts.tools |= length(*c)? > 0;
            facts.tool_chars += c.skip()?.len() as u64;
        }
        b"response_format" | b"output_config" | b"text" => {
            facts.json_schema |= is_schema(*c, true)?;
            facts.tool_chars += c.skip()?.len() as u64;
        }
        // The format of a picture is a word.
        b"output_format" if c.kind()? == Kind::Object => {
            facts.json_schema |= is_schema(*c, true)?;
            facts.tool_chars += c.skip()?.len() as u64;
        }
        b"messages" | b"contents" | b"chat_history" => {
            seen.messages |= key == b"messages";
            let turns = turns(*c)?;
            facts.messages += turns.count;
            facts.prefill |= turns.last_is_the_models;
            prompt(facts, c, key, each)?;
        }
        b"input" | b"prompt" => {
            several(facts, *c)?;
            prompt(facts, c, key, each)?;
        }
        b"texts" | b"requests" | b"documents" | b"instances" => {
            facts.inputs = Some(length(*c)?);
            prompt(facts, c, key, each)?;
        }
        b"images" if facts.endpoint == Endpoint::CohereEmbed => {
            facts.inputs = Some(length(*c)?);
            prompt(facts, c, key, each)?;
        }
        // Of `/api/generate`; in a chat they stand in the messages.
        b"images" if facts.endpoint == Endpoint::Ollama => prompt(facts, c, key, each)?,
        b"message" => {
            facts.messages += 1;
            prompt(facts, c, key, each)?;
        }
        b"system"
        | b"instructions"
        | b"systemInstruction"
        | b"system_instruction"
        | b"preamble"
        | b"query"
        | b"content"
        | b"inputs"
        | b"inputText"
        | b"suffix"
        | b"template" => {
            prompt(facts, c, key, each)?;
        }
        _ => {
            c.skip()?;
        }
    }
    Ok(())
}

/// Objects of settings: Gemini, Bedrock, Ollama, Hugging Face.
fn config(facts: &mut RequestFacts, c: &mut Cursor<'_>, key: &[u8]) -> Result {
    match key {
        b"maxOutputTokens" => cap(facts, c, "maxOutputTokens"),
        b"max_output_tokens" => cap(facts, c, "max_output_tokens"),
        b"maxTokens" => cap(facts, c, "maxTokens"),
        b"max_new_tokens" => cap(facts, c, "max_new_tokens"),
        b"maxTokenCount" => cap(facts, c, "maxTokenCount"),
        b"num_predict" => cap(facts, c, "num_predict"),
        b"candidateCount" | b"candidate_count" => answers(facts, c),
        b"responseSchema" | b"response_schema" | b"responseJsonSchema" => {
            facts.json_schema |= c.kind()? != Kind::Null;
            facts.tool_chars += c.skip()?.len() as u64;
            Ok(())
        }
        _ => c.skip().map(drop),
    }
}

/// The largest of all spellings counts, so that a second one cannot slip past a budget.
fn cap(facts: &mut RequestFacts, c: &mut Cursor<'_>, field: &'static str) -> Result {
    if let Some(n) = c.loose_count()? {
        if facts.max_output_tokens.is_none_or(|most| n > most) {
            facts.max_output_tokens = Some(n);
            facts.max_output_field = Some(field);
        }
    }
    Ok(())
}

fn answers(facts: &mut RequestFacts, c: &mut Cursor<'_>) -> Result {
    if let Some(n) = c.loose_count()? {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        facts.answers = facts.answers.max(n);
    }
    Ok(())
}

fn name(text: Option<Text<'_>>) -> Option<Arc<str>> {
    let text = text.filter(|t| !t.is_empty() && t.raw().len() <= LONGEST_NAME)?;
    Some(text.to_str().into())
}

/// Items of an array; 1 for anything else that is there.
fn length(mut c: Cursor<'_>) -> Result<u32> {
    let mut n = 0;
    match c.kind()? {
        Kind::Array => {
            c.array(|c| {
                n += 1;
                c.skip().map(drop)
            })?;
        }
        Kind::Null => {}
        _ => n = 1,
    }
    Ok(n)
}

/// Whether a format is a JSON schema: `{"type":"json_schema",…}`, or one level further in
/// (`text.format`, `output_config.format`).
fn is_schema(mut c: Cursor<'_>, outer: bool) -> Result<bool> {
    let mut schema = false;
    if c.kind()? == Kind::Object {
        c.object(|c, key| {
            match key {
                b"type" => schema |= c.text()?.is_some_and(|kind| kind == *"json_schema"),
                b"format" if outer => {
                    schema |= is_schema(*c, false)?;
                    c.skip()?;
                }
                _ => {
                    c.skip()?;
                }
            }
            Ok(())
        })?;
    }
    Ok(schema)
}

struct Turns {
    count: u32,
    last_is_the_models: bool,
}

/// Counts messages and looks who speaks last.
fn turns(mut c: Cursor<'_>) -> Result<Turns> {
    let mut turns = Turns {
        count: 0,
        last_is_the_models: false,
    };
    if c.kind()? != Kind::Array {
        turns.count = length(c)?;
        return Ok(turns);
    }
    let mut last = None;
    c.array(|c| {
        turns.count += 1;
        last = Some(*c);
        c.skip().map(drop)
    })?;
    let Some(mut last) = last else {
        return Ok(turns);
    };
    if last.kind()? == Kind::Object {
        last.object(|c, key| {
            if key == b"role" {
                let role = c.text()?;
                turns.last_is_the_models =
                    role.is_some_and(|role| role == *"assistant" || role == *"model");
                return Ok(());
            }
            c.skip().map(drop)
        })?;
    }
    Ok(turns)
}

/// `input` and `prompt`: a string, an array of strings, one array of token ids (one input), an array of such arrays; for
/// the Responses API messages.
fn several(facts: &mut RequestFacts, mut c: Cursor<'_>) -> Result {
    if c.kind()? != Kind::Array {
        facts.messages += 1;
        facts.inputs = Some(1);
        return Ok(());
    }
    let (mut items, mut ids) = (0u32, 0u64);
    let mut flat = false;
    c.array(|c| {
        items += 1;
        match c.kind()? {
            Kind::Number => {
                flat = true;
                ids += 1;
                c.skip().map(drop)
            }
            Kind::Array => c
                .array(|c| {
                    ids += u64::from(c.kind()? == Kind::Number);
                    c.skip().map(drop)
                })
                .map(drop),
            _ => c.skip().map(drop),
        }
    })?;
    facts.prompt_token_ids += ids;
    facts.inputs = Some(if flat { 1 } else { items });
    facts.messages += if flat { 1 } else { items };
    Ok(())
}

/// Counts the text and the images of a part of the prompt.
fn prompt(
    facts: &mut RequestFacts,
    c: &mut Cursor<'_>,
    top: &[u8],
    each: &mut impl FnMut(Text<'_>),
) -> Result {
    let mut key: &[u8] = top;
    // How deep the arguments of a tool begin: names within are the tool's own, and all of it is text.
    let mut arguments = None;
    c.strings(|word, depth| match word {
        Word::Key(_) if arguments.is_some_and(|from| depth > from) => {}
        Word::Value(text) if arguments.is_some_and(|from| depth > from) => {
            facts.prompt_chars += text.chars();
            each(text);
        }
        Word::Key(text) => {
            key = text.raw();
            arguments = matches!(key, b"input" | b"args" | b"arguments").then_some(depth);
            match key {
                b"inlineData" | b"inline_data" => facts.images += 1,
                // Files that lie at the provider. (`file_data` is the file itself at OpenAI.)
                b"file_id" | b"fileUri" | b"file_uri" | b"container_id" => facts.pinned = true,
                _ => {}
            }
        }
        // Whatever it is called, it is no text: a picture is counted by the type of its part.
        Word::Value(text) if is_inline_data(text.raw()) => {
            facts.images += u32::from(key == b"images");
        }
        Word::Value(text) => match key {
            b"type" => {
                let image = matches!(text.raw(), b"image_url" | b"image" | b"input_image");
                facts.images += u32::from(image);
            }
            // Pictures, sounds and names of things: no text that is metered by its length.
            b"role" | b"id" | b"data" | b"url" | b"image_url" | b"b64_json" | b"bytes"
            | b"file_data" | b"file_id" | b"fileUri" | b"file_uri" | b"mimeType" | b"mime_type"
            | b"media_type" | b"model" | b"tool_call_id" | b"tool_use_id" | b"call_id"
            | b"signature" | b"encrypted_content" | b"thoughtSignature" | b"format" | b"detail" => {
            }
            b"images" => facts.images += 1,
            _ => {
                facts.prompt_chars += text.chars();
                each(text);
            }
        },
    })
}

/// `data:image/png;base64,…`
fn is_inline_data(text: &[u8]) -> bool {
    // The media type and its parameters are short.
    let head = &text[..text.len().min(128)];
    let code = b";base64,";
    head.starts_with(b"data:") && head.windows(code.len()).any(|at| at == code)
}

/// Reads the fields of a form.
pub(super) fn form(facts: &mut RequestFacts, content_type: &str, body: &[u8]) {
    multipart::fields(content_type, body, |key, value| match key {
        "model" if facts.model.is_none() && value.len() <= LONGEST_NAME => {
            facts.model = Some(value.into());
            facts.model_in = Some(ModelIn::Multipart);
        }
        "stream" => facts.stream = value == "true",
        "n" => {
            if let Ok(n) = value.parse::<u32>() {
                facts.answers = facts.answers.max(n);
            }
        }
        "user" => facts.user = Some(value.into()),
        "prompt" => facts.prompt_chars += value.chars().count() as u64,
        _ => {}
    });
}
