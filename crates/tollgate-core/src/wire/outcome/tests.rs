use http::{HeaderName, HeaderValue};

use super::*;
use crate::wire::retry_after::Source;

fn verdict(status: u16, headers: &[(&str, &str)], body: Option<&str>) -> Verdict {
    let headers = headers
        .iter()
        .map(|(name, value)| {
            (
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect();
    judge(
        StatusCode::from_u16(status).unwrap(),
        &headers,
        body.map(str::as_bytes),
        SystemTime::UNIX_EPOCH,
    )
}

#[test]
fn the_head_alone_decides_when_there_is_no_body() {
    let timeout = Outcome::Timeout {
        what: TimeoutKind::Provider,
    };
    for (status, outcome) in [
        (200, Outcome::Ok),
        (101, Outcome::Ok),
        (304, Outcome::Ok),
        (400, Outcome::Invalid),
        (401, Outcome::Unauthorized),
        (402, Outcome::QuotaExhausted),
        (403, Outcome::Unauthorized),
        (404, Outcome::Invalid),
        (408, timeout.clone()),
        (413, Outcome::Invalid),
        (422, Outcome::Invalid),
        (500, Outcome::ServerError),
        (502, Outcome::ServerError),
        (503, Outcome::Overloaded),
        (504, timeout),
        (529, Outcome::Overloaded),
    ] {
        assert_eq!(verdict(status, &[], None).outcome, outcome, "{status}");
        // An empty body says no more.
        assert_eq!(verdict(status, &[], Some("")).outcome, outcome, "{status}");
    }
}

// R02, R07
#[test]
fn the_wait_of_a_verdict_is_one_to_wait_for() {
    let wait = |headers: &[(&str, &str)], body| {
        let verdict = verdict(429, headers, body);
        let Outcome::RateLimited { retry_after, .. } = verdict.outcome else {
            panic!("{verdict:?}");
        };
        assert_eq!(retry_after, verdict.retry_after.map(|stated| stated.wait));
        verdict
            .retry_after
            .map(|stated| (stated.wait.as_millis(), stated.source))
    };
    assert_eq!(
        wait(&[("retry-after-ms", "350"), ("retry-after", "5")], None),
        Some((350, Source::RetryAfterMs))
    );
    // Azure's zero is no wait, the header beside it is one.
    assert_eq!(
        wait(&[("retry-after-ms", "0"), ("retry-after", "1")], None),
        Some((1_000, Source::RetryAfter))
    );
    assert_eq!(wait(&[("retry-after", "0")], None), None);
    let text = r#"{"error":{"message":"Please try again in 2.5s","type":"tokens"}}"#;
    assert_eq!(wait(&[], Some(text)), Some((2_500, Source::Text)));
    assert_eq!(
        wait(&[("retry-after", "3")], Some(text)),
        Some((3_000, Source::RetryAfter))
    );
    assert_eq!(
        wait(&[("retry-after", "soon")], Some(text)),
        Some((2_500, Source::Text))
    );
}

#[test]
fn a_wait_on_a_success_is_no_order() {
    let verdict = verdict(200, &[("retry-after", "24")], Some("{\"choices\":[]}"));
    assert_eq!(verdict, Verdict::ok(StatusCode::OK));
}

#[test]
fn an_error_under_status_200_is_one() {
    let verdict = verdict(
        200,
        &[],
        Some("\n\n {\"error\":{\"message\":\"\",\"code\":503}}"),
    );
    assert_eq!(verdict.outcome, Outcome::Overloaded);
    assert_eq!(verdict.status, StatusCode::OK);
}

// R12
#[test]
fn the_server_may_overrule_the_table() {
    let same = |status, header| {
        verdict(status, &[("x-should-retry", header)], None)
            .advice()
            .same_model
    };
    assert_eq!(same(503, "false"), SameModel::Never);
    assert_eq!(same(503, "true"), SameModel::Backoff);
    assert_eq!(same(400, "true"), SameModel::Once);
    assert_eq!(same(400, "false"), SameModel::Never);
    assert_eq!(same(400, "perhaps"), SameModel::Never);
    assert_eq!(same(200, "false"), SameModel::Done);
}

#[test]
fn a_request_that_never_fits_goes_to_a_larger_model_only() {
    let body = r#"{"error":{"message":"Request too large for m on tokens per min (TPM): Limit 5, Requested 6.","type":"tokens"}}"#;
    let verdict = verdict(429, &[], Some(body));
    assert_eq!(
        verdict.outcome,
        Outcome::RateLimited {
            what: Some(Dimension::Tokens),
            retry_after: None,
            never_fits: true
        }
    );
    let advice = verdict.advice();
    assert_eq!(
        (advice.same_model, advice.next_model),
        (SameModel::Never, NextModel::Larger)
    );
}

// T10, F11
#[test]
fn units_follow_what_the_provider_may_have_charged() {
    for (outcome, units) in [
        (Outcome::Ok, Units::Settle),
        (Outcome::Invalid, Units::TokensBack),
        (Outcome::QuotaExhausted, Units::TokensBack),
        (Outcome::Overloaded, Units::TokensBack),
        (Outcome::TooLong, Units::TokensBack),
        (Outcome::Unreachable { sent: false }, Units::AllBack),
        (Outcome::Unreachable { sent: true }, Units::Keep),
        (
            Outcome::Timeout {
                what: TimeoutKind::FirstByte,
            },
            Units::Keep,
        ),
        (Outcome::Broken, Units::Keep),
        (Outcome::ContentRefused, Units::Keep),
    ] {
        assert_eq!(outcome.advice().units, units, "{outcome:?}");
    }
    assert_eq!(
        Outcome::ContentRefused.advice().next_model,
        NextModel::IfTold
    );
}
