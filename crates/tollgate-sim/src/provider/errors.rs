//! Error documents as the real providers write them.
use std::time::Duration;

use http::StatusCode;
use serde_json::json;

use super::ask::Endpoint;
use crate::{books::nanos, limit::Unit, wall::go_duration};

/// An error before it takes the provider's shape.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) status: u16,
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<&'static str>,
    pub(crate) text: String,
}

impl Trouble {
    fn new(status: u16, kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            code: None,
            param: None,
            text: text.into(),
        }
    }

    fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    fn param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// The error document, in the dialect of the endpoint.
    pub(crate) fn document(&self, endpoint: Endpoint, request_id: &str) -> String {
        if endpoint == Endpoint::Messages {
            json!({
                "type": "error",
                "error": {"type": self.kind, "message": self.text},
                "request_id": request_id,
            })
            .to_string()
        } else {
            let error = self.openai();
            format!("{:#}", json!({ "error": error }))
        }
    }

    /// The event that stands for it in a stream.
    pub(crate) fn event(&self, endpoint: Endpoint) -> String {
        match endpoint {
            Endpoint::Messages => {
                let error = json!({"type": self.kind, "message": self.text});
                let data = json!({"type": "error", "error": error});
                format!("event: error\ndata: {data}\n\n")
            }
            Endpoint::Responses => {
                let (code, text) = (self.code.unwrap_or(self.kind), &self.text);
                let error = json!({"type": "error", "sequence_number": 1, "code": code, "message": text, "param": null});
                let failed = json!({"type": "response.failed", "sequence_number": 2, "response": {
                    "id": "resp_sim", "object": "response", "status": "failed", "output": [], "usage": null,
                    "error": {"code": code, "message": text},
                }});
                format!("event: error\ndata: {error}\n\nevent: response.failed\ndata: {failed}\n\n")
            }
            _ => format!("data: {}\n\n", json!({"error": self.openai()})),
        }
    }

    fn openai(&self) -> serde_json::Value {
        json!({"message": self.text, "type": self.kind, "param": self.param, "code": self.code})
    }
}

/// A limit that refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) model: &'a str,
    pub(crate) unit: Unit,
    pub(crate) window: Duration,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) requested: u64,
    /// `None`: the text states no wait.
    pub(crate) wait: Option<Duration>,
    pub(crate) never: bool,
}

