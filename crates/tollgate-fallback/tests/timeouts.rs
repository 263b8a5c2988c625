//! Candidates that do not answer in time.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::*;
use http_body_util::BodyExt;
use tokio::time::Instant;
use tollgate_core::{
    body::BodyError,
    call::CallOptions,
    extensions::TimedOut,
    timeouts::Timeouts,
    wire::outcome::{Outcome, TimeoutKind},
};
use tollgate_fallback::{FallbackPolicy, ModelFallback, OnExhausted};
use tollgate_sim::{
    Fault, SimProvider,
    script::{Reply, Scripted},
};
use tower::{Layer, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

fn policy(timeouts: Timeouts) -> FallbackPolicy {
    FallbackPolicy::default().timeouts(timeouts)
}

/// A provider of a stream of 60 tokens, of which the model `a` suffers this.
fn provider(fault: Fault) -> SimProvider {
    SimProvider::builder()
        .reply_tokens(60)
        .pace(SECOND / 100)
        .on(move |incoming| {
            if incoming.model == "a" {
                fault.clone()
            } else {
                Fault::None
            }
        })
        .build()
}

fn around(provider: &SimProvider, policy: FallbackPolicy) -> ModelFallback<SimProvider, Sim> {
    layer(chain(["a", "b"]))
        .policy(policy)
        .layer(provider.clone())
}

fn timed_out(answer: &Answer, what: TimeoutKind) {
    assert_eq!(attempts(answer)[0].outcome, Some(Outcome::Timeout { what }));
}

// F08
#[tokio::test(start_paused = true)]
async fn a_first_token_that_is_late_leads_to_the_next_model_and_closes_the_first_ones_connection() {
    let provider = provider(Fault::SlowFirstToken(20 * SECOND));
    let service = around(&provider, policy(Timeouts::new().first_token(10 * SECOND)));
    let start = Instant::now();
    let answer = service.oneshot(streamed("a")).await.unwrap();
    assert_eq!(start.elapsed(), 10 * SECOND);
    assert_eq!(served_by(&answer), (1, "b".to_owned()));
    timed_out(&answer, TimeoutKind::FirstToken);
    let account = provider.account();
    assert_eq!(account.requests[0].model.as_ref(), "a");
    assert_eq!(account.requests[0].ended_at, Some(10 * SECOND), "closed");
    assert_eq!(account.requests[0].billed.output, 0);
    assert_eq!(account.totals.in_flight, 1, "only the one that is read");
    assert!(text(answer).await.contains("[DONE]"));
    assert_eq!(provider.totals().in_flight, 0);
}

// F08
#[tokio::test(start_paused = true)]
async fn a_route_that_is_silent_is_left_after_its_first_byte_was_due() {
    for fault in [Fault::Hang, Fault::SlowHeaders(60 * SECOND)] {
        let provider = provider(fault);
        let service = around(&provider, policy(Timeouts::new().first_byte(5 * SECOND)));
        let start = Instant::now();
        let answer = service.oneshot(chat("a")).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 5);
        assert_eq!(served_by(&answer), (1, "b".to_owned()));
        timed_out(&answer, TimeoutKind::FirstByte);
        let first = &provider.account().requests[0];
        assert_eq!(first.ended_at, Some(5 * SECOND), "closed");
    }
}

// F07, F05
#[tokio::test(start_paused = true)]
async fn a_stall_is_seen_after_the_idle_limit_and_a_buffered_caller_gets_the_whole_answer_of_the_next()
 {
    let provider = provider(Fault::StallStream {
        events: 21,
        cut_after: None,
    });
    let policy = policy(Timeouts::new().idle(10 * SECOND)).buffered(true);
    let start = Instant::now();
    let answer = around(&provider, policy)
        .oneshot(streamed("a"))
        .await
        .unwrap();
    let took = start.elapsed();
    assert!(took >= 10 * SECOND && took < 11 * SECOND, "{took:?}");
    assert_eq!(served_by(&answer), (1, "b".to_owned()));
    timed_out(&answer, TimeoutKind::Idle);
    let whole = text(answer).await;
    assert!(!whole.contains(r#""model":"a""#), "{whole}");
    assert!(whole.contains("[DONE]"));
}

// F07, F04
#[tokio::test(start_paused = true)]
async fn a_stall_is_seen_after_the_idle_limit_and_ends_a_stream_that_was_handed_on_in_an_error() {
    let provider = provider(Fault::StallStream {
        events: 21,
        cut_after: None,
    });
    let service = around(&provider, policy(Timeouts::new().idle(10 * SECOND)));
    let answer = service.oneshot(streamed("a")).await.unwrap();
    let start = Instant::now();
    let mut body = answer.into_body();
    let mut delivered = 0;
    let error = loop {
        match body.frame().await.expect("no clean end") {
            Ok(_) => delivered += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((delivered, error), (21, BodyError::IdleTimeout));
    assert!(start.elapsed() < 11 * SECOND, "{:?}", start.elapsed());
    assert!(body.frame().await.is_none());
    assert_eq!(provider.totals().requests, 1);
    assert_eq!(provider.totals().in_flight, 0, "closed");
}

#[tokio::test(start_paused = true)]
async fn when_no_candidate_answers_in_time_the_answer_says_so() {
    for whose in [OnExhausted::First, OnExhausted::Last] {
        let upstream = Scripted::by(|_| Reply::pending());
        let policy = policy(Timeouts::new().first_byte(5 * SECOND)).on_exhausted(whose);
        let service = layer(chain(["a", "b"])).policy(policy).layer(upstream);
        let start = Instant::now();
        let answer = send(&service, streamed("a")).await;
        assert_eq!(
            (answer.status().as_u16(), start.elapsed()),
            (504, 10 * SECOND)
        );
        let timed_out = TimedOut::of(&answer).unwrap();
        assert_eq!(timed_out.what, TimeoutKind::FirstByte);
        assert!(text(answer).await.contains("first_byte_timeout"));
        assert_eq!(service.health().snapshot().targets.len(), 2);
    }
}

// F20
#[tokio::test(start_paused = true)]
async fn without_fallbacks_the_timeouts_hold_and_no_other_model_is_asked() {
    let provider = provider(Fault::SlowFirstToken(20 * SECOND));
    let service = around(&provider, policy(Timeouts::new().first_token(10 * SECOND)));
    let mut request = streamed("a");
    let options = CallOptions::new().without_fallbacks();
    request.extensions_mut().insert(options);
    let answer = service.oneshot(request).await.unwrap();
    assert_eq!(answer.status(), 504);
    assert_eq!(provider.totals().requests, 1);
}

#[tokio::test(start_paused = true)]
async fn a_total_time_holds_over_all_candidates_and_blames_none() {
    let upstream = Scripted::by(|_| error(503, "overloaded").after(4 * SECOND));
    let policy = policy(Timeouts::new().total(6 * SECOND));
    let service = layer(chain(["a", "b", "c"]))
        .policy(policy)
        .layer(upstream.clone());
    let start = Instant::now();
    let answer = send(&service, chat("a")).await;
    assert_eq!(start.elapsed(), 6 * SECOND);
    assert_eq!(TimedOut::of(&answer).unwrap().what, TimeoutKind::Total);
    assert_eq!(models(&upstream), ["a", "b"]);
    let left_alone = service.health().snapshot().targets;
    assert_eq!(left_alone.len(), 1);
    assert_eq!(left_alone[0].model.as_deref(), Some("a"), "it did fail");
}
