//! Targets that failed are left alone, and come back.
#![allow(clippy::unwrap_used)]
mod common;

use std::time::Duration;

use common::*;
use tokio::time::{advance, sleep};
use tollgate_core::call::Skipped;
use tollgate_fallback::{FallbackHealth, TargetState};
use tollgate_sim::script::{Reply, Scripted};
use tower::Layer;

const SECOND: Duration = Duration::from_secs(1);

fn count(upstream: &Scripted, model: &str) -> usize {
    models(upstream).iter().filter(|m| *m == model).count()
}

// F15
#[tokio::test(start_paused = true)]
async fn a_target_that_is_down_is_probed_sparsely_and_used_again_after_it_recovers() {
    let start = tokio::time::Instant::now();
    let upstream = upstream(move |model, _| {
        let down = model == "a" && start.elapsed() < 60 * SECOND;
        down.then(|| error(503, "overloaded"))
    });
    let health = FallbackHealth::new();
    let service = layer(chain(["a", "b"]))
        .health(health.clone())
        .layer(upstream.clone());
    for _ in 0..20 {
        assert_eq!(send(&service, chat("a")).await.status(), 200, "b serves");
        sleep(3 * SECOND).await;
    }
    let probes = count(&upstream, "a");
    assert!((2..=5).contains(&probes), "{probes} of 20 requests probed");
    let down = &health.snapshot().targets[0];
    assert_eq!(down.model.as_deref(), Some("a"));
    assert_eq!(down.since, start);
    assert_eq!(down.failures as usize, probes);

    // Back within the probe interval.
    sleep(down.next_probe - tokio::time::Instant::now()).await;
    let answer = send(&service, chat("a")).await;
    assert_eq!(served_by(&answer), (0, "a".to_owned()));
    assert!(health.snapshot().targets.is_empty());
}

// F15
#[tokio::test(start_paused = true)]
async fn one_call_probes_and_the_others_go_on_staying_away() {
    let upstream = upstream(|model, index| {
        let down = model == "a";
        let reply = error(503, "overloaded");
        down.then(|| {
            if index > 0 {
                reply.after(2 * SECOND)
            } else {
                reply
            }
        })
    });
    let health = FallbackHealth::new();
    let service = layer(chain(["a", "b"]))
        .health(health.clone())
        .layer(upstream.clone());
    send(&service, chat("a")).await;
    advance(5 * SECOND).await;
    assert_eq!(health.snapshot().targets[0].state, TargetState::Due);
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, chat("a")).await.status() })
        })
        .collect();
    sleep(SECOND).await;
    assert_eq!(health.snapshot().targets[0].state, TargetState::Probing);
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    assert_eq!(count(&upstream, "a"), 2, "the first failure and one probe");
}

// F17
#[tokio::test(start_paused = true)]
async fn a_cool_down_holds_for_the_very_next_request_of_every_clone() {
    let upstream = upstream(|model, _| (model == "a").then(|| error(503, "overloaded")));
    let service = wrap(&upstream, chain(["a", "b"]));
    let other = service.clone();
    send(&service, chat("a")).await;
    let answer = send(&other, chat("a")).await;
    assert_eq!(models(&upstream), ["a", "b", "b"]);
    let passed_over = &attempts(&answer)[0];
    assert_eq!(passed_over.skipped, Some(Skipped::CoolingDown));
    assert_eq!(passed_over.model.as_deref(), Some("a"));
}

// F17, X04
#[test]
fn a_cool_down_holds_on_every_thread_and_in_every_stack_that_shares_it() {
    let health = FallbackHealth::new();
    let upstream = upstream(|model, _| (model == "a").then(|| Reply::rate_limited(15)));
    let stack = || {
        let health = health.clone();
        layer(chain(["a", "b"]))
            .health(health)
            .layer(upstream.clone())
    };
    let ask = |service| {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async move { served_by(&send(&service, chat("a")).await).1 })
    };
    assert_eq!(ask(stack()), "b");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let service = stack();
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(ask(service.clone()), "b");
                }
            });
        }
    });
    assert_eq!(count(&upstream, "a"), 1, "one 429 for all");
}

// F16
#[tokio::test(start_paused = true)]
async fn a_limited_target_is_left_alone_as_long_as_it_says_and_a_shorter_statement_takes_nothing_back()
 {
    let upstream = Scripted::by(
        |attempt| match (attempt.model().as_deref(), attempt.index) {
            (Some("a"), 0) => Reply::rate_limited(40).after(SECOND),
            (Some("a"), 1) => Reply::rate_limited(2).after(2 * SECOND),
            (Some(model), _) => Reply::chat(model, 1, 1),
            _ => Reply::status(500),
        },
    );
    let health = FallbackHealth::new();
    let service = layer(chain(["a", "b"]))
        .health(health.clone())
        .layer(upstream.clone());
    let start = tokio::time::Instant::now();
    let both = (service.clone(), service.clone());
    tokio::join!(async { send(&both.0, chat("a")).await }, async {
        send(&both.1, chat("a")).await
    },);
    let next = health.snapshot().targets[0].next_probe;
    assert_eq!(next - start, 41 * SECOND);
}

