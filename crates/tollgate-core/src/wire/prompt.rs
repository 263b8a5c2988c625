//! The head of a request document: what limits, prices and rewrites need to know of it.
use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

/// What is asked of the provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Endpoint {
    /// OpenAI `/v1/chat/completions` and its many copies.
    ChatCompletions,
    /// OpenAI `/v1/completions`.
    Completions,
    /// OpenAI `/v1/responses`.
    Responses,
    /// `/v1/embeddings`.
    Embeddings,
    /// `/v1/images/…`.
    Images,
    /// `/v1/audio/speech`.
    Speech,
    /// `/v1/audio/transcriptions` and `/translations`.
    Transcriptions,
    /// `/v1/moderations`.
    Moderations,
    /// Rerank, of any provider.
    Rerank,
    /// Anthropic `/v1/messages`.
    AnthropicMessages,
    /// Anthropic's legacy `/v1/complete`.
    AnthropicComplete,
    /// A count of tokens, of any provider; generates nothing.
    CountTokens,
    /// Gemini `:generateContent` and `:streamGenerateContent`.
    GenerateContent,
    /// Gemini `:embedContent`, `:batchEmbedContents`.
    EmbedContent,
    /// Gemini `:predict` on Vertex.
    Predict,
    /// Gemini `/v1beta/interactions`.
    Interactions,
    /// Cohere chat, v1 and v2.
    CohereChat,
    /// Cohere embed.
    CohereEmbed,
    /// Bedrock `/converse` and `/converse-stream`.
    Converse,
    /// Bedrock `/invoke` and `/invoke-with-response-stream`.
    Invoke,
    /// Ollama `/api/chat`, `/api/generate`.
    Ollama,
    /// Ollama `/api/embed`.
    OllamaEmbed,
    /// Hugging Face inference `/models/{m}`.
    HuggingFace,
    /// A batch, file or fine-tuning endpoint: accepted now, charged elsewhere.
    Deferred,
    /// Not one we know: passed through, counted as a request.
    Other,
}

impl Endpoint {
    /// Whether an answer generates text or other output that is metered in output tokens.
    #[must_use]
    pub fn generates(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Completions
                | Self::Responses
                | Self::Images
                | Self::Transcriptions
                | Self::Speech
                | Self::AnthropicMessages
                | Self::AnthropicComplete
                | Self::GenerateContent
                | Self::Predict
                | Self::Interactions
                | Self::CohereChat
                | Self::Converse
                | Self::Invoke
                | Self::Ollama
                | Self::HuggingFace
        )
    }

    /// Accepted now, charged elsewhere: batches, files, fine-tuning jobs.
    #[must_use]
    pub fn deferred(self) -> bool {
        self == Self::Deferred
    }
}

/// Whose shapes are spoken, for documents that we make ourselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI and its many compatibles.
    #[default]
    OpenAi,
    /// Azure's deployments.
    Azure,
    /// Anthropic, also on Vertex.
    Anthropic,
    /// Gemini and Vertex.
    Gemini,
    /// Cohere.
    Cohere,
    /// Bedrock.
    Bedrock,
    /// Ollama's native API.
    Ollama,
    /// Hugging Face inference.
    HuggingFace,
}

/// Tells the endpoint by method and path, not by host.
#[must_use]
pub fn endpoint(method: &Method, uri: &Uri) -> Endpoint {
    let path = uri.path();
    if *method != Method::POST {
        Endpoint::Other
    } else if path.ends_with("/chat/completions") {
        Endpoint::ChatCompletions
    } else if path.ends_with("/responses") {
        Endpoint::Responses
    } else if path.ends_with("/embeddings") {
        Endpoint::Embeddings
    } else if path.ends_with("/messages") {
        Endpoint::AnthropicMessages
    } else {
        Endpoint::Other
    }
}

/// Replaces the value of the top-level `key` by `json`; every other byte stays as it was.
///
/// All of them are replaced if the key is there more than once. `None` if the document is no object or has no such key.
#[must_use]
pub fn replace_value(body: &Bytes, key: &str, json: &str) -> Option<Bytes> {
    let _ = (body, key, json);
    None
}

/// Puts a member in front of the others; `None` if the document is no object or has the key.
#[must_use]
pub fn insert_value(body: &Bytes, key: &str, json: &str) -> Option<Bytes> {
    let _ = (body, key, json);
    None
}

