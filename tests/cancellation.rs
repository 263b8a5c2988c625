//! Dropped after any number of polls, with a retry around the budget and a fallback around both; and what is free when the
//! caller has its answer.
use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tollgate::{UsageRecord, prelude::*, retry::RetryBudget};
use tollgate_sim::{
    probe::ReadyProbe,
    script::{Reply, Scripted},
};
use tollgate_tests::chat_with;
use tower::{Service, ServiceBuilder, ServiceExt};

fn one_a_second() -> Budget {
    Budget::builder()
        .limit(Limit::requests(1).per(Duration::from_secs(1)))
        .limit(Limit::tokens(1000).per(Duration::from_secs(1)))
        .build()
        .expect("limits")
}

/// Refused, then served in small frames; each takes a while.
fn upstream() -> ReadyProbe<Scripted> {
    let slow = |reply: Reply| reply.after(Duration::from_millis(5));
    let script = Scripted::by(move |seen| match seen.index % 2 {
        0 => slow(Reply::rate_limited(1)),
        _ => slow(
            Reply::chat("model-a", 9, 2)
                .rechunk(60)
                .every(Duration::from_millis(5)),
        ),
    });
    ReadyProbe::new(script).pending_first()
}

/// Polls a call so many times, a few milliseconds apart, then drops it; the books must be empty after it, for every number of
/// polls until it is done.
async fn at_every_poll<S, B>(stack: impl Fn(&Budget) -> S)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>>,
    S::Error: std::fmt::Debug,
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let mut polls = 0;
    let mut sent = Vec::new();
    loop {
        let budget = one_a_second();
        let mut done = false;
        {
            let service = stack(&budget);
            let call = async {
                let request = chat_with("model-a", r#","max_tokens":50"#);
                let response = service.oneshot(request).await.expect("an answer");
                response
                    .into_body()
                    .collect()
                    .await
                    .expect("a whole answer");
            };
            let mut call = pin!(call);
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..polls {
                if let Poll::Ready(()) = call.as_mut().poll(&mut context) {
                    done = true;
                    break;
                }
                tokio::time::advance(Duration::from_millis(7)).await;
            }
        }
        let seen = budget.snapshot();
        assert_eq!(
            (seen.in_flight, seen.queued, seen.queued_bytes),
            (0, 0, 0),
            "{polls} polls"
        );
        for limit in &seen.limits {
            assert_eq!(
                (limit.reserved, limit.queued),
                (0, 0),
                "{polls} polls: {limit:?}"
            );
        }
        // What was not sent costs nothing; what was sent is one request each.
        sent.push(seen.limits[0].used);
        if done {
            break;
        }
        polls += 1;
        assert!(polls < 3000, "it never ends");
    }
    assert!(
        polls > 50,
        "{polls} polls are too few to have met every state"
    );
    assert_eq!(sent[..2], [0, 0], "nothing is charged before it is sent");
    assert!(sent.contains(&1));
}

#[tokio::test(start_paused = true)]
async fn dropped_after_any_number_of_polls_with_a_retry_around_nothing_is_left() {
    at_every_poll(|budget| {
        let policy = RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000));
        ServiceBuilder::new()
            .retry_on_rate_limit(policy)
            .token_budget(budget.clone())
            .service(upstream())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn dropped_after_any_number_of_polls_within_the_whole_stack_nothing_is_left() {
    at_every_poll(|budget| {
        let policy = RateLimitPolicy::default().retry_budget(RetryBudget::new(1.0, 1_000));
        ServiceBuilder::new()
            .record_usage(UsageTotals::new())
            .model_fallback(ModelChain::new(["model-a", "model-b"]).expect("a chain"))
            .retry_on_rate_limit(policy)
            .token_budget(budget.clone())
            .service(upstream())
    })
    .await;
}

// T15
#[tokio::test(start_paused = true)]
async fn the_slot_is_free_before_a_record_is_taken_however_slow_that_is() {
    let budget = one_a_second();
    let held = Arc::new(Mutex::new(Vec::new()));
    let recorder = {
        let (budget, held) = (budget.clone(), Arc::clone(&held));
        // Whatever a recorder does, and however long: by now the budget has settled.
        move |_: &UsageRecord| {
            let seen = budget.snapshot();
            held.lock()
                .unwrap()
                .push((seen.in_flight, seen.limits[1].reserved));
        }
    };
    let stack = ServiceBuilder::new()
        .record_usage(recorder)
        .token_budget(budget.clone())
        .service(Scripted::by(|_| Reply::chat("model-a", 9, 2)));
    let request = chat_with("model-a", r#","max_tokens":50"#);
    let response = stack.oneshot(request).await.expect("an answer");
    assert_eq!(budget.snapshot().in_flight, 1, "the answer is under way");
    let mut body = response.into_body();
    while !body.is_end_stream() {
        body.frame().await.expect("a frame").expect("no error");
    }
    assert_eq!(*held.lock().unwrap(), [(0, 0)]);
    assert_eq!(
        budget.snapshot().in_flight,
        0,
        "while the caller still has the body"
    );
}
