//! Endpoints, told by the shape of the path.
use std::{borrow::Cow, ops::Range};

use http::{Method, Uri};

use super::Dialect;

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
    /// The name, lower-case with underscores, fit for a label: `chat_completions`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat_completions",
            Self::Completions => "completions",
            Self::Responses => "responses",
            Self::Embeddings => "embeddings",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Moderations => "moderations",
            Self::Rerank => "rerank",
            Self::AnthropicMessages => "anthropic_messages",
            Self::AnthropicComplete => "anthropic_complete",
            Self::CountTokens => "count_tokens",
            Self::GenerateContent => "generate_content",
            Self::EmbedContent => "embed_content",
            Self::Predict => "predict",
            Self::Interactions => "interactions",
            Self::CohereChat => "cohere_chat",
            Self::CohereEmbed => "cohere_embed",
            Self::Converse => "converse",
            Self::Invoke => "invoke",
            Self::Ollama => "ollama",
            Self::OllamaEmbed => "ollama_embed",
            Self::HuggingFace => "hugging_face",
            Self::Deferred => "deferred",
            Self::Other => "other",
        }
    }

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

    /// All tokens of an answer are input: embeddings and ranks.
    pub(crate) fn only_reads(self) -> bool {
        matches!(
            self,
            Self::Embeddings
                | Self::Rerank
                | Self::EmbedContent
                | Self::CohereEmbed
                | Self::OllamaEmbed
        )
    }

    /// Accepted now, charged elsewhere: batches, files, fine-tuning jobs.
    #[must_use]
    pub fn deferred(self) -> bool {
        self == Self::Deferred
    }

    /// Whether `stream_options.include_usage` means something there.
    #[must_use]
    pub fn takes_stream_options(self) -> bool {
        matches!(self, Self::ChatCompletions | Self::Completions)
    }
}

/// What a path tells of a request.
pub(super) struct Route<'u> {
    pub(super) endpoint: Endpoint,
    pub(super) dialect: Dialect,
    /// The model, where it stands in the path.
    pub(super) model: Option<Cow<'u, str>>,
    /// The path asks for a stream.
    pub(super) stream: bool,
}

/// Tells the endpoint by method and path, not by host.
///
/// # Examples
///
/// ```
/// use http::{Method, Uri};
/// use tollgate_core::wire::prompt::{Endpoint, endpoint};
///
/// let uri = Uri::from_static("https://example.com/openai/deployments/eu/chat/completions?api-version=1");
/// assert_eq!(endpoint(&Method::POST, &uri), Endpoint::ChatCompletions);
/// assert_eq!(endpoint(&Method::GET, &uri), Endpoint::Other);
/// ```
#[must_use]
pub fn endpoint(method: &Method, uri: &Uri) -> Endpoint {
    route(method, uri).endpoint
}

/// Where the model's name stands in the path, percent-coded as it is; `None` if it stands elsewhere.
///
/// # Examples
///
/// ```
/// use http::{Method, Uri};
/// use tollgate_core::wire::prompt::model_in_path;
///
/// let uri = Uri::from_static("/v1beta/models/gemini-x:generateContent?alt=sse");
/// let span = model_in_path(&Method::POST, &uri).unwrap();
/// assert_eq!(&uri.path()[span], "gemini-x");
/// ```
#[must_use]
pub fn model_in_path(method: &Method, uri: &Uri) -> Option<Range<usize>> {
    if *method != Method::POST {
        return None;
    }
    let path = uri.path().trim_end_matches('/');
    let model = match by_model(path) {
        Some((_, _, model, _)) => model,
        None => after(path, "/deployments/")?,
    };
    // It is a slice of the path, so its place is the distance.
    let start = model.as_ptr() as usize - path.as_ptr() as usize;
    Some(start..start + model.len())
}

pub(super) fn route<'u>(method: &Method, uri: &'u Uri) -> Route<'u> {
    let path = uri.path().trim_end_matches('/');
    let mut found = Route {
        endpoint: Endpoint::Other,
        dialect: Dialect::OpenAi,
        model: None,
        stream: false,
    };
    if *method != Method::POST {
        return found;
    }
    if let Some((endpoint, dialect)) = common(path) {
        (found.endpoint, found.dialect) = (endpoint, dialect);
        return found;
    }
    if let Some((endpoint, dialect, model, stream)) = by_model(path) {
        found.endpoint = endpoint;
        found.dialect = dialect;
        found.model = Some(percent_decode(model));
        found.stream = stream;
        return found;
    }
    (found.endpoint, found.dialect) = by_tail(path);
    if let Some(deployment) = after(path, "/deployments/") {
        found.dialect = Dialect::Azure;
        found.model = Some(percent_decode(deployment));
    }
    found
}

