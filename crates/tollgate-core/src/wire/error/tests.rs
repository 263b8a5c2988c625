use std::time::SystemTime;

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::{Head, plain, read};
use crate::wire::outcome::ErrorClass::{self, *};

fn class(status: u16, header: &str, body: &str) -> ErrorClass {
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = header.split_once(": ") {
        let name = name.parse::<http::HeaderName>().unwrap();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
    }
    let head = Head {
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        now: Some(SystemTime::UNIX_EPOCH),
    };
    let document = read(body.as_bytes()).unwrap_or_else(|| plain(body.as_bytes()));
    document.judge(head).class
}

/// An OpenAI-like error document.
fn error(kind: &str, code: &str, message: &str) -> String {
    serde_json::json!({"error": {"message": message, "type": kind, "code": code, "param": null}})
        .to_string()
}

// R11, F09, F11, F12
#[test]
fn status_type_code_and_text_together_make_the_class() {
    let bedrock = "x-amzn-errortype: ThrottlingException:http://internal";
    let cases: &[(u16, &str, String, ErrorClass)] = &[
        // Rate, quota or never: the body of a 429 tells.
        (429, "retry-after: 2", error("tokens", "rate_limit_exceeded", "Rate limit reached"), RateLimited),
        (429, "", error("tokens", "rate_limit_exceeded", "Request too large for m: Limit 5, Requested 6"), LimitTooSmall),
        (429, "", error("insufficient_quota", "insufficient_quota", ""), QuotaExhausted),
        (429, "", error("x", "billing_hard_limit_reached", ""), QuotaExhausted),
        (429, "", error("x", "project_spend_limit_exceeded", ""), QuotaExhausted),
        (429, "", error("", "", "You exceeded your current quota, please check your plan and billing details."), QuotaExhausted),
        (429, "", error("rate_limit_error", "slow_down", "Slow down"), RateLimited),
        (429, "", error("", "1305", "The service may be temporarily overloaded"), Overloaded),
        (429, "x-should-retry: true", r#"{"type":"error","error":{"type":"rate_limit_error","message":"Number of concurrent connections has exceeded your rate limit"}}"#.into(), RateLimited),
        (429, "", r#"{"error":{"type":"rate_limit_error","message":"","details":{"error_code":"enforced_spend_limit_reached"}}}"#.into(), QuotaExhausted),
        (429, "", r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"Quota exceeded for metric: x, limit: 0, model: m"}}"#.into(), LimitTooSmall),
        (429, "", r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"You exceeded your current quota, please check your plan and billing details."}}"#.into(), RateLimited),
        (413, "", error("tokens", "rate_limit_exceeded", "Request too large for model"), LimitTooSmall),
        (400, bedrock, r#"{"message":"Too many tokens"}"#.into(), RateLimited),
        (498, "", error("", "capacity_exceeded", "flex"), Overloaded),
        // Money.
        (402, "", error("", "", "Insufficient Balance"), QuotaExhausted),
        (402, "", r#"{"error":{"code":402,"message":"","metadata":{"limit_source":"openrouter_in_flight_budget"}}}"#.into(), RateLimited),
        (400, "", error("invalid_request_error", "", "Your credit balance is too low to access the API."), QuotaExhausted),
        (400, "", error("budget_exceeded", "400", "Budget has been exceeded! Current cost: 1"), QuotaExhausted),
        // Too long, under any status.
        (400, "", error("invalid_request_error", "context_length_exceeded", ""), ContextLength),
        (400, "", r#"{"object":"error","message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens","type":"BadRequestError","code":400}"#.into(), ContextLength),
        (400, "", r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 3 tokens > 2 maximum"}}"#.into(), ContextLength),
        (400, "", error("invalid_request_error", "", "input length and `max_tokens` exceed context limit: 1 + 2 > 2"), ContextLength),
        (500, "", error("server_error", "", "input is too large to process. increase the physical batch size"), ContextLength),
        (400, "", r#"{"error":{"code":400,"status":"INVALID_ARGUMENT","message":"The input token count (2) exceeds the maximum number of tokens allowed (1)."}}"#.into(), ContextLength),
        (413, "", r#"{"type":"error","error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#.into(), RequestTooLarge),
        // Models.
        (404, "", error("invalid_request_error", "model_not_found", "The model `m` does not exist or you do not have access to it."), ModelNotFound),
        (404, "", error("invalid_request_error", "", "This is not a chat model and thus not supported in the v1/chat/completions endpoint."), ModelNotAllowed),
        (404, "", r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-0"}}"#.into(), ModelNotFound),
        (400, "", error("", "", "Model Not Exist"), ModelNotFound),
        (400, "", r#"{"object":"error","message":"Invalid model: m","type":"invalid_model","code":"1500"}"#.into(), ModelNotFound),
        (403, "", error("", "", "You are not allowed to sample from this model"), ModelNotAllowed),
        (404, "", r#"{"error":"model 'm' not found, try pulling it first"}"#.into(), ModelNotFound),
        (404, "", error("", "", "The model `m` has been deprecated"), ModelNotFound),
        (400, "", error("invalid_request_error", "", "`temperature` is deprecated for this model."), InvalidRequest),
        (404, "", "404 page not found".into(), NotFound),
        // Refused.
        (400, "", error("invalid_request_error", "content_policy_violation", ""), ContentFiltered),
        (400, "", r#"{"error":{"code":"content_filter","message":"x","innererror":{"code":"ResponsibleAIPolicyViolation"}}}"#.into(), ContentFiltered),
        (403, "", error("", "", "Content violates usage guidelines."), ContentFiltered),
        (403, "", r#"{"error":{"code":403,"message":"Your input was flagged"}}"#.into(), ContentFiltered),
        // Credentials and places.
        (401, "", String::new(), Auth),
        (400, "", r#"{"code":"invalid-argument","error":"Incorrect API key provided."}"#.into(), Auth),
        (403, "", error("permission_error", "", "no"), Permission),
        (400, "", r#"{"error":{"code":400,"status":"FAILED_PRECONDITION","message":"User location is not supported for the API use."}}"#.into(), Permission),
        // Features.
        (500, "", error("server_error", "", "image input is not supported"), NotSupported),
        (400, "", r#"{"error":"registry/m does not support tools"}"#.into(), NotSupported),
        // The provider.
        (503, "", error("service_unavailable_error", "server_is_overloaded", ""), Overloaded),
        (503, "", r#"{"error":"Model m is currently loading","estimated_time":20.0}"#.into(), Overloaded),
        (529, "", String::new(), Overloaded),
        (500, "", r#"{"type":"error","error":{"type":"api_error","message":"Internal server error"}}"#.into(), ServerError),
        (504, "", r#"{"error":{"code":504,"status":"DEADLINE_EXCEEDED","message":""}}"#.into(), Timeout),
        (408, "", String::new(), Timeout),
        (409, "", error("conflict_error", "", ""), ServerError),
        (502, "", "<html>rate limit</html>".into(), ServerError),
        // Under status 200 the words stand in for it.
        (200, "", r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#.into(), Overloaded),
        (200, "", r#"{"error":{"code":"rate_limit_exceeded","message":"","type":"too_many_requests"}}"#.into(), RateLimited),
        (200, "", r#"{"error":{"code":400,"message":"Provider returned error"}}"#.into(), InvalidRequest),
        (200, "", r#"{"error":{"message":"no","type":"invalid_request_error","param":null,"code":null}}"#.into(), InvalidRequest),
        (200, "", r#"{"error":"something broke"}"#.into(), ServerError),
        // The request.
        (400, "", error("invalid_request_error", "unknown_parameter", "Unknown parameter: 'x'."), InvalidRequest),
        (422, "", r#"{"detail":"Field required"}"#.into(), InvalidRequest),
        (400, "", error("invalid_request_error", "tool_use_failed", ""), GenerationFailed),
    ];
    for (status, header, body, want) in cases {
        assert_eq!(
            class(*status, header, body),
            *want,
            "{status} {header} {body}"
        );
    }
}

#[test]
fn what_is_no_error_is_none() {
    for body in [
        r#"{"error":null}"#,
        r#"{"error":{}}"#,
        r#"{"error":""}"#,
        r#"{"choices":[]}"#,
        "[]",
        "{}",
        "",
        "7",
        "text",
    ] {
        assert!(read(body.as_bytes()).is_none(), "{body}");
    }
    let greeting = read(br#"{"message":"Hello","type":"text"}"#).unwrap();
    assert!(
        !greeting.in_band,
        "a sentence is an error only under a status that says so"
    );
}

#[test]
fn no_text_is_kept() {
    let secret = "my secret prompt";
    let body = error(
        "invalid_request_error",
        "",
        &format!("prompt is too long: {secret}"),
    );
    let headers = HeaderMap::new();
    let head = Head {
        status: StatusCode::BAD_REQUEST,
        headers: &headers,
        now: None,
    };
    let kept = read(body.as_bytes()).unwrap().judge(head);
    assert!(!format!("{kept:?}").contains(secret));
}

proptest! {
    #[test]
    fn documents_of_any_words_never_panic(
        status in 100u16..999,
        kind: String, code: String, text in "(try again in |limit: )?\\PC{0,60}",
        noise: Vec<u8>,
    ) {
        let _ = class(status, "", &error(&kind, &code, &text));
        let _ = read(&noise).map(|d| d.retry_after(&HeaderMap::new(), None));
        let _ = plain(&noise);
    }
}
