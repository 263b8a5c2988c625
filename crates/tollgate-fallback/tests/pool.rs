//! Pools: requests spread by what is left of each member's limits.
#![allow(clippy::unwrap_used)]
mod common;

use std::{collections::HashMap, time::Duration};

use common::*;
use tollgate_core::call::CallOptions;
use tollgate_fallback::{Candidate, Credential, FallbackHealth, ModelChain, Target};
use tollgate_sim::script::{Reply, Scripted};
use tower::Layer;

const SECOND: Duration = Duration::from_secs(1);

fn region(name: &str) -> Target {
    let url = format!("https://{name}.example");
    let key = Credential::bearer(&format!("key-{name}")).unwrap();
    Target::new(name, &url).unwrap().credential(key).model("m")
}

fn two() -> ModelChain {
    let pool = Candidate::pool([region("eu"), region("us")]);
    ModelChain::new([pool, Candidate::model("small")]).unwrap()
}

fn hosts(upstream: &Scripted) -> Vec<String> {
    let seen = upstream.attempts();
    seen.iter()
        .map(|a| a.uri.host().unwrap_or_default().replace(".example", ""))
        .collect()
}

fn count(upstream: &Scripted) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for host in hosts(upstream) {
        *counts.entry(host).or_default() += 1;
    }
    counts
}

fn left(reply: Reply, remaining: u32) -> Reply {
    reply
        .header("x-ratelimit-limit-requests", "100")
        .header("x-ratelimit-remaining-requests", &remaining.to_string())
        .header("x-ratelimit-reset-requests", "60s")
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_spreads_over_members_that_nothing_is_known_of() {
    let upstream = Scripted::by(|_| Reply::chat("m", 1, 1).after(SECOND));
    let service = wrap(&upstream, two());
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { send(&service, chat("m")).await.status() })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 200);
    }
    let counts = count(&upstream);
    assert_eq!((counts["eu"], counts["us"]), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn the_member_with_the_larger_share_left_is_asked() {
    // Somebody else uses eu's limit.
    let upstream = Scripted::by(|attempt| {
        let eu = attempt.uri.host() == Some("eu.example");
        let remaining = if eu { 20 } else { 90 };
        left(Reply::chat("m", 1, 1), remaining)
    });
    let service = wrap(&upstream, two());
    for _ in 0..10 {
        send(&service, chat("m")).await;
    }
    let counts = count(&upstream);
    assert_eq!((counts["eu"], counts["us"]), (1, 9), "asked once to learn");
    let members = service.health().snapshot().members;
    let shown: Vec<_> = members
        .iter()
        .map(|m| m.target.as_deref().unwrap())
        .collect();
    assert_eq!(shown, ["eu", "us"], "the fullest first");
    assert!(
        members[0].left < 0.2 && members[1].left > 0.8,
        "{members:?}"
    );
    assert!(members.iter().all(|member| member.under_way == 0));
    // By its own word eu is full again.
    tokio::time::advance(60 * SECOND).await;
    send(&service, chat("m")).await;
    send(&service, chat("m")).await;
    assert_eq!(hosts(&upstream)[10..], ["eu", "us"]);
}

#[tokio::test(start_paused = true)]
async fn a_member_that_fails_is_followed_by_the_others_before_the_chain_goes_on() {
    let upstream = Scripted::by(|attempt| match attempt.uri.host() {
        Some("eu.example") => Reply::rate_limited(30),
        Some("us.example") if attempt.index < 2 => error(503, "overloaded"),
        _ => Reply::chat("m", 1, 1),
    });
    let service = wrap(&upstream, two());
    let answer = send(&service, chat("m")).await;
    assert_eq!(hosts(&upstream), ["eu", "us", "a"]);
    assert_eq!(served_by(&answer), (2, "small".to_owned()));
    tokio::time::advance(6 * SECOND).await;
    let answer = send(&service, chat("m")).await;
    assert_eq!(
        hosts(&upstream)[3..],
        ["us"],
        "the one that is left alone comes last"
    );
    assert_eq!(attempts(&answer).len(), 1, "and is not even passed over");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_fallbacks_stays_with_the_model_it_names() {
    let other = Target::new("cheap", "https://cheap.example").unwrap();
    let pool = Candidate::pool([other.model("cheap"), region("eu")]);
    let upstream = Scripted::by(|_| error(503, "overloaded"));
    let service = wrap(&upstream, ModelChain::new([pool]).unwrap());
    let mut request = chat("m");
    let options = CallOptions::new().without_fallbacks();
    request.extensions_mut().insert(options);
    send(&service, request).await;
    assert_eq!(hosts(&upstream), ["eu"]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_dropped_count_as_under_way_no_longer() {
    let upstream = Scripted::by(|_| Reply::pending());
    let health = FallbackHealth::new();
    let service = layer(two()).health(health).layer(upstream.clone());
    for _ in 0..6 {
        let hanging = tokio::time::timeout(SECOND, send(&service, chat("m")));
        assert!(hanging.await.is_err());
    }
    assert_eq!(hosts(&upstream), ["eu", "us", "eu", "us", "eu", "us"]);
    let members = service.health().snapshot().members;
    assert!(
        members.iter().all(|member| member.under_way == 0),
        "{members:?}"
    );
}

// F14
#[tokio::test(start_paused = true)]
async fn nothing_is_waited_for_while_another_member_is_free() {
    let upstream = Scripted::by(|attempt| {
        let call = attempt.extensions.get::<tollgate_core::call::Call>();
        let wait = call.unwrap().max_queue_wait();
        let expected = match attempt.uri.host() {
            Some("eu.example") => Some(Duration::ZERO),
            Some("us.example") => Some(10 * SECOND),
            _ => None,
        };
        assert_eq!(wait, expected, "{:?}", attempt.uri.host());
        error(503, "overloaded")
    });
    send(&wrap(&upstream, two()), chat("m")).await;
    assert_eq!(hosts(&upstream), ["eu", "us", "a"]);
}

#[test]
fn a_pool_that_cannot_be_is_refused_with_a_sentence() {
    let none: [Target; 0] = [];
    let empty = ModelChain::new([Candidate::pool(none)]).unwrap_err();
    assert_eq!(empty.to_string(), "a pool needs at least one candidate");
    let twice = ModelChain::new([Candidate::pool([region("eu"), region("eu")])]).unwrap_err();
    assert_eq!(twice.to_string(), "`eu` stands in the chain twice");
    let windows = Candidate::pool([region("eu"), region("us")]).context_window(0);
    let window = ModelChain::new([windows]).unwrap_err().to_string();
    assert_eq!(window, "the context window of `eu` must be above zero");
}
