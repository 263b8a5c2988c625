//! The head of a request document: what limits, prices and rewrites need to know of it.
use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri, header, uri::PathAndQuery};

mod edit;
mod endpoint;
mod multipart;
mod read;

pub use edit::{ask_for_usage, insert_value, remove_value, rename_key, replace_value};
pub use endpoint::{Endpoint, endpoint, model_in_path};

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

/// What a request may need that not every model can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Capability {
    /// Answers as a stream.
    Streaming,
    /// Tools or functions that the request defines.
    Tools,
    /// An answer that follows a JSON schema.
    JsonSchema,
    /// Images in the prompt.
    Vision,
    /// Going on with the beginning of an answer, which stands at the end of the prompt ("prefill").
    Prefill,
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
    /// Bytes of tool definitions and answer schemas, which are input too.
    pub tool_chars: u64,
    /// Messages in the prompt.
    pub messages: u32,
    /// Images in the prompt.
    pub images: u32,
    /// Tools or functions are defined.
    pub tools: bool,
    /// The answer is to follow a JSON schema.
    pub json_schema: bool,
    /// The last message is the model's own: the beginning of the answer, to be gone on with.
    pub prefill: bool,
    /// `background: true` (Responses): the answer is only an acknowledgement.
    pub background: bool,
    /// The document names stored state of its origin (`previous_response_id`, file or container ids).
    pub pinned: bool,
    /// `safety_identifier`, `user`, `metadata.user_id`: whom the caller says it acts for.
    pub user: Option<Arc<str>>,
    /// Length of the document in bytes.
    pub body_len: u64,
    dialect: Dialect,
    source: Bytes,
    path: Option<PathAndQuery>,
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

    /// Whether these facts describe these very bytes (same memory, same length) sent to this path.
    ///
    /// A foreign layer may have replaced the body or the path; then the facts are read again. Only
    /// the address of the bytes is compared, so those kept here are never sent in place of the body.
    #[must_use]
    pub fn describe(&self, uri: &Uri, body: &Bytes) -> bool {
        self.0.source.as_ptr() == body.as_ptr()
            && self.0.source.len() == body.len()
            && self.0.path.as_ref().map(PathAndQuery::path)
                == uri.path_and_query().map(PathAndQuery::path)
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
    ///
    /// # Examples
    ///
    /// ```
    /// use bytes::Bytes;
    /// use http::{HeaderMap, Method, Uri};
    /// use tollgate_core::wire::prompt::{Endpoint, RequestFacts};
    ///
    /// let uri = Uri::from_static("/v1/chat/completions");
    /// let body = r#"{"model":"gpt-5","max_tokens":64,"messages":[{"role":"user","content":"Grüße"}]}"#;
    /// let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &Bytes::from(body));
    ///
    /// assert_eq!(facts.endpoint, Endpoint::ChatCompletions);
    /// assert_eq!(facts.model.as_deref(), Some("gpt-5"));
    /// assert_eq!(facts.max_output_tokens, Some(64));
    /// assert_eq!(facts.prompt_chars, 5);
    /// ```
    #[must_use]
    pub fn read(method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Self {
        let mut facts = Self::of_path(method, uri);
        facts.body_len = body.len() as u64;
        facts.source = body.clone();
        facts.path = uri.path_and_query().cloned();
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        // A coded document says nothing; the provider will decode it.
        if header(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return facts;
        }
        match header(header::CONTENT_TYPE) {
            Some(kind) if kind.starts_with("multipart/") => read::form(&mut facts, kind, body),
            _ if facts.endpoint != Endpoint::Other => {
                read::document(&mut facts, uri.path(), body, |_| {});
            }
            _ => {}
        }
        facts
    }

    /// Facts of a request whose body cannot be read: only what method and path tell.
    #[must_use]
    pub fn of_path(method: &Method, uri: &Uri) -> Self {
        let route = endpoint::route(method, uri);
        let mut facts = Self::unread(route.endpoint);
        facts.dialect = route.dialect;
        facts.stream = route.stream;
        if let Some(model) = route.model {
            facts.model = Some(model.into());
            facts.model_in = Some(ModelIn::Path);
        }
        facts
    }

    /// Whose shapes the request speaks.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the model must be able to do this.
    ///
    /// ```
    /// use http::{HeaderMap, Method, Uri};
    /// use tollgate_core::wire::prompt::{Capability, RequestFacts};
    ///
    /// let body = r#"{"tools":[{"type":"function"}],"messages":[{"role":"user","content":"Hi"}]}"#;
    /// let uri = Uri::from_static("/v1/chat/completions");
    /// let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body.into());
    /// assert!(facts.needs(Capability::Tools) && !facts.needs(Capability::Vision));
    /// ```
    #[must_use]
    pub fn needs(&self, capability: Capability) -> bool {
        match capability {
            Capability::Streaming => self.stream,
            Capability::Tools => self.tools,
            Capability::JsonSchema => self.json_schema,
            Capability::Vision => self.images > 0,
            Capability::Prefill => self.prefill,
        }
    }

    /// How many answers are generated, and each of them up to the output cap: of a legacy completion
    /// `n` for each of its prompts.
    ///
    /// ```
    /// use http::{HeaderMap, Method, Uri};
    /// use tollgate_core::wire::prompt::RequestFacts;
    ///
    /// let body = r#"{"prompt":["a","b","c"],"n":2,"max_tokens":16}"#;
    /// let uri = Uri::from_static("/v1/completions");
    /// let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body.into());
    /// assert_eq!(facts.generated(), 6);
    /// ```
    #[must_use]
    pub fn generated(&self) -> u64 {
        let prompts = match self.endpoint {
            Endpoint::Completions => self.inputs.unwrap_or(1).max(1),
            _ => 1,
        };
        u64::from(self.answers.max(1)) * u64::from(prompts)
    }

    /// Calls `each` with every text of the prompt, unescaped, in the order of the document: the very strings whose
    /// characters [`prompt_chars`](Self::prompt_chars) counts.
    ///
    /// Walks the document again, for nothing of it is kept but sizes. `false`: that was not all of it (the fields of a
    /// form are not walked), so what was counted of it says nothing.
    ///
    /// ```
    /// use http::{HeaderMap, Method, Uri};
    /// use tollgate_core::wire::prompt::RequestFacts;
    ///
    /// let body = r#"{"messages":[{"role":"user","content":"Gr\u00fc\u00dfe"}]}"#;
    /// let uri = Uri::from_static("/v1/chat/completions");
    /// let facts = RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body.into());
    /// let mut seen = Vec::new();
    /// assert!(facts.each_text(|text| seen.push(text.to_owned())));
    /// assert_eq!(seen, ["Grüße"]);
    /// ```
    #[must_use = "if it was not all, what was counted says nothing"]
    pub fn each_text(&self, mut each: impl FnMut(&str)) -> bool {
        if self.prompt_chars == 0 {
            return true;
        }
        let mut again = Self::unread(self.endpoint);
        read::document(&mut again, "", &self.source, |text| each(&text.to_str()));
        again.prompt_chars == self.prompt_chars
    }

    /// The same facts in another dialect, where the path misleads.
    #[must_use]
    pub fn with_dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// The same facts of the document as [`ask_for_usage`] made it, without reading it again.
    #[must_use]
    pub fn asking_for_usage(&self, body: &Bytes) -> Self {
        Self {
            include_usage: Some(true),
            body_len: body.len() as u64,
            source: body.clone(),
            ..self.clone()
        }
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
            tool_chars: 0,
            messages: 0,
            images: 0,
            tools: false,
            json_schema: false,
            prefill: false,
            background: false,
            pinned: false,
            user: None,
            body_len: 0,
            dialect: Dialect::OpenAi,
            source: Bytes::new(),
            path: None,
        }
    }
}

#[cfg(test)]
mod tests;
