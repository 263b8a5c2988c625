//! Records of attempts and calls, totals, and where records go.
#![allow(clippy::unwrap_used)]
mod common;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use common::*;
use futures_util::TryFutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_core::{
    call::{Attempts, Call, CallOptions},
    extensions::{Reason, Refused, ServedBy},
    price::{Cost, Price, PriceTable},
    wire::{outcome::Outcome, prompt::Endpoint},
};
use tollgate_sim::{
    SimBody, SimError,
    script::{Reply, Scripted},
};
use tollgate_usage::{
    Completion, RecordKind, ResponseBody, UsageRecord, UsageRecorder, UsageRecorderLayer,
    UsageTotals, channel,
};
use tower::{Layer, Service, ServiceExt, service_fn};

/// A stand-in for layers that try again: three attempts, the last one with another model, as they
/// keep the ledger.
async fn tries_again<S>(inner: S, request: Req) -> Result<Response<SimBody>, S::Error>
where
    S: Service<Req, Response = Response<SimBody>> + Clone,
{
    let (mut parts, body) = request.into_parts();
    let call = Call::of(&mut parts.extensions);
    let mut model = "first";
    loop {
        let number = call.begin_attempt(9).expect("nine are allowed");
        call.note(|attempt| attempt.model = Some(Arc::from(model)));
        let text = body
            .clone()
            .collect()
            .await
            .unwrap_or_else(|e| never(e))
            .to_bytes();
        let text = String::from_utf8(text.to_vec())
            .unwrap()
            .replace("gpt-test", model);
        let mut parts = parts.clone();
        parts.headers.remove("content-length");
        let request = Request::from_parts(parts, text.into());
        let mut response = inner.clone().oneshot(request).await?;
        call.end_attempt();
        call.note(|attempt| attempt.status = Some(response.status()));
        if response.status().is_success() {
            let served = ServedBy::new(1, Some(Arc::from(model)), None);
            response.extensions_mut().insert(served);
            return Ok(response);
        }
        if number == 2 {
            model = "second";
        }
    }
}

/// Reads each answer whole, as a layer does that may ask again.
fn read_whole(
    service: UsageRecorder<Scripted>,
) -> impl Service<Req, Response = Response<SimBody>, Error = SimError> + Clone {
    let whole = |response: Response<ResponseBody<SimBody>>| async move {
        let (parts, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Response::from_parts(parts, SimBody::from(body)))
    };
    service_fn(move |request: Req| service.clone().oneshot(request).and_then(whole))
}

fn three_attempts() -> Scripted {
    Scripted::new([
        Reply::rate_limited(1),
        Reply::status(500),
        Reply::chat("second-2025-01-01", 10, 5),
    ])
}

fn prices() -> PriceTable {
    PriceTable::new()
        .with("first", Price::per_million("100", "100").unwrap())
        .with("second", Price::per_million("1", "2").unwrap())
}

async fn call<S, B>(service: S, request: Req)
where
    S: Service<Req, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: http_body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let response = service.oneshot(request).await.unwrap();
    response.into_body().collect().await.unwrap();
}

// U12
#[tokio::test(start_paused = true)]
async fn a_call_of_three_attempts_is_one_summary_with_two_failures() {
    let kept = Kept::default();
    let totals = UsageTotals::new();
    let layer = kept.layer().and(totals.clone()).prices(prices());
    let upstream = three_attempts();
    let stack = layer.layer(service_fn(move |request| {
        tries_again(upstream.clone(), request)
    }));
    call(stack, chat(json!({}))).await;

    let record = kept.one();
    assert_eq!(
        (record.kind, record.attempt, record.nested),
        (RecordKind::Call, 3, false)
    );
    let failed: Vec<_> = record
        .failed_attempts
        .iter()
        .map(|attempt| {
            (
                attempt.number,
                attempt.model.as_deref(),
                attempt.status.unwrap().as_u16(),
            )
        })
        .collect();
    assert_eq!(failed, [(1, Some("first"), 429), (2, Some("first"), 500)]);
    assert_eq!(record.model_asked.as_deref(), Some("gpt-test"));
    assert_eq!(
        record.served_by.as_ref().unwrap().model.as_deref(),
        Some("second")
    );
    assert_eq!(record.model_served.as_deref(), Some("second-2025-01-01"));
    assert_eq!(
        record.cost,
        Cost::Exact("0.00002".parse().unwrap()),
        "by the model that served"
    );
    let totals = totals.snapshot();
    assert_eq!(
        (
            totals.all.calls,
            totals.all.failed_attempts,
            totals.all.errors
        ),
        (1, 2, 0)
    );
    assert_eq!(totals.model("second-2025-01-01").unwrap().total, 15);
}