// F18
#[tokio::test(start_paused = true)]
async fn when_all_are_cooling_the_one_that_is_due_first_is_tried() {
    let upstream = upstream(|model, _| {
        Some(if model == "a" {
            Reply::rate_limited(60)
        } else {
            Reply::rate_limited(20)
        })
    });
    let service = wrap(&upstream, chain(["a", "b"]));
    send(&service, chat("a")).await;
    let answer = send(&service, chat("a")).await;
    assert_eq!(
        answer.status(),
        429,
        "an answer of a provider's, not \"no targets\""
    );
    assert_eq!(models(&upstream), ["a", "b", "b"]);
}

// F12
#[tokio::test(start_paused = true)]
async fn a_refused_key_is_not_used_again_in_a_call_even_if_it_is_dead_for_no_time() {
    let upstream = Scripted::new([error(401, "invalid_api_key")]);
    let health = FallbackHealth::new().dead_for(Duration::ZERO);
    let service = layer(chain(["a", "b"]))
        .health(health)
        .layer(upstream.clone());
    assert_eq!(send(&service, chat("a")).await.status(), 401);
    assert_eq!(upstream.count(), 1);
    send(&service, chat("a")).await;
    assert_eq!(upstream.count(), 2, "the next call may try");
}

// F14
#[tokio::test(start_paused = true)]
async fn a_candidate_may_queue_as_long_as_it_likes_when_those_behind_it_are_left_alone() {
    let upstream = Scripted::by(|attempt| {
        let call = attempt
            .extensions
            .get::<tollgate_core::call::Call>()
            .unwrap();
        let wait = call.max_queue_wait();
        let bounded = attempt.index == 0 && attempt.model().as_deref() == Some("a");
        assert_eq!(wait.is_some(), bounded, "attempt {}", attempt.index);
        if attempt.model().as_deref() == Some("b") {
            return error(503, "overloaded").after(SECOND);
        }
        if bounded {
            error(500, "x")
        } else {
            Reply::chat("a", 1, 1)
        }
    });
    let service = wrap(&upstream, chain(["a", "b"]));
    // Both fail; then a has been left alone long enough, and b, which failed a second later, has not.
    send(&service, chat("a")).await;
    advance(4 * SECOND + SECOND / 2).await;
    let answer = send(&service, chat("a")).await;
    assert_eq!(models(&upstream), ["a", "b", "a"]);
    assert_eq!(
        attempts(&answer).len(),
        1,
        "a was due: it was no last resort"
    );
}

// F18
#[tokio::test(start_paused = true)]
async fn a_single_candidate_is_always_tried() {
    let upstream = Scripted::new([error(503, "overloaded"), Reply::chat("a", 1, 1)]);
    let service = wrap(&upstream, chain(["a"]));
    assert_eq!(send(&service, chat("a")).await.status(), 503);
    assert_eq!(send(&service, chat("a")).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_caller_left_lets_the_next_call_try_at_once() {
    let upstream = upstream(|model, index| match (model, index) {
        ("a", 0) => Some(error(503, "overloaded")),
        ("a", 2) => Some(Reply::pending()),
        _ => None,
    });
    let health = FallbackHealth::new();
    let service = layer(chain(["a", "b"]))
        .health(health.clone())
        .layer(upstream.clone());
    send(&service, chat("a")).await;
    advance(5 * SECOND).await;
    let hanging = tokio::spawn({
        let service = service.clone();
        async move { send(&service, chat("a")).await }
    });
    sleep(SECOND).await;
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    let answer = send(&service, chat("a")).await;
    assert_eq!(served_by(&answer), (0, "a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn what_one_tenants_key_met_says_nothing_about_another_key() {
    let upstream =
        upstream(|model, index| (model == "a" && index == 0).then(|| Reply::rate_limited(60)));
    let service = wrap(&upstream, chain(["a", "b"]));
    send(&service, chat("a")).await;
    let mut other = chat("a");
    let key = "Bearer another-tenant".parse().unwrap();
    other.headers_mut().insert("authorization", key);
    assert_eq!(served_by(&send(&service, other).await), (0, "a".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_our_own_cools_nothing_down() {
    use tollgate_core::extensions::{Reason, Refused};
    let refused = Refused::new(Reason::QueueFull);
    let upstream = Scripted::new([
        error(429, "queue_full").extension(refused),
        Reply::chat("b", 1, 1),
    ]);
    let health = FallbackHealth::new();
    let service = layer(chain(["a", "b"]))
        .health(health.clone())
        .layer(upstream);
    send(&service, chat("a")).await;
    assert!(health.snapshot().targets.is_empty());
}
