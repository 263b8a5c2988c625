//! The class of an error, from status, type, code and text together.
//!
//! No one of them is enough: servers answer 500 for a prompt that is too long, 400 for a bad key, 429 for an empty
//! account, 404 for a model that exists but not here. The order of the rules is what makes them right: the narrow ones
//! come first.
use http::header;

use super::{Code, Document, Head};
use crate::wire::outcome::ErrorClass as Class;

/// All that is known of an error, in lower case.
struct Case<'c> {
    status: u16,
    text: &'c str,
    words: Vec<String>,
    head: Head<'c>,
}

pub(super) fn classify(error: &Document<'_>, head: Head<'_>) -> Class {
    let amazon = head
        .headers
        .get("x-amzn-errortype")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(':').next());
    let code = match &error.code {
        Some(Code::Word(word)) => Some(&**word),
        _ => None,
    };
    let words: Vec<String> = [
        error.kind.as_deref(),
        code,
        error.status_word.as_deref(),
        amazon,
    ]
    .into_iter()
    .flatten()
    .chain(error.inner.iter().map(|w| &**w))
    .map(str::to_ascii_lowercase)
    .collect();
    let said = error.status.filter(|s| (400..600).contains(s));
    let status = match head.status.as_u16() {
        status @ 400.. => status,
        // An error inside of a 200: the status that it states, or that its words stand for.
        _ => said
            .or_else(|| words.iter().find_map(|w| status_of(w)))
            .unwrap_or(500),
    };
    let case = Case {
        status,
        text: &error.message,
        words,
        head,
    };
    case.class(error)
}

/// The status that a word stands for.
fn status_of(word: &str) -> Option<u16> {
    Some(match word {
        "rate_limit_exceeded"
        | "rate_limit_error"
        | "rate_limited"
        | "rate_limit"
        | "model_rate_limit"
        | "resource_exhausted" => 429,
        w if w.starts_with("too_many_requests") || throttles(w) => 429,
        "overloaded_error" | "server_is_overloaded" | "unavailable" | "slow_down" => 503,
        w if w.starts_with("service_unavailable") || w.starts_with("serviceunavailable") => 503,
        "timeout_error" | "deadline_exceeded" | "modeltimeoutexception" => 504,
        "authentication_error" | "invalid_api_key" | "unauthenticated" => 401,
        "billing_error" => 402,
        "permission_error" | "permission_denied" | "accessdeniedexception" => 403,
        "not_found_error" | "not_found" | "resourcenotfoundexception" => 404,
        "request_too_large" => 413,
        "server_error"
        | "api_error"
        | "internal_server_error"
        | "internal"
        | "internalserverexception"
        | "modelstreamerrorexception" => 500,
        w if w.starts_with("invalid_") || w == "invalid" || w == "validationexception" => 400,
        _ => return None,
    })
}

/// The codes that mean throttling at AWS.
fn throttles(word: &str) -> bool {
    matches!(
        word,
        "throttling"
            | "throttlingexception"
            | "throttledexception"
            | "requestthrottledexception"
            | "toomanyrequestsexception"
            | "provisionedthroughputexceededexception"
            | "requestlimitexceeded"
            | "bandwidthlimitexceeded"
            | "limitexceededexception"
            | "requestthrottled"
            | "slowdown"
            | "priorrequestnotcomplete"
            | "ec2throttledexception"
    )
}

