//! Error answers of our own, in the shape of the provider that they stand for, so that its clients understand them.
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::wire::prompt::Endpoint;

/// An answer that the provider did not make: its status, a document in the provider's shape, and the headers that
/// belong to them. For gateways, which refuse more than the layers do.
///
/// `code` is for programs (`invalid_api_key`), `message` for people.
///
/// ```
/// use http::StatusCode;
/// use tollgate_core::{own_error, wire::prompt::Endpoint};
///
/// let status = StatusCode::PAYLOAD_TOO_LARGE;
/// let answer = own_error::respond(Endpoint::AnthropicMessages, status, "too_large", "At most 1 MiB", |body| body);
/// assert_eq!(answer.status(), 413);
/// assert!(answer.body().starts_with(br#"{"error":{"code":"too_large""#));
/// ```
pub fn respond<B>(
    endpoint: Endpoint,
    status: StatusCode,
    code: &'static str,
    message: &str,
    body: impl FnOnce(Bytes) -> B,
) -> Response<B> {
    let document = document(endpoint, status, code, message).to_string();
    let length = document.len();
    let mut response = Response::new(body(Bytes::from(document)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if matches!(endpoint, Endpoint::Converse | Endpoint::Invoke) {
        // AWS clients tell errors by this header and not by the document.
        let kind = HeaderValue::from_static(match status {
            StatusCode::TOO_MANY_REQUESTS => "ThrottlingException",
            StatusCode::BAD_REQUEST | StatusCode::LENGTH_REQUIRED => "ValidationException",
            StatusCode::GATEWAY_TIMEOUT => "ModelTimeoutException",
            _ => "ServiceUnavailableException",
        });
        headers.insert("x-amzn-errortype", kind);
    }
    response
}

fn document(endpoint: Endpoint, status: StatusCode, code: &'static str, message: &str) -> Value {
    // Between the last two lines: whose fault it is.
    let anthropic = matches!(
        endpoint,
        Endpoint::AnthropicMessages | Endpoint::AnthropicComplete
    );
    // Anthropic has words for more of them (its reference, "Errors").
    let kind = match status {
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::UNAUTHORIZED if anthropic => "authentication_error",
        StatusCode::FORBIDDEN if anthropic => "permission_error",
        StatusCode::NOT_FOUND if anthropic => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE if anthropic => "request_too_large",
        status if status.is_client_error() => "invalid_request_error",
        _ => "api_error",
    };
    match endpoint {
        Endpoint::AnthropicMessages | Endpoint::AnthropicComplete => json!({
            "type": "error",
            "error": { "type": kind, "message": message, "code": code },
        }),
        Endpoint::GenerateContent
        | Endpoint::EmbedContent
        | Endpoint::Predict
        | Endpoint::Interactions => json!({
            "error": {
                "code": status.as_u16(),
                "message": message,
                "status": match status {
                    StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
                    StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
                    StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
                    StatusCode::FORBIDDEN => "PERMISSION_DENIED",
                    StatusCode::NOT_FOUND => "NOT_FOUND",
                    status if status.is_client_error() => "INVALID_ARGUMENT",
                    _ => "UNAVAILABLE",
                },
                "reason": code,
            },
        }),
        Endpoint::Converse | Endpoint::Invoke | Endpoint::CohereChat | Endpoint::CohereEmbed => {
            json!({ "message": message, "code": code })
        }
        Endpoint::Ollama | Endpoint::OllamaEmbed | Endpoint::HuggingFace => {
            json!({ "error": message, "error_type": code })
        }
        _ => json!({
            "error": { "message": message, "type": kind, "param": null, "code": code },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::outcome::{Outcome, judge};

    #[test]
    fn what_we_say_is_read_as_a_rate_limit_in_every_shape() {
        for endpoint in [
            Endpoint::ChatCompletions,
            Endpoint::AnthropicMessages,
            Endpoint::GenerateContent,
            Endpoint::Converse,
            Endpoint::CohereChat,
            Endpoint::Ollama,
        ] {
            let status = StatusCode::TOO_MANY_REQUESTS;
            let said = respond(endpoint, status, "budget_exhausted", "used up", |body| body);
            let verdict = judge(
                status,
                said.headers(),
                Some(said.body()),
                std::time::SystemTime::UNIX_EPOCH,
            );
            let limited = matches!(
                verdict.outcome,
                Outcome::RateLimited {
                    never_fits: false,
                    ..
                }
            );
            assert!(limited, "{endpoint:?}: {verdict:?}");
        }
    }

    #[test]
    fn a_client_of_bedrock_finds_the_error_where_it_looks() {
        let status = StatusCode::TOO_MANY_REQUESTS;
        let said = respond(Endpoint::Converse, status, "c", "used up", |body| body);
        assert_eq!(said.headers()["x-amzn-errortype"], "ThrottlingException");
        let document: Value = serde_json::from_slice(said.body()).unwrap();
        assert_eq!(document["message"], "used up");
    }

    #[test]
    fn whose_fault_it_is_is_told() {
        let said = |endpoint, status| document(endpoint, status, "c", "m");
        let ours = said(Endpoint::GenerateContent, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ours["error"]["status"], "UNAVAILABLE");
        let theirs = said(Endpoint::AnthropicMessages, StatusCode::BAD_REQUEST);
        assert_eq!(theirs["error"]["type"], "invalid_request_error");
        let stranger = said(Endpoint::AnthropicMessages, StatusCode::UNAUTHORIZED);
        assert_eq!(stranger["error"]["type"], "authentication_error");
    }
}