impl Over<'_> {
    pub(crate) fn trouble(&self) -> Trouble {
        let Self {
            model,
            limit,
            used,
            requested,
            ..
        } = *self;
        let day = self.window >= Duration::from_secs(86_400);
        let (per, last) = if day { ("day", 'D') } else { ("min", 'M') };
        let (noun, letter) = match self.unit {
            Unit::Requests => ("requests", "R"),
            Unit::Tokens => ("tokens", "T"),
            Unit::InputTokens => ("input tokens", "IT"),
            Unit::OutputTokens => ("output tokens", "OT"),
        };
        if self.endpoint == Endpoint::Messages {
            let per = if day { "day" } else { "minute" };
            let limit = grouped(limit);
            return Trouble::new(
                429,
                "rate_limit_error",
                format!(
                    "This request would exceed your organization's rate limit of {limit} {noun} per {per} (org: \
                 00000000-0000-0000-0000-000000000000, model: {model}). For details, refer to: \
                 https://docs.claude.com/en/api/rate-limits. You can see the response headers for current usage. \
                 Please reduce the prompt length or the maximum tokens requested, or try again later."
                ),
            );
        }
        let of = format!(
            "for {model} in organization org-sim on {noun} per {per} ({letter}P{last}): Limit {limit}"
        );
        let more = "Visit https://platform.openai.com/account/rate-limits to learn more.";
        let text = if self.never {
            format!(
                "Request too large {of}, Requested {requested}. The input or output tokens must be reduced in order \
                 to run successfully. {more}"
            )
        } else if let Some(wait) = self.wait {
            let wait = go_duration(nanos(wait));
            format!(
                "Rate limit reached {of}, Used {used}, Requested {requested}. Please try again in {wait}. {more}"
            )
        } else {
            format!("Rate limit reached {of}, Used {used}, Requested {requested}. {more}")
        };
        let kind = match self.unit {
            Unit::Requests => "requests",
            _ => "tokens",
        };
        Trouble::new(429, kind, text).code("rate_limit_exceeded")
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn quota(endpoint: Endpoint) -> Trouble {
    if endpoint == Endpoint::Messages {
        let text = "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to \
                    upgrade or purchase credits.";
        return Trouble::new(400, "invalid_request_error", text);
    }
    let text = "You exceeded your current quota, please check your plan and billing details. For more information on \
                this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors.";
    Trouble::new(429, "insufficient_quota", text).code("insufficient_quota")
}

pub(crate) fn overloaded(endpoint: Endpoint) -> Trouble {
    of_status(
        endpoint,
        if endpoint == Endpoint::Messages {
            529
        } else {
            503
        },
    )
}

/// The usual document of a status.
pub(crate) fn of_status(endpoint: Endpoint, status: u16) -> Trouble {
    if endpoint == Endpoint::Messages {
        let (kind, text) = match status {
            401 => ("authentication_error", "invalid x-api-key"),
            402 => ("billing_error", "Your billing information is out of date"),
            403 => (
                "permission_error",
                "Your API key does not have permission to use this resource",
            ),
            404 => ("not_found_error", "Not found"),
            409 => ("conflict_error", "Conflict"),
            413 => ("request_too_large", "Request exceeds the maximum size"),
            429 => (
                "rate_limit_error",
                "Number of request tokens has exceeded your rate limit",
            ),
            529 => ("overloaded_error", "Overloaded"),
            504 => ("timeout_error", "Request timed out"),
            500.. => ("api_error", "Internal server error"),
            _ => ("invalid_request_error", "Invalid request"),
        };
        return Trouble::new(status, kind, text);
    }
    match status {
        401 => Trouble::new(401, "invalid_request_error", "Incorrect API key provided: sk-***. You can find your API key at https://platform.openai.com/account/api-keys.").code("invalid_api_key"),
        403 => Trouble::new(403, "invalid_request_error", "You are not allowed to sample from this model"),
        404 => Trouble::new(404, "invalid_request_error", "Invalid URL"),
        429 => Trouble::new(429, "requests", "Rate limit reached").code("rate_limit_exceeded"),
        503 | 529 => Trouble::new(status, "service_unavailable_error", "The engine is currently overloaded, please try again later").code("server_is_overloaded"),
        500.. => Trouble::new(status, "server_error", "The server had an error while processing your request. Sorry about that!").code("server_error"),
        _ => {
            let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
            Trouble::new(status, "invalid_request_error", reason.unwrap_or("Invalid request"))
        }
    }
}

pub(crate) fn invalid(endpoint: Endpoint, what: &'static str) -> Trouble {
    let text = match endpoint {
        Endpoint::Messages => what.to_owned(),
        _ => format!("We could not parse the JSON body of your request: {what}."),
    };
    Trouble::new(400, "invalid_request_error", text)
}

pub(crate) fn no_such_model(endpoint: Endpoint, model: &str) -> Trouble {
    match endpoint {
        Endpoint::Messages => Trouble::new(404, "not_found_error", format!("model: {model}")),
        // The Responses endpoint really says 400.
        Endpoint::Responses => Trouble::new(
            400,
            "invalid_request_error",
            format!("The requested model '{model}' does not exist."),
        )
        .code("model_not_found")
        .param("model"),
        _ => Trouble::new(
            404,
            "invalid_request_error",
            format!("The model `{model}` does not exist or you do not have access to it."),
        )
        .code("model_not_found"),
    }
}

pub(crate) fn too_long(endpoint: Endpoint, input: u64, cap: Option<u64>, context: u64) -> Trouble {
    let cap = cap.unwrap_or(0);
    let text = match endpoint {
        Endpoint::Messages if input > context => format!("prompt is too long: {input} tokens > {context} maximum"),
        Endpoint::Messages => format!(
            "input length and `max_tokens` exceed context limit: {input} + {cap} > {context}, decrease input length or \
             `max_tokens` and try again"
        ),
        Endpoint::Responses => {
            "Your input exceeds the context window of this model. Please adjust your input and try again.".to_owned()
        }
        _ if input > context => format!(
            "This model's maximum context length is {context} tokens. However, your messages resulted in {input} \
             tokens. Please reduce the length of the messages."
        ),
        _ => format!(
            "This model's maximum context length is {context} tokens. However, you requested {} tokens ({input} in the \
             messages, {cap} in the completion). Please reduce the length of the messages or completion.",
            input + cap
        ),
    };
    let trouble = Trouble::new(400, "invalid_request_error", text);
    match endpoint {
        Endpoint::Messages => trouble,
        Endpoint::Responses => trouble.code("context_length_exceeded").param("input"),
        _ => trouble.code("context_length_exceeded").param("messages"),
    }
}