impl Case<'_> {
    fn says(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.text.contains(word))
    }

    /// The same for what stands behind a place in the text.
    fn says_after(&self, at: usize, words: &[&str]) -> bool {
        words.iter().any(|word| self.text[at..].contains(word))
    }

    fn named(&self, words: &[&str]) -> bool {
        self.words.iter().any(|have| words.contains(&have.as_str()))
    }

    fn class(&self, error: &Document<'_>) -> Class {
        if self.is_generation() {
            Class::GenerationFailed
        } else if self.is_auth() {
            Class::Auth
        } else if self.is_quota() {
            Class::QuotaExhausted
        } else if self.status == 429 || self.words.iter().any(|w| throttles(w)) {
            self.limited()
        } else if self.is_filtered() {
            Class::ContentFiltered
        } else if self.is_context() {
            Class::ContextLength
        } else if self.is_too_large() {
            // Groq says 413 where OpenAI says 429 for the very same thing.
            if self.named(&["rate_limit_exceeded"]) {
                Class::LimitTooSmall
            } else {
                Class::RequestTooLarge
            }
        } else if self.says(&["no endpoints found that support"]) {
            Class::NotSupported
        } else if self.is_model(error) {
            Class::ModelNotFound
        } else if self.is_model_not_allowed() {
            Class::ModelNotAllowed
        } else if self.is_place() {
            Class::Permission
        } else if self.is_not_supported() {
            Class::NotSupported
        } else {
            self.by_status()
        }
    }

    fn is_generation(&self) -> bool {
        self.named(&[
            "tool_use_failed",
            "json_validate_failed",
            "output_parse_failed",
        ]) || self.says(&["no valid response generated"])
    }

    fn is_auth(&self) -> bool {
        self.status == 401
            || self.named(&[
                "invalid_api_key",
                "authentication_error",
                "unauthenticated",
                "api_key_invalid",
                "unrecognizedclientexception",
                "invalidsignatureexception",
                "expiredtokenexception",
                "incompletesignature",
                "missingauthenticationtoken",
            ])
            || (self.status < 500
                && self.status != 429
                && self.says(&[
                    "incorrect api key",
                    "invalid api key",
                    "api key not valid",
                    "api key expired",
                    "api key is invalid",
                    "invalid api-key",
                    "no api key",
                    "missing api key",
                    "security token included in the request is",
                ]))
    }

    fn is_quota(&self) -> bool {
        if self.named(&["openrouter_in_flight_budget"]) {
            return false;
        }
        let is_word = |w: &String| {
            matches!(
                w.as_str(),
                "insufficient_quota"
                    | "billing_hard_limit_reached"
                    | "billing_not_active"
                    | "billing_error"
                    | "credit_balance_exhausted"
                    | "insufficient_balance"
                    | "insufficient_credits"
                    | "budget_exceeded"
                    | "exceededbudget"
                    | "organization_usage_limit_exceeded"
            ) || w.contains("spend_limit")
        };
        self.status == 402
            || self.words.iter().any(is_word)
            || self.says(&[
                "insufficient balance",
                "insufficient credits",
                "credit balance is too low",
                "billing hard limit",
                "reached your specified api usage limits",
                "budget has been exceeded",
                "depleted your monthly included credits",
                "used all available credits",
                "run out of credits",
            ])
            // The same sentence is Google's for an ordinary rate limit.
            || (self.says(&["exceeded your current quota, please check your plan"])
                && !self.named(&["resource_exhausted"]))
    }

    fn limited(&self) -> Class {
        let overloaded = self.named(&["1305", "modelnotreadyexception", "server_is_overloaded"])
            || self.words.iter().any(|w| w.contains("overloaded"))
            || self.says(&["overloaded", "resource unavailable", "at capacity"]);
        if overloaded {
            return Class::Overloaded;
        }
        // Anthropic's sentence is the same whether waiting helps or not; only the header tells.
        let hopeless = self.header_is("x-should-retry", "false")
            && !self.head.headers.contains_key(header::RETRY_AFTER)
            && !self.head.headers.contains_key("retry-after-ms");
        if hopeless || self.says(&["request too large", "limit: 0,", "limit: 0\n", "limit 0,"]) {
            return Class::LimitTooSmall;
        }
        Class::RateLimited
    }

    fn header_is(&self, name: &str, value: &str) -> bool {
        let header = self.head.headers.get(name);
        header.is_some_and(|have| have.as_bytes().eq_ignore_ascii_case(value.as_bytes()))
    }

    fn is_filtered(&self) -> bool {
        self.named(&[
            "content_policy_violation",
            "moderation_blocked",
            "content_filter",
            "invalid_prompt",
            "bio_policy",
            "responsibleaipolicyviolation",
            "sexual_content",
            "data_inspection_failed",
        ]) || self.says(&[
            "content management policy",
            "safety system",
            "content filtering policy",
            "usage policy",
            "usage policies",
            "content policy",
            "flagged for moderation",
            "requires moderation",
            "data may contain inappropriate content",
            "usage guidelines",
        ]) || (matches!(self.status, 400 | 403) && self.says(&["flagged"]))
    }

    fn is_context(&self) -> bool {
        self.named(&[
            "context_length_exceeded",
            "exceed_context_size_error",
            "too_many_prompt_tokens",
            "too_many_tokens",
        ]) || self.says(&[
            "maximum context length",
            "context window",
            "context size",
            "context limit",
            "context length",
            "prompt is too long",
            "input is too long",
            "input is too large to process",
            "input tokens exceed",
            "tokens exceeds the maximum",
            "exceeds the maximum number of tokens",
            "maximum number of tokens allowed",
            "maximum prompt length",
            "reduce the length of the",
            "too many tokens",
            "too long for the model",
            "exceeds model's maximum",
            "tokens + `max_new_tokens` must be",
        ])
    }

    fn is_too_large(&self) -> bool {
        self.status == 413
            || self.named(&[
                "request_too_large",
                "3210",
                "max_tokens_per_request",
                "array_above_max_length",
            ])
            || self.says(&[
                "too many inputs",
                "payload too large",
                "request entity too large",
                "request payload size exceeds",
                "request too large",
                "exceeds the maximum size",
                "batch size is too large",
                "at most 100 requests can be in one batch",
                "max tokens per request",
            ])
    }

    fn is_model_not_allowed(&self) -> bool {
        self.named(&[
            "model_not_allowed",
            "model_not_available",
            "operationnotsupported",
        ]) || self.says(&[
            "not allowed to sample from this model",
            "access to the model",
            "access to model",
            "access to this model",
            "is not a chat model",
            "not supported in the v1/",
            "only supported in v1/",
            "on-demand throughput isn",
            "no allowed providers",
        ])
    }

    fn is_model(&self, error: &Document<'_>) -> bool {
        if self.named(&[
            "model_not_found",
            "invalid_model",
            "deploymentnotfound",
            "modelnotfound",
            "unknown_model",
            "model_deprecated",
            "model_decommissioned",
        ]) {
            return true;
        }
        if self.status >= 500 || self.status == 403 {
            return false;
        }
        let param = error.param.as_deref() == Some("model");
        let Some(subject) = self.text.find("model").or(param.then_some(0)) else {
            return false;
        };
        // The model must come first: "`temperature` is deprecated for this model" is about something else.
        let gone = self.says_after(
            subject,
            &[
                "not found",
                "does not exist",
                "doesn't exist",
                "not exist",
                "was removed",
                "has been removed",
                "deprecated",
                "decommissioned",
                "has been retired",
                "end of its life",
                "end of life",
                "model identifier is invalid",
                "no longer available",
            ],
        );
        let listed = self.says(&[
            "invalid model",
            "unknown model",
            "no such model",
            "not a valid model",
            "no endpoints found",
            "is not supported. supported models",
            "model is not supported",
        ]);
        // Anthropic's whole sentence is "model: NAME".
        let named_only = self.status == 404 && self.text.starts_with("model:");
        gone || listed || named_only
    }

    /// Not served where the caller is: another model does not help.
    fn is_place(&self) -> bool {
        self.named(&["unsupported_country_region_territory"])
            || self.says(&["location is not supported", "country, region, or territory"])
    }

    fn is_not_supported(&self) -> bool {
        self.status == 501
            || self.named(&[
                "not_supported_error",
                "unimplemented",
                "invalid_image_format",
            ])
            || ((self.status == 400 || self.status == 422 || self.status >= 500)
                && self.says(&["not support", "unsupported", "doesn't support"]))
    }

    fn by_status(&self) -> Class {
        match self.status {
            402 => Class::RateLimited,
            403 => Class::Permission,
            404 | 410 => Class::NotFound,
            408 | 504 | 524 => Class::Timeout,
            // A lock or a race at the server: the official clients try again.
            409 | 425 => Class::ServerError,
            424 => Class::ServerError,
            498 | 503 | 529 => Class::Overloaded,
            // Words first: some servers say 500 for what is a want of capacity.
            500.. if self.words.iter().any(|w| w.contains("overloaded")) => Class::Overloaded,
            500.. if self.says(&["overloaded", "at capacity"]) => Class::Overloaded,
            500.. => Class::ServerError,
            _ => Class::InvalidRequest,
        }
    }
}