/// Takes the top-level `key` out, with its comma; `None` if there is none.
#[must_use]
pub fn remove_value(body: &Bytes, key: &str) -> Option<Bytes> {
    let _ = (body, key);
    None
}

/// Gives the top-level key `from` the name `to`; `None` if there is no `from`, or if there is a `to`.
#[must_use]
pub fn rename_key(body: &Bytes, from: &str, to: &str) -> Option<Bytes> {
    let _ = (body, from, to);
    None
}

/// Sets `stream_options.include_usage`, and keeps what else stands there.
///
/// `None` when it is already true or the document cannot be read.
#[must_use]
pub fn ask_for_usage(body: &Bytes) -> Option<Bytes> {
    let _ = body;
    None
}

/// Where the model's name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelIn {
    /// The top-level `model` value of the document.
    Body,
    /// The path.
    Path,
    /// A multipart field.
    Multipart,
}

/// What one request asks for.
///
/// `Debug` shows neither the document nor the user.
#[derive(Clone)]
#[non_exhaustive]
pub struct RequestFacts {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// Where it stands.
    pub model_in: Option<ModelIn>,
    /// Whether a stream is asked for (by the document or the path).
    pub stream: bool,
    /// `stream_options.include_usage`, as sent.
    pub include_usage: Option<bool>,
    /// The output cap: the largest of all spellings and duplicates.
    pub max_output_tokens: Option<u64>,
    /// The field that it came in.
    pub max_output_field: Option<&'static str>,
    /// `n`, `best_of`, `candidateCount`: answers generated; at least 1.
    pub answers: u32,
    /// Inputs of an embedding, rerank or completion request.
    pub inputs: Option<u32>,
    /// Characters (not bytes) of text in the prompt.
    pub prompt_chars: u64,
    /// Tokens given as ids in the prompt.
    pub prompt_token_ids: u64,
    /// Messages in the prompt.
    pub messages: u32,
    /// Images in the prompt.
    pub images: u32,
    /// `background: true` (Responses): the answer is only an acknowledgement.
    pub background: bool,
    /// The document names stored state of its origin (`previous_response_id`, file or container ids).
    pub pinned: bool,
    /// `safety_identifier`, `user`, `metadata.user_id`: whom the caller says it acts for.
    pub user: Option<Arc<str>>,
    /// Length of the document in bytes.
    pub body_len: u64,
    source: Bytes,
}

/// [`RequestFacts`], shared, as they travel in the request's extensions.
#[derive(Clone, Debug)]
pub struct Facts(Arc<RequestFacts>);

impl Facts {
    /// Shares what was read.
    #[must_use]
    pub fn new(facts: RequestFacts) -> Self {
        Self(Arc::new(facts))
    }

    /// Whether these facts describe these very bytes (same memory, same length).
    ///
    /// A foreign layer may have replaced the body; then the facts are read again. Only the address
    /// is compared, so the bytes kept here are never sent in place of the body.
    #[must_use]
    pub fn describe(&self, body: &Bytes) -> bool {
        self.0.source.as_ptr() == body.as_ptr() && self.0.source.len() == body.len()
    }
}

impl std::ops::Deref for Facts {
    type Target = RequestFacts;

    fn deref(&self) -> &RequestFacts {
        &self.0
    }
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts")
            .field("endpoint", &self.endpoint)
            .field("model", &self.model)
            .field("stream", &self.stream)
            .field("max_output_tokens", &self.max_output_tokens)
            .field("answers", &self.answers)
            .field("inputs", &self.inputs)
            .field("prompt_chars", &self.prompt_chars)
            .field("body_len", &self.body_len)
            .finish_non_exhaustive()
    }
}

impl RequestFacts {
    /// Reads a request. Never fails: what cannot be read is unknown.
    #[must_use]
    pub fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Self {
        let _ = headers;
        let mut facts = Self::unread(endpoint(method, uri));
        facts.body_len = body.len() as u64;
        facts.source = body.clone();
        facts
    }

    /// Whose shapes the request speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        Dialect::default()
    }

    /// Facts of a request whose body was not read: only what the path tells.
    #[must_use]
    pub fn unread(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            model: None,
            model_in: None,
            stream: false,
            include_usage: None,
            max_output_tokens: None,
            max_output_field: None,
            answers: 1,
            inputs: None,
            prompt_chars: 0,
            prompt_token_ids: 0,
            messages: 0,
            images: 0,
            background: false,
            pinned: false,
            user: None,
            body_len: 0,
            source: Bytes::new(),
        }
    }
}