/// The paths of nearly all requests, told without a search: every layer asks this of every request.
fn common(path: &str) -> Option<(Endpoint, Dialect)> {
    Some(match path {
        "/v1/chat/completions" => (Endpoint::ChatCompletions, Dialect::OpenAi),
        "/v1/responses" => (Endpoint::Responses, Dialect::OpenAi),
        "/v1/embeddings" => (Endpoint::Embeddings, Dialect::OpenAi),
        "/v1/messages" => (Endpoint::AnthropicMessages, Dialect::Anthropic),
        _ => return None,
    })
}

/// Paths that name the model and the verb: Gemini, Vertex, Bedrock, Hugging Face, Cloudflare.
fn by_model(path: &str) -> Option<(Endpoint, Dialect, &str, bool)> {
    if let Some((rest, verb)) = path.rsplit_once(':') {
        let model = rest.rsplit_once("/models/").map(|(_, m)| m);
        if let Some(model) = model.filter(|m| !m.contains('/') && !verb.contains('/')) {
            let anthropic = rest.contains("/publishers/anthropic/");
            let (endpoint, dialect, stream) = match verb {
                "generateContent" => (Endpoint::GenerateContent, Dialect::Gemini, false),
                "streamGenerateContent" => (Endpoint::GenerateContent, Dialect::Gemini, true),
                "embedContent" | "batchEmbedContents" | "embedText" => {
                    (Endpoint::EmbedContent, Dialect::Gemini, false)
                }
                "countTokens" => (Endpoint::CountTokens, Dialect::Gemini, false),
                "predict" => (Endpoint::Predict, Dialect::Gemini, false),
                "predictLongRunning" | "batchGenerateContent" | "asyncBatchEmbedContent" => {
                    (Endpoint::Deferred, Dialect::Gemini, false)
                }
                "rawPredict" if anthropic => {
                    (Endpoint::AnthropicMessages, Dialect::Anthropic, false)
                }
                "streamRawPredict" if anthropic => {
                    (Endpoint::AnthropicMessages, Dialect::Anthropic, true)
                }
                "rawPredict" => (Endpoint::ChatCompletions, Dialect::Gemini, false),
                "streamRawPredict" => (Endpoint::ChatCompletions, Dialect::Gemini, true),
                _ => return None,
            };
            return Some((endpoint, dialect, model, stream));
        }
    }
    if let Some((rest, verb)) = path.rsplit_once('/') {
        let (endpoint, stream) = match verb {
            "converse" => (Endpoint::Converse, false),
            "converse-stream" => (Endpoint::Converse, true),
            "invoke" => (Endpoint::Invoke, false),
            "invoke-with-response-stream" => (Endpoint::Invoke, true),
            "count-tokens" => (Endpoint::CountTokens, false),
            _ => (Endpoint::Other, false),
        };
        if endpoint != Endpoint::Other {
            if let Some((_, model)) = rest.split_once("/model/") {
                return Some((endpoint, Dialect::Bedrock, model, stream));
            }
        }
    }
    if let Some((_, model)) = path.split_once("/ai/run/") {
        return Some((Endpoint::ChatCompletions, Dialect::OpenAi, model, false));
    }
    if by_tail(path).0 == Endpoint::Other {
        let hf = path.strip_prefix("/models/").or_else(|| {
            let task_and_model = path.strip_prefix("/pipeline/")?;
            task_and_model.split_once('/').map(|(_, model)| model)
        });
        if let Some(model) = hf {
            return Some((Endpoint::HuggingFace, Dialect::HuggingFace, model, false));
        }
    }
    None
}

fn by_tail(path: &str) -> (Endpoint, Dialect) {
    let mut segments = path.rsplit('/');
    let last = segments.next().unwrap_or_default();
    let second = segments.next().unwrap_or_default();
    let openai = |endpoint| (endpoint, Dialect::OpenAi);
    match (second, last) {
        ("chat", "completions") => openai(Endpoint::ChatCompletions),
        ("fine_tuning", "jobs") => openai(Endpoint::Deferred),
        ("messages", "batches") => (Endpoint::Deferred, Dialect::Anthropic),
        ("messages", "count_tokens") => (Endpoint::CountTokens, Dialect::Anthropic),
        ("responses", "input_tokens") => openai(Endpoint::CountTokens),
        ("api", "chat" | "generate") => (Endpoint::Ollama, Dialect::Ollama),
        ("api", "embed" | "embeddings") => (Endpoint::OllamaEmbed, Dialect::Ollama),
        ("v1" | "v2", "chat") => (Endpoint::CohereChat, Dialect::Cohere),
        ("v1" | "v2", "embed") => (Endpoint::CohereEmbed, Dialect::Cohere),
        ("images", "generations" | "edits" | "variations") => openai(Endpoint::Images),
        ("audio", "speech") => openai(Endpoint::Speech),
        ("audio", "transcriptions" | "translations") => openai(Endpoint::Transcriptions),
        (_, "completions") => openai(Endpoint::Completions),
        (_, "responses") => openai(Endpoint::Responses),
        (_, "embeddings") => openai(Endpoint::Embeddings),
        (_, "moderations") => openai(Endpoint::Moderations),
        ("v2", "rerank") => (Endpoint::Rerank, Dialect::Cohere),
        (_, "rerank") => openai(Endpoint::Rerank),
        (_, "batches" | "files" | "uploads" | "fine-tunes") => openai(Endpoint::Deferred),
        ("v1", "messages") => (Endpoint::AnthropicMessages, Dialect::Anthropic),
        ("v1", "complete") => (Endpoint::AnthropicComplete, Dialect::Anthropic),
        (_, "interactions") => (Endpoint::Interactions, Dialect::Gemini),
        _ => openai(Endpoint::Other),
    }
}