// U12
#[tokio::test(start_paused = true)]
async fn a_recorder_inside_records_attempts_and_shares_the_calls_id() {
    let (inside, outside) = (Kept::default(), Kept::default());
    let totals = UsageTotals::new();
    let inner = inside.layer().and(totals.clone()).prices(prices());
    let outer = outside.layer().and(totals.clone()).prices(prices());
    let service = inner.layer(three_attempts());
    let stack = service_fn(move |request| tries_again(read_whole(service.clone()), request));
    call(outer.layer(stack), chat(json!({}))).await;

    let summary = outside.one();
    let attempts = inside.all();
    let kinds: Vec<_> = attempts
        .iter()
        .map(|r| (r.kind, r.attempt, r.call == summary.call))
        .collect();
    assert_eq!(kinds, [1, 2, 3].map(|n| (RecordKind::Attempt, n, true)));
    assert_eq!(summary.kind, RecordKind::Call);
    // Failed attempts are not billed as completions.
    assert_eq!(attempts[0].cost, Cost::Exact("0".parse().unwrap()));
    assert_eq!(attempts[0].model_asked.as_deref(), Some("first"));
    assert_eq!(attempts[2].cost, summary.cost);
    let totals = totals.snapshot().all;
    assert_eq!(
        (totals.calls, totals.records, totals.total),
        (1, 1, 15),
        "the call counts once"
    );
}

// U12
#[tokio::test(start_paused = true)]
async fn totals_of_a_lone_recorder_inside_count_calls_and_attempts() {
    let totals = UsageTotals::new();
    let service = UsageRecorder::new(three_attempts(), totals.clone());
    let stack = service_fn(move |request| tries_again(read_whole(service.clone()), request));
    call(stack, chat(json!({}))).await;
    let all = totals.snapshot().all;
    assert_eq!((all.calls, all.records, all.errors), (1, 3, 2));
}

// U15
#[tokio::test(start_paused = true)]
async fn a_model_without_a_price_costs_an_unknown_amount_and_is_counted() {
    let kept = Kept::default();
    let totals = UsageTotals::new();
    let layer = kept.layer().and(totals.clone()).prices(prices());
    let upstream = Scripted::new([Reply::chat("unheard-of", 10, 5)]);
    exchange(&layer, &upstream, chat(json!({})))
        .await
        .1
        .unwrap();
    assert_eq!(kept.one().cost, Cost::Unknown, "unknown is not zero");
    let totals = totals.snapshot();
    assert_eq!((totals.all.unpriced, totals.all.unknown_usage), (1, 0));
    assert_eq!(totals.model("unheard-of").unwrap().input, 10);
}

#[tokio::test(start_paused = true)]
async fn the_answer_carries_the_call_and_one_reading() {
    let service = Kept::default()
        .layer()
        .layer(Scripted::new([Reply::chat("m", 1, 2)]));
    let mut request = chat(json!({}));
    let call = Call::of(request.extensions_mut());
    assert_eq!(call.begin_attempt(1), Some(1));
    let response = send(&service, request).await;
    assert_eq!(Attempts::of(&response).len(), 1);
    assert!(tollgate_core::body::Tap::of(&response).is_some());
}

