//! What is tried again, and what is not.
mod support;

use std::time::Duration;

use http::StatusCode;
use serde_json::json;
use support::*;
use tollgate_core::{
    call::Attempts,
    extensions::{Reason, Refused},
    wire::outcome::Outcome as Meaning,
};
use tollgate_retry::{GaveUp, GaveUpReason, RateLimitPolicy, Resend};
use tollgate_sim::{SimError, script::Reply};

// R11
#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_is_never_retried() {
    let by_code = json!({"error": {"message": "You exceeded your current quota, please check your plan and billing details.",
        "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}});
    let by_type = json!({"error": {"message": "no", "type": "insufficient_quota", "code": null}});
    let by_text = json!({"error": {"message": "You exceeded your current quota, please check your plan and billing details."}});
    for document in [by_code, by_type, by_text] {
        let seen = send_chat([Reply::status(429).json(document.clone()), ok()]).await;
        assert_eq!(seen.attempts(), 1, "{document}");
        let response = seen.response();
        assert_eq!(response.status(), 429);
        let gave_up = GaveUp::of(&response).unwrap();
        assert_eq!(gave_up.reason, GaveUpReason::Pointless);
        assert_eq!(
            Attempts::of(&response)[0].outcome,
            Some(Meaning::QuotaExhausted)
        );
        assert_eq!(bytes(response.into_body()).await, document.to_string());
    }
}

// R12
#[tokio::test(start_paused = true)]
async fn x_should_retry_false_is_obeyed() {
    let busy = Reply::status(503).header("x-should-retry", "false");
    let seen = send_chat([busy, ok()]).await;
    assert_eq!(seen.attempts(), 1);
    assert_eq!(seen.response().status(), 503);
}

// R12
#[tokio::test(start_paused = true)]
async fn x_should_retry_true_on_what_is_not_retried_is_obeyed_once() {
    let wrong = || Reply::status(400).header("x-should-retry", "true");
    let seen = send_chat([wrong(), ok()]).await;
    assert_eq!(seen.attempts(), 2);
    assert_eq!(seen.response().status(), 200);

    let seen = send_chat([wrong(), wrong(), ok()]).await;
    assert_eq!(seen.attempts(), 2, "once, not as long as it says so");
    assert_eq!(seen.response().status(), 400);
}

// R13
#[tokio::test(start_paused = true)]
async fn what_may_pass_is_retried() {
    for status in [408, 429, 500, 502, 503, 504, 529] {
        let seen = send_chat([Reply::status(status), ok()]).await;
        assert_eq!(seen.attempts(), 2, "{status}");
        assert_eq!(seen.response().status(), 200, "{status}");
    }
    for error in [SimError::Refused, SimError::Reset] {
        let seen = send_chat([Reply::transport_error(error), ok()]).await;
        assert_eq!(seen.attempts(), 2, "{error}");
        assert_eq!(seen.response().status(), 200, "{error}");
    }
}

// R13
#[tokio::test(start_paused = true)]
async fn what_cannot_pass_is_not_retried() {
    for status in [400, 401, 403, 404, 422] {
        let seen = send_chat([Reply::status(status), ok()]).await;
        assert_eq!(seen.attempts(), 1, "{status}");
        assert_eq!(seen.response().status().as_u16(), status);
    }
}

// R13
#[tokio::test(start_paused = true)]
async fn the_last_transport_error_is_the_inner_services_own() {
    let seen = send_chat([
        Reply::transport_error(SimError::Refused),
        Reply::status(500),
        Reply::transport_error(SimError::Reset),
    ])
    .await;
    assert_eq!(seen.attempts(), 3);
    assert_eq!(seen.result.unwrap_err(), SimError::Reset);
}

// R14
#[tokio::test(start_paused = true)]
async fn what_may_have_been_served_is_sent_again_only_if_the_policy_allows_it() {
    let lost = || [Reply::transport_error(SimError::Reset), ok()];
    let strict = || RateLimitPolicy::new().resend(Resend::OnlyUnsent);

    let seen = send(strict(), chat(), lost()).await;
    assert_eq!(seen.attempts(), 1, "{:?}", Resend::OnlyUnsent);
    assert_eq!(seen.stats.snapshot().gave_up(GaveUpReason::MaybeServed), 1);
    assert_eq!(seen.result.unwrap_err(), SimError::Reset);

    let refused = [Reply::transport_error(SimError::Refused), ok()];
    let seen = send(strict(), chat(), refused).await;
    assert_eq!(seen.attempts(), 2, "nothing was sent the first time");

    let seen = send(strict(), chat(), [Reply::status(408), ok()]).await;
    assert_eq!(seen.attempts(), 1, "it may have been served");

    let seen = send(RateLimitPolicy::new(), chat(), lost()).await;
    let attempts = seen.provider.attempts();
    assert_eq!(attempts.len(), 2);
    let key = attempts[0].header("idempotency-key").unwrap();
    assert_eq!(key.len(), 36, "a UUID: {key}");
    assert_eq!(attempts[1].header("idempotency-key"), Some(key));
}

// R14
#[tokio::test(start_paused = true)]
async fn a_job_that_runs_elsewhere_is_never_sent_twice_once_it_was_sent() {
    let background = BODY.replacen('{', r#"{"background":true,"#, 1);
    let requests = || {
        [
            post("/v1/responses", background.clone()),
            post("/v1/batches", r#"{"input_file_id":"file-1"}"#),
            post(
                "/v1/fine_tuning/jobs",
                r#"{"model":"m","training_file":"f"}"#,
            ),
        ]
    };
    for request in requests() {
        let path = request.uri().path().to_owned();
        let lost = [Reply::transport_error(SimError::Reset), ok()];
        let seen = send(RateLimitPolicy::new(), request, lost).await;
        assert_eq!(seen.attempts(), 1, "{path}");
    }
    for request in requests() {
        let path = request.uri().path().to_owned();
        let refused = [Reply::transport_error(SimError::Refused), ok()];
        let seen = send(RateLimitPolicy::new(), request, refused).await;
        assert_eq!(seen.attempts(), 2, "{path}: nothing was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_idempotency_key_is_kept() {
    let mut request = chat();
    let own = http::HeaderValue::from_static("mine");
    request.headers_mut().insert("idempotency-key", own);
    let seen = send(RateLimitPolicy::new(), request, [Reply::status(500), ok()]).await;
    for attempt in seen.provider.attempts() {
        assert_eq!(attempt.header("idempotency-key"), Some("mine"));
    }
    let plain = RateLimitPolicy::new().idempotency_key(false);
    let seen = send(plain, chat(), [ok()]).await;
    assert_eq!(seen.provider.attempts()[0].header("idempotency-key"), None);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_our_own_passes_and_is_not_waited_on() {
    let refused = Refused::new(Reason::WaitTooLong).retry_after(Duration::from_secs(1));
    let ours = Reply::status(429)
        .header("retry-after", "1")
        .extension(refused);
    let seen = send_chat([ours, ok()]).await;
    assert_eq!(seen.attempts(), 1);
    let response = seen.response();
    assert!(Refused::of(&response).is_some());
    assert!(GaveUp::of(&response).is_none());
}

// R23
#[tokio::test(start_paused = true)]
async fn the_last_answer_is_handed_on_whole_with_all_attempts() {
    let document = json!({"error": {"message": "The server had an error", "type": "server_error"}});
    let last = Reply::status(500)
        .header("x-request-id", "req-3")
        .json(document.clone());
    let seen = send_chat([
        Reply::rate_limited(1),
        Reply::transport_error(SimError::Refused),
        last,
    ])
    .await;
    assert_eq!(seen.attempts(), 3);
    let stats = seen.stats.clone();
    let response = seen.response();
    assert_eq!(response.status(), 500);
    assert_eq!(response.headers()["x-request-id"], "req-3");
    let gave_up = GaveUp::of(&response).unwrap();
    assert_eq!(gave_up.reason, GaveUpReason::AttemptsUsedUp);
    let attempts = Attempts::of(&response);
    let outcomes: Vec<_> = attempts
        .iter()
        .map(|attempt| attempt.outcome.clone().unwrap())
        .collect();
    assert!(matches!(outcomes[0], Meaning::RateLimited { .. }));
    assert_eq!(outcomes[1], Meaning::Unreachable { sent: false });
    assert_eq!(outcomes[2], Meaning::ServerError);
    let statuses: Vec<_> = attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(
        statuses,
        [
            Some(StatusCode::TOO_MANY_REQUESTS),
            None,
            Some(StatusCode::INTERNAL_SERVER_ERROR)
        ]
    );
    assert_eq!(attempts[0].model.as_deref(), Some("gpt-test"));
    assert!(attempts.iter().all(|attempt| attempt.took.is_some()));
    assert_eq!(bytes(response.into_body()).await, document.to_string());
    assert_eq!(stats.snapshot().gave_up(GaveUpReason::AttemptsUsedUp), 1);
}

// R18
#[tokio::test(start_paused = true)]
async fn two_retry_layers_do_not_multiply() {
    use tollgate_retry::RetryOnRateLimit;
    use tower::ServiceExt;
    let provider = tollgate_sim::script::Scripted::new([Reply::status(503)]);
    let inner = RetryOnRateLimit::new(provider.clone(), RateLimitPolicy::new());
    let outer = RetryOnRateLimit::new(inner, RateLimitPolicy::new());
    let response = outer.oneshot(chat()).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(provider.count(), 3);
    assert_eq!(Attempts::of(&response).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_calls_own_maximum_of_attempts_holds() {
    let mut request = chat();
    let options = tollgate_core::call::CallOptions::new().max_attempts(2);
    request.extensions_mut().insert(options);
    let seen = send(RateLimitPolicy::new(), request, [Reply::status(503)]).await;
    assert_eq!(seen.attempts(), 2);
}

// R18: the caller's word goes before the policy's.
#[tokio::test(start_paused = true)]
async fn a_call_that_allows_more_raises_the_policys_attempts() {
    let mut request = chat();
    let options = tollgate_core::call::CallOptions::new().max_attempts(9);
    request.extensions_mut().insert(options);
    let seen = send(RateLimitPolicy::new(), request, [Reply::status(503)]).await;
    assert_eq!(seen.attempts(), 9);
}

#[tokio::test(start_paused = true)]
async fn the_user_may_have_an_outcome_handled_otherwise() {
    use tollgate_core::wire::outcome::{OutcomeKind, SameModel};
    let busy = || [Reply::status(503), ok()];
    let never = RateLimitPolicy::new().on(OutcomeKind::Overloaded, SameModel::Never);
    assert_eq!(send(never, chat(), busy()).await.attempts(), 1);

    let wrong = || RateLimitPolicy::new().on(OutcomeKind::Invalid, SameModel::Backoff);
    let seen = send(wrong(), chat(), [Reply::status(400)]).await;
    assert_eq!(
        seen.attempts(),
        3,
        "as often as the call allows and no more"
    );
    let forbidden = Reply::status(400).header("x-should-retry", "false");
    assert_eq!(send(wrong(), chat(), [forbidden]).await.attempts(), 1);

    // Not even so is a job sent twice that may have been accepted.
    let stubborn = || {
        RateLimitPolicy::new()
            .resend(Resend::OnlyUnsent)
            .on(OutcomeKind::Unreachable, SameModel::Backoff)
    };
    let lost = || [Reply::transport_error(SimError::Reset), ok()];
    assert_eq!(send(stubborn(), chat(), lost()).await.attempts(), 2);
    let batch = post("/v1/batches", r#"{"input_file_id":"file-1"}"#);
    assert_eq!(send(stubborn(), batch, lost()).await.attempts(), 1);
}

#[test]
#[should_panic(expected = "cannot be called done")]
fn what_failed_cannot_be_called_served() {
    use tollgate_core::wire::outcome::{OutcomeKind, SameModel};
    let _ = RateLimitPolicy::new().on(OutcomeKind::Invalid, SameModel::Done);
}
