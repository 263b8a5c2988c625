//! Whatever candidates answer, in whatever order: what always holds.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::*;
use http_body_util::BodyExt;
use proptest::{collection::vec, prelude::*};
use tollgate_core::{
    call::{Call, CallOptions, Steering},
    timeouts::Timeouts,
};
use tollgate_fallback::{
    Candidate, Credential, FallbackHealth, FallbackPolicy, ModelChain, OnExhausted, Target,
    TargetState,
};
use tollgate_sim::{
    SimError,
    probe::ReadyProbe,
    script::{Attempt, Reply, Scripted},
};
use tower::{Layer, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    KeyRefused(u16),
    Limited(Option<u64>),
    Down(u16),
    Gone,
    TooLong,
    Invalid,
    Filtered,
    Reset,
    Unsent,
    InBand,
    CutBeforeContent,
    CutAfterContent,
    Silent,
}

fn fates() -> impl Strategy<Value = Fate> {
    use Fate::*;
    prop_oneof![
        3 => Just(Served),
        1 => proptest::sample::select(vec![401, 402, 403]).prop_map(KeyRefused),
        1 => proptest::option::of(1..100_u64).prop_map(Limited),
        2 => proptest::sample::select(vec![500, 502, 503, 529]).prop_map(Down),
        6 => proptest::sample::select(vec![
            Gone, TooLong, Invalid, Filtered, Reset, Unsent, InBand, CutBeforeContent, CutAfterContent, Silent,
        ]),
    ]
}