#[tokio::test(start_paused = true)]
async fn an_inner_verdict_is_taken_over_when_it_judged_this_status() {
    use http::StatusCode;
    use tollgate_core::wire::outcome::Verdict;
    for (judged, expected) in [(503, Outcome::QuotaExhausted), (429, Outcome::Overloaded)] {
        let verdict = Verdict::of(
            StatusCode::from_u16(judged).unwrap(),
            Outcome::QuotaExhausted,
        );
        let kept = Kept::default();
        let upstream = Scripted::new([Reply::status(503).extension(verdict)]);
        exchange(&kept.layer(), &upstream, chat(json!({})))
            .await
            .1
            .unwrap();
        assert_eq!(kept.one().outcome, Some(expected));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_after_an_inner_verdict_of_success_counts() {
    use tollgate_core::wire::outcome::Verdict;
    let kept = Kept::default();
    let error = event(&json!({"error": {"message": "overloaded", "type": "overloaded_error"}}));
    let reply = Reply::stream([delta("x"), error]).extension(Verdict::ok(http::StatusCode::OK));
    exchange(&kept.layer(), &Scripted::new([reply]), asked())
        .await
        .1
        .unwrap();
    assert_eq!(kept.one().outcome, Some(Outcome::Overloaded));
}

#[tokio::test(start_paused = true)]
async fn a_stated_wait_is_recorded_wherever_it_stood() {
    let document =
        json!({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}});
    for reply in [
        Reply::status(429),
        Reply::status(429).json(document),
        Reply::rate_limited(7),
    ] {
        let kept = Kept::default();
        let upstream = Scripted::new([reply.header("retry-after", "7")]);
        exchange(&kept.layer(), &upstream, chat(json!({})))
            .await
            .1
            .unwrap();
        let Some(Outcome::RateLimited { retry_after, .. }) = kept.one().outcome else {
            panic!("{:?}", kept.one().outcome);
        };
        assert_eq!(retry_after, Some(Duration::from_secs(7)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_ours_is_told_apart_and_free() {
    let kept = Kept::default();
    let totals = UsageTotals::new();
    let budget = service_fn(|_: Req| async {
        let refused = Refused::new(Reason::QueueFull).retry_after(Duration::from_secs(3));
        Ok::<_, std::convert::Infallible>(
            refused.into_response(Endpoint::ChatCompletions, SimBody::from),
        )
    });
    call(
        kept.layer().and(totals.clone()).layer(budget),
        chat(json!({})),
    )
    .await;
    let record = kept.one();
    assert_eq!(record.refused, Some(Reason::QueueFull));
    assert_eq!(record.cost, Cost::Exact("0".parse().unwrap()));
    let all = totals.snapshot().all;
    assert_eq!(
        (all.refused, all.errors, all.unpriced, all.unknown_usage),
        (1, 1, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn the_principal_is_the_callers_word_or_else_the_requests_user() {
    let kept = Kept::default();
    let upstream = Scripted::new([Reply::chat("m", 1, 2)]);
    let mut named = chat(json!({"user": "bob"}));
    named
        .extensions_mut()
        .insert(CallOptions::new().principal("alice"));
    for request in [named, chat(json!({"user": "bob"})), chat(json!({}))] {
        exchange(&kept.layer(), &upstream, request).await.1.unwrap();
    }
    use tollgate_core::principal::Principal;
    let principals: Vec<_> = kept.all().iter().map(|record| record.principal).collect();
    assert_eq!(
        principals,
        [
            Some(Principal::of("alice")),
            Some(Principal::of("bob")),
            None
        ]
    );
    let shown = format!("{:?}", kept.all());
    assert!(
        !shown.contains("alice") && !shown.contains("bob") && !shown.contains("Hi"),
        "{shown}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_drops_and_counts() {
    let (recorder, mut records) = channel(2);
    let layer = UsageRecorderLayer::new(recorder.clone());
    let upstream = Scripted::new([Reply::chat("m", 1, 2)]);
    for _ in 0..5 {
        exchange(&layer, &upstream, chat(json!({})))
            .await
            .1
            .unwrap();
    }
    assert_eq!((recorder.dropped(), records.dropped()), (3, 3));
    drop((layer, recorder));
    let mut received = 0;
    while records.recv().await.is_some() {
        received += 1;
    }
    assert_eq!(received, 2);
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_panics_harms_nobody() {
    let kept = Kept::default();
    let panics = |_: &UsageRecord| panic!("a bug in a sink");
    let layer = UsageRecorderLayer::new(panics).and(kept.recorder());
    let upstream = Scripted::new([Reply::chat("m", 1, 2)]);
    let (_, body) = exchange(&layer, &upstream, chat(json!({}))).await;
    assert!(body.is_ok());
    drop(send(&layer.layer(upstream), chat(json!({}))).await);
    assert_eq!(
        kept.all().len(),
        2,
        "the others got theirs, also from a drop"
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_inside_is_recorded_as_a_call_that_was_left() {
    let kept = Kept::default();
    let service = kept.layer().layer(Scripted::new([Reply::panics()]));
    let task = tokio::spawn(service.oneshot(chat(json!({}))));
    assert!(task.await.unwrap_err().is_panic());
    assert_eq!(kept.one().completion, Completion::Partial);
}

#[tokio::test(start_paused = true)]
async fn totals_keep_a_thousand_models_and_one_for_the_rest() {
    let totals = UsageTotals::new();
    let upstream = Scripted::by(|attempt| Reply::chat(&attempt.model().unwrap(), 1, 1));
    let layer = UsageRecorderLayer::new(totals.clone());
    let long = chat(json!({"model": "x".repeat(10_000)}));
    exchange(&layer, &upstream, long).await.1.unwrap();
    assert_eq!(
        totals.snapshot().models.other.calls,
        1,
        "a name that long is no name"
    );
    for n in 0..1_010 {
        let request = chat(json!({"model": format!("model-{n}")}));
        exchange(&layer, &upstream, request).await.1.unwrap();
    }
    let snapshot = totals.snapshot();
    assert_eq!(snapshot.models.entries.len(), 1_000);
    assert_eq!(snapshot.models.other.calls, 11);
    assert_eq!((snapshot.all.calls, snapshot.all.total), (1_011, 2_022));
    assert_eq!(snapshot.model("model-7").unwrap().calls, 1);
}

// X04
#[test]
fn totals_of_many_threads_lose_nothing() {
    let totals = UsageTotals::new();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let totals = totals.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let layer = UsageRecorderLayer::new(totals);
                    let upstream = Scripted::new([Reply::chat("m", 3, 4)]);
                    for _ in 0..100 {
                        exchange(&layer, &upstream, chat(json!({})))
                            .await
                            .1
                            .unwrap();
                    }
                });
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    let all = totals.snapshot().all;
    assert_eq!(
        (all.calls, all.input, all.output, all.finish.stop),
        (400, 1_200, 1_600, 400)
    );
}
