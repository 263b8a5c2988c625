//! Keys: asked for every request, rotated without building anew, never used again once refused.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use common::*;
use tokio::time::advance;
use tollgate_core::call::{CallOptions, Skipped};
use tollgate_fallback::{
    Candidate, Credential, CredentialProvider, FallbackHealth, ModelChain, Target, TargetState,
};
use tollgate_sim::script::{Reply, Scripted};
use tower::Layer;

fn key(secret: &str) -> Credential {
    Credential::bearer(secret).unwrap()
}

fn keyed(keys: impl CredentialProvider + 'static) -> Target {
    let there = Target::new("there", "https://b.example").unwrap();
    there.credential(keys).model("m")
}

/// Serves these keys and refuses all others with this status.
fn serves(good: &'static [&'static str], status: u16) -> Scripted {
    Scripted::by(move |attempt| {
        let key = attempt.header("authorization").unwrap_or_default();
        let key = key.strip_prefix("Bearer ").unwrap_or_default();
        if good.contains(&key) {
            Reply::chat("m", 1, 1)
        } else {
            error(status, "invalid_api_key")
        }
    })
}

fn sent(upstream: &Scripted) -> Vec<String> {
    let seen = upstream.attempts();
    let keys = seen.iter().map(|a| a.header("authorization"));
    keys.map(|key| key.unwrap_or_default().replace("Bearer ", ""))
        .collect()
}

// L13
#[tokio::test(start_paused = true)]
async fn a_key_that_is_rotated_is_used_by_the_very_next_request() {
    let now = Arc::new(Mutex::new(key("key-1")));
    let asked = now.clone();
    let there = keyed(move || asked.lock().unwrap().clone());
    let upstream = serves(&["key-1", "key-2"], 401);
    let service = wrap(&upstream, ModelChain::new([there]).unwrap());
    send(&service, chat("m")).await;
    *now.lock().unwrap() = key("key-2");
    send(&service, chat("m")).await;
    assert_eq!(sent(&upstream), ["key-1", "key-2"]);
}

// F12, L13
#[tokio::test(start_paused = true)]
async fn a_key_that_is_rotated_after_a_refusal_is_not_taken_for_the_dead_one() {
    let now = Arc::new(Mutex::new(key("old")));
    let asked = now.clone();
    let there = keyed(move || asked.lock().unwrap().clone());
    let chain = ModelChain::new([there.into(), Candidate::model("b")]).unwrap();
    let upstream = Scripted::by(|attempt| match attempt.header("authorization") {
        Some("Bearer old") => error(401, "invalid_api_key"),
        _ => Reply::chat("m", 1, 1),
    });
    let service = wrap(&upstream, chain);
    assert_eq!(served_by(&send(&service, chat("m")).await).0, 1);
    assert_eq!(served_by(&send(&service, chat("m")).await).0, 1, "dead");
    *now.lock().unwrap() = key("new");
    assert_eq!(served_by(&send(&service, chat("m")).await).0, 0);
    assert_eq!(sent(&upstream), ["old", "key-a", "key-a", "new"]);
}

// F12
#[tokio::test(start_paused = true)]
async fn of_several_keys_the_next_is_tried_and_the_refused_one_not_again_for_a_while() {
    for status in [401, 402, 403] {
        let upstream = serves(&["key-3"], status);
        let keys = vec![key("key-1"), key("key-2"), key("key-3")];
        let chain = ModelChain::new([keyed(keys).into(), Candidate::model("b")]);
        let health = FallbackHealth::new().dead_for(Duration::from_secs(90));
        let service = layer(chain.unwrap())
            .health(health.clone())
            .layer(upstream.clone());
        let answer = send(&service, chat("m")).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(sent(&upstream), ["key-1", "key-2", "key-3"]);
        assert_eq!(served_by(&answer).0, 0, "the same target");
        let tried = attempts(&answer);
        assert!(tried.iter().all(|a| a.target.as_deref() == Some("there")));
        let seen = health.snapshot();
        assert_eq!(seen.dead_keys, 2);
        let dead = |state| state == TargetState::CredentialDead;
        assert!(seen.targets.iter().all(|target| dead(target.state)));

        send(&service, chat("m")).await;
        assert_eq!(sent(&upstream)[3..], ["key-3"], "the dead are left alone");
        advance(Duration::from_secs(90)).await;
        send(&service, chat("m")).await;
        assert_eq!(
            sent(&upstream)[4],
            "key-1",
            "and come back after their time"
        );
    }
}

// F12
#[tokio::test(start_paused = true)]
async fn when_every_key_is_refused_each_was_used_once_and_the_next_target_serves() {
    let upstream = Scripted::by(|attempt| match attempt.header("authorization") {
        Some("Bearer key-a") => Reply::chat("b", 1, 1),
        _ => error(401, "invalid_api_key"),
    });
    let keys = [key("key-1"), key("key-2")];
    let again = keyed(key("key-2")).path("/v2/chat/completions");
    let again = again.model("m-2");
    let chain = ModelChain::new([keyed(keys).into(), again.into(), Candidate::model("b")]);
    let service = wrap(&upstream, chain.unwrap());
    let answer = send(&service, chat("m")).await;
    assert_eq!(sent(&upstream), ["key-1", "key-2", "key-a"]);
    let passed_over = &attempts(&answer)[2];
    assert_eq!(passed_over.skipped, Some(Skipped::DeadCredential));
    assert_eq!(passed_over.model.as_deref(), Some("m-2"));
}

// F12, F20
#[tokio::test(start_paused = true)]
async fn a_lone_target_and_a_call_without_fallbacks_have_all_the_keys_of_their_target() {
    for without_fallbacks in [false, true] {
        let upstream = serves(&["key-2"], 401);
        let alone = keyed([key("key-1"), key("key-2")]);
        let chain = if without_fallbacks {
            ModelChain::new([alone.into(), Candidate::model("b")])
        } else {
            ModelChain::new([alone])
        };
        let service = wrap(&upstream, chain.unwrap());
        for _ in 0..2 {
            let mut request = chat("m");
            if without_fallbacks {
                let options = CallOptions::new().without_fallbacks();
                request.extensions_mut().insert(options);
            }
            assert_eq!(send(&service, request).await.status(), 200);
        }
        assert_eq!(sent(&upstream), ["key-1", "key-2", "key-2"]);
    }
}

// F12, F18
#[tokio::test(start_paused = true)]
async fn when_all_keys_are_dead_the_lone_target_is_asked_all_the_same() {
    let upstream = serves(&[], 401);
    let service = wrap(&upstream, ModelChain::new([keyed(key("key-1"))]).unwrap());
    for _ in 0..2 {
        assert_eq!(send(&service, chat("m")).await.status(), 401);
    }
    assert_eq!(upstream.count(), 2, "the provider's answer, not ours");
}

/// Gives the same key whatever it is asked.
struct Stubborn(Credential);

impl CredentialProvider for Stubborn {
    fn credential(&self, _: &dyn Fn(&Credential) -> bool) -> Option<Credential> {
        Some(self.0.clone())
    }
}

// F12
#[tokio::test(start_paused = true)]
async fn a_provider_that_insists_on_a_refused_key_is_not_obeyed() {
    let upstream = serves(&["key-a"], 401);
    let there = keyed(Stubborn(key("key-1")));
    let chain = ModelChain::new([there.into(), Candidate::model("b")]).unwrap();
    let answer = send(&wrap(&upstream, chain), chat("m")).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(sent(&upstream), ["key-1", "key-a"]);
}