/// The path segment that follows `mark`.
fn after<'u>(path: &'u str, mark: &str) -> Option<&'u str> {
    let (_, rest) = path.split_once(mark)?;
    rest.split('/').next().filter(|s| !s.is_empty())
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| char::from(*bytes.get(i)?).to_digit(16);
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_way_leads_where_the_long_one_does() {
        for path in [
            "/v1/chat/completions",
            "/v1/responses",
            "/v1/embeddings",
            "/v1/messages",
        ] {
            assert_eq!(common(path), Some(by_tail(path)), "{path}");
            assert!(by_model(path).is_none() && after(path, "/deployments/").is_none());
        }
    }

    #[test]
    fn paths_tell_endpoint_model_and_stream() {
        use Dialect as D;
        use Endpoint as E;
        for (path, endpoint, dialect, model, stream) in [
            (
                "/v1/chat/completions",
                E::ChatCompletions,
                D::OpenAi,
                None,
                false,
            ),
            ("/v1/completions", E::Completions, D::OpenAi, None, false),
            (
                "/openai/v1/responses?x=1",
                E::Responses,
                D::OpenAi,
                None,
                false,
            ),
            (
                "//openai/deployments/a%20b/embeddings",
                E::Embeddings,
                D::Azure,
                Some("a b"),
                false,
            ),
            (
                "/v1/messages",
                E::AnthropicMessages,
                D::Anthropic,
                None,
                false,
            ),
            ("/v1/threads/t/messages", E::Other, D::OpenAi, None, false),
            (
                "/v1/messages/batches",
                E::Deferred,
                D::Anthropic,
                None,
                false,
            ),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict",
                E::AnthropicMessages,
                D::Anthropic,
                Some("claude@1"),
                true,
            ),
            (
                "/v1beta/models/gemini-x:generateContent",
                E::GenerateContent,
                D::Gemini,
                Some("gemini-x"),
                false,
            ),
            (
                "/v1beta/models/g:streamGenerateContent?alt=sse",
                E::GenerateContent,
                D::Gemini,
                Some("g"),
                true,
            ),
            (
                "/model/us.a.b-v1%3A0/converse-stream",
                E::Converse,
                D::Bedrock,
                Some("us.a.b-v1:0"),
                true,
            ),
            (
                "/model/arn:aws:bedrock:x/y/invoke",
                E::Invoke,
                D::Bedrock,
                Some("arn:aws:bedrock:x/y"),
                false,
            ),
            ("/api/chat", E::Ollama, D::Ollama, None, false),
            (
                "/api/v1/chat/completions",
                E::ChatCompletions,
                D::OpenAi,
                None,
                false,
            ),
            ("/v2/chat", E::CohereChat, D::Cohere, None, false),
            (
                "/models/org/name",
                E::HuggingFace,
                D::HuggingFace,
                Some("org/name"),
                false,
            ),
            (
                "/models/chat/completions",
                E::ChatCompletions,
                D::OpenAi,
                None,
                false,
            ),
            ("/v1/files", E::Deferred, D::OpenAi, None, false),
            ("/", E::Other, D::OpenAi, None, false),
        ] {
            let uri: Uri = path.parse().unwrap();
            let route = route(&Method::POST, &uri);
            assert_eq!(route.endpoint, endpoint, "{path}");
            assert_eq!(route.dialect, dialect, "{path}");
            assert_eq!(route.model.as_deref(), model, "{path}");
            assert_eq!(route.stream, stream, "{path}");
            let span = model_in_path(&Method::POST, &uri);
            let raw = span.map(|span| percent_decode(&uri.path()[span]).into_owned());
            assert_eq!(raw.as_deref(), model, "{path}");
        }
    }
}
