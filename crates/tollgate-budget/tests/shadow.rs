//! Shadow mode: everything is decided, nothing is enforced.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use support::{at_once, chat, stack};
use tokio::time::Instant;
use tollgate_budget::{Budget, BudgetBuilder, ChargeProfile, Charging, Limit, Uncapped};
use tollgate_sim::script::{Reply, Scripted};
use tower::ServiceExt;

fn limits() -> BudgetBuilder {
    Budget::builder()
        .limit(Limit::requests(10).per_minute())
        .limit(Limit::tokens(1000).per_minute())
        .max_wait(Duration::from_secs(50))
        .charging(ChargeProfile::sum().settles(true))
}

// X08
#[tokio::test(start_paused = true)]
async fn in_shadow_mode_all_pass_at_once_and_what_would_have_been_done_is_counted() {
    let budget = limits().shadow(true).build().unwrap();
    let upstream = Scripted::by(|_| Reply::chat("m", 10, 5));
    let service = stack(&budget, &upstream);
    let begun = Instant::now();
    let statuses = at_once(service.clone(), 24, || chat(40, 5)).await;
    assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited");
    assert!(statuses.iter().all(|status| *status == 200));
    assert_eq!(upstream.count(), 24);
    // Larger than the whole limit.
    at_once(service, 1, || chat(8000, 5)).await;
    let seen = budget.snapshot();
    let shadow = seen.shadow.unwrap();
    assert_eq!(shadow.admitted, 10, "{shadow:?}");
    assert_eq!(shadow.waited + shadow.refused, 15, "{shadow:?}");
    assert!(shadow.refused >= 1, "{shadow:?}");
    assert!(shadow.longest_wait <= Duration::from_secs(50), "{shadow:?}");
    assert_eq!((seen.queued, seen.in_flight), (0, 0));
    // The books are real: what was used, settled, beyond the limit.
    assert_eq!((seen.limits[0].used, seen.limits[0].debt), (25, 15));
    assert_eq!(seen.limits[1].used, 25 * 15, "{:?}", seen.limits[1]);
    assert_eq!(limits().build().unwrap().snapshot().shadow, None);
}

// X08
#[tokio::test(start_paused = true)]
async fn what_passes_in_shadow_mode_is_byte_for_byte_what_passes_without_a_budget() {
    let reply = || {
        Reply::status(429)
            .header("retry-after", "3")
            .header("x-mine", "yes")
    };
    let bare = Scripted::by(move |_| reply());
    let shadowed = Scripted::by(move |_| reply());
    let budget = limits().shadow(true).build().unwrap();
    async fn parts<B>(response: Response<B>) -> (http::StatusCode, http::HeaderMap, Bytes)
    where
        B: http_body::Body<Data = Bytes>,
        B::Error: std::fmt::Debug,
    {
        let (parts, body) = response.into_parts();
        (
            parts.status,
            parts.headers,
            body.collect().await.unwrap().to_bytes(),
        )
    }
    for _ in 0..20 {
        let without = parts(bare.clone().oneshot(chat(400, 900)).await.unwrap()).await;
        let with = stack(&budget, &shadowed).oneshot(chat(400, 900));
        assert_eq!(parts(with.await.unwrap()).await, without);
    }
    let sent = |upstream: &Scripted| {
        let seen = upstream.attempts();
        seen.into_iter()
            .map(|seen| (seen.headers, seen.body))
            .collect::<Vec<_>>()
    };
    assert_eq!(sent(&shadowed), sent(&bare));
}

// X08
#[tokio::test(start_paused = true)]
async fn in_shadow_mode_a_cap_is_reckoned_with_and_not_written() {
    let sent = |shadow| async move {
        let upstream = Scripted::by(|_| Reply::status(500));
        let budget = limits()
            .charging(Charging::all(ChargeProfile::sum()).uncapped(Uncapped::Write(321)))
            .shadow(shadow)
            .build()
            .unwrap();
        at_once(stack(&budget, &upstream), 1, || chat(40, None)).await;
        let body = upstream.attempts()[0].body.clone();
        (
            String::from_utf8_lossy(&body).into_owned(),
            budget.snapshot().limits[1].used,
        )
    };
    let (written, used) = sent(false).await;
    assert!(written.contains("321"), "{written}");
    let (as_it_came, as_if) = sent(true).await;
    assert!(!as_it_came.contains("321"), "{as_it_came}");
    assert_eq!(
        as_if, used,
        "the books are those of a budget that writes it"
    );
}