impl Fate {
    fn reply(self, model: &str, stream: bool) -> Reply {
        let word = format!(
            r#"{{"id":"1","model":"{model}","choices":[{{"index":0,"delta":{{"content":"w"}}}}]}}"#
        );
        match self {
            Self::Served if stream => Reply::sse([&word, "[DONE]"]),
            Self::Served => Reply::chat(model, 1, 1),
            Self::KeyRefused(status) => error(status, "invalid_api_key"),
            Self::Limited(Some(wait)) => Reply::rate_limited(wait),
            Self::Limited(None) => error(429, "rate_limit_exceeded"),
            Self::Down(status) => error(status, "server_error"),
            Self::Gone => error(404, "model_not_found"),
            Self::TooLong => too_long(),
            Self::Invalid => error(400, "invalid_request_error"),
            Self::Filtered => error(400, "content_filter"),
            Self::Reset => Reply::transport_error(SimError::Reset),
            Self::Unsent => Reply::transport_error(SimError::Refused),
            Self::InBand if stream => Reply::sse([r#"{"error":{"type":"overloaded_error"}}"#]),
            Self::InBand => {
                Reply::ok_json(serde_json::json!({"error": {"message": "busy", "code": 503}}))
            }
            Self::CutBeforeContent => Reply::body_breaks_after(""),
            Self::CutAfterContent if stream => Reply::sse([&word]).breaks(SimError::Broken),
            Self::CutAfterContent => Reply::body_breaks_after(r#"{"choices":["#),
            Self::Silent => Reply::pending(),
        }
    }
}

#[derive(Clone, Debug)]
struct Ask {
    stream: bool,
    buffered: bool,
    fallbacks: bool,
    max: Option<u32>,
    /// Seconds that pass before it.
    pause: u64,
    fates: Vec<Fate>,
}

fn asks() -> impl Strategy<Value = Ask> {
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.8));
    let max = proptest::option::of(1..7_u32);
    (flags, max, 0..40_u64, vec(fates(), 16)).prop_map(|(flags, max, pause, fates)| Ask {
        stream: flags.0,
        buffered: flags.1,
        fallbacks: flags.2,
        max,
        pause,
        fates,
    })
}

fn chain_of(pooled: bool, windows: bool) -> ModelChain {
    let there = |name: &str, keys: usize| {
        let keys: Vec<_> = (0..keys)
            .map(|n| Credential::bearer(&format!("{name}-{n}")).unwrap())
            .collect();
        let url = format!("https://{name}.example");
        Target::new(name, &url).unwrap().credential(keys).model("b")
    };
    let two: Vec<Candidate> = if pooled {
        vec![Candidate::pool([there("b-1", 2), there("b-2", 1)])]
    } else {
        vec![there("b-1", 1).into(), there("b-2", 2).into()]
    };
    let mut all = vec![Candidate::model("a")];
    all.extend(two);
    all.push(Candidate::model("c"));
    if windows {
        all = (1..)
            .zip(all)
            .map(|(n, c)| c.context_window(10_000 * n))
            .collect();
    }
    ModelChain::new(all).unwrap()
}

fn key_of(attempt: &Attempt) -> String {
    attempt
        .header("authorization")
        .unwrap_or_default()
        .to_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    // F01, F02, F04, F05, F12, F18, F20
    #[test]
    fn attempts_are_bounded_keys_are_not_reused_and_nothing_is_left(
        pooled in any::<bool>(), windows in any::<bool>(), first in any::<bool>(), memory in 0..61_u64,
        asks in vec(asks(), 1..7),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let fates: Arc<Mutex<Vec<Fate>>> = Arc::default();
            let upstream = Scripted::by({
                let fates = fates.clone();
                move |attempt| {
                    let stream = attempt.body.windows(6).any(|word| word == b"stream");
                    // Beyond the script all is well, so that every call ends.
                    let fate = fates.lock().unwrap().pop().unwrap_or(Fate::Served);
                    fate.reply(&attempt.model().unwrap(), stream)
                }
            });
            let probe = ReadyProbe::new(upstream.clone()).pending_first();
            let seen = probe.handle();
            // Also without a memory beyond the call.
            let health = FallbackHealth::new().dead_for(Duration::from_secs(memory / 30 * 30));
            let policy = FallbackPolicy::default()
                .timeouts(Timeouts::new().first_byte(9 * SECOND).idle(9 * SECOND))
                .on_exhausted(if first { OnExhausted::First } else { OnExhausted::Last });
            let service = layer(chain_of(pooled, windows)).health(health.clone()).policy(policy).layer(probe);
            for ask in asks {
                tokio::time::advance(Duration::from_secs(ask.pause)).await;
                let mut options = CallOptions::new();
                if ask.buffered {
                    options = options.buffered();
                }
                if !ask.fallbacks {
                    options = options.without_fallbacks();
                }
                if let Some(max) = ask.max {
                    options = options.max_attempts(max);
                }
                let call = Call::new(options);
                let mut request = if ask.stream { streamed("a") } else { chat("a") };
                request.extensions_mut().insert(call.clone());
                let before = upstream.count();
                *fates.lock().unwrap() = ask.fates.iter().rev().copied().collect();
                let answer = service.clone().oneshot(request).await;
                let sent = upstream.attempts().split_off(before);
                let met = |n: usize| ask.fates.get(n).copied().unwrap_or(Fate::Served);

                // How often, and by which key.
                let most = ask.max.unwrap_or(3 + if ask.fallbacks { 3 } else { 0 });
                assert!(!sent.is_empty() && sent.len() <= most as usize, "{} of {most}", sent.len());
                assert_eq!(call.attempts_begun() as usize, sent.len());
                let mut dead = HashSet::new();
                for (n, attempt) in sent.iter().enumerate() {
                    assert!(!dead.contains(&key_of(attempt)), "attempt {n} with a dead key");
                    if matches!(met(n), Fate::KeyRefused(_)) {
                        dead.insert(key_of(attempt));
                    }
                    let last = n + 1 == sent.len();
                    let delivered = met(n) == Fate::CutAfterContent && ask.stream && !ask.buffered;
                    let ends = matches!(met(n), Fate::Served | Fate::Invalid | Fate::Filtered) || delivered;
                    assert!(last || !ends, "{:?} is the end", met(n));
                    assert!(ask.fallbacks || attempt.model().as_deref() == Some("a"));
                }
                assert!(ask.fallbacks || sent.len() == 1);

                // What the caller gets.
                let last = met(sent.len() - 1);
                if let Ok(answer) = answer {
                    let status = answer.status();
                    let body = answer.into_body().collect().await;
                    if last == Fate::Served {
                        let whole = String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap();
                        assert_eq!(status, 200);
                        let model = sent.last().unwrap().model().unwrap();
                        assert!(whole.contains(&format!(r#""model":"{model}""#)));
                        assert!(!ask.stream || whole.contains("[DONE]"));
                    } else if status == 200 {
                        // In-band errors pass as they came; what is cut is never a clean end.
                        let clean = [last, met(0)].contains(&Fate::InBand);
                        assert!(clean || body.is_err(), "{last:?}");
                    }
                } else {
                    let here = |fate| matches!(fate, Fate::Reset | Fate::Unsent);
                    assert!(here(last) || here(met(0)), "{last:?}");
                }

                // What is left.
                let snapshot = seen.snapshot();
                assert_eq!((snapshot.in_flight, snapshot.held_ready, snapshot.violations), (0, 0, 0));
                assert!(snapshot.peak_in_flight <= 1);
                assert_eq!(call.steering(), Steering::default());
                assert_eq!(call.attempt_under_way(), None);
                let targets = health.snapshot().targets;
                assert!(targets.iter().all(|target| target.state != TargetState::Probing), "{targets:?}");
            }
        });
    }
}
