//! The limits hold to the last unit, in every enforcement and scope.
#![allow(clippy::unwrap_used)]
mod support;

use std::{collections::HashMap, time::Duration};

use support::{ask, chat, chat_of, messages};
use tokio::time::{advance, sleep};
use tollgate_sim::{Charging, Decision, Enforcement, SimLimit, SimProvider, Unit};

const WINDOW: Duration = Duration::from_secs(6);

async fn flood(enforcement: Enforcement, seed: u64) -> tollgate_sim::Account {
    let provider = SimProvider::builder()
        .requests(20)
        .tokens(3_000)
        .window(WINDOW)
        .enforcement(enforcement)
        .build();
    let mut rng = fastrand::Rng::with_seed(seed);
    for _ in 0..600 {
        advance(Duration::from_micros(rng.u64(0..600_000))).await;
        ask(&provider, chat(rng.usize(0..400), rng.u64(0..300))).await;
    }
    provider.account()
}

#[tokio::test(start_paused = true)]
async fn rolling_admits_no_more_than_the_limit_in_any_window() {
    for seed in 0..4 {
        let account = flood(Enforcement::Rolling, seed).await;
        assert!(account.totals.refused > 0 && account.totals.admitted > 0);
        assert!(account.max_in_any_window(0) <= 20);
        assert!(account.max_in_any_window(1) <= 3_000);
        assert!(
            account.max_in_any_window(1) > 2_000,
            "it lets through what it may"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_admits_no_more_than_its_burst_and_what_leaked() {
    for (burst, seed) in [(None, 0), (Some(10), 1)] {
        let account = flood(Enforcement::Bucket { burst }, seed).await;
        let admitted: Vec<_> = account
            .requests
            .iter()
            .filter(|seen| seen.decision == Decision::Admitted)
            .map(|seen| seen.at)
            .collect();
        for (i, first) in admitted.iter().enumerate() {
            for (j, last) in admitted.iter().enumerate().skip(i) {
                let most = burst.unwrap_or(20) as f64 + 20.0 * (*last - *first).as_secs_f64() / 6.0;
                assert!((j - i + 1) as f64 <= most + 1e-6);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fixed_window_and_a_quantum_admit_no_more_than_their_part() {
    let q = Duration::from_secs(1);
    for (enforcement, window, most) in [
        (Enforcement::Fixed, WINDOW, 3_000),
        (Enforcement::Quantised { q }, q, 500),
    ] {
        let account = flood(enforcement, 7).await;
        let mut sums: HashMap<u128, u64> = HashMap::new();
        for seen in &account.requests {
            if seen.decision == Decision::Admitted {
                *sums
                    .entry(seen.at.as_nanos() / window.as_nanos())
                    .or_default() += seen.cost.tokens;
            }
        }
        assert!(sums.values().all(|sum| *sum <= most));
        assert!(account.totals.admitted > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_stated_wait_is_long_enough_and_not_longer() {
    for enforcement in [
        Enforcement::Rolling,
        Enforcement::Bucket { burst: None },
        Enforcement::Fixed,
    ] {
        let provider = SimProvider::builder()
            .tokens(1_000)
            .window(WINDOW)
            .enforcement(enforcement)
            .build();
        ask(&provider, chat(400, 700)).await;
        sleep(Duration::from_millis(700)).await;
        let refused = ask(&provider, chat(400, 500)).await;
        assert_eq!(refused.status, 429, "{enforcement:?}");
        let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
        let secs: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert_eq!(secs, wait.div_ceil(1_000));
        sleep(Duration::from_millis(wait - 1)).await;
        assert_eq!(
            ask(&provider, chat(400, 500)).await.status,
            429,
            "{enforcement:?}"
        );
        sleep(Duration::from_millis(1)).await;
        assert_eq!(
            ask(&provider, chat(400, 500)).await.status,
            200,
            "{enforcement:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_takes_nothing_of_any_other_limit_but_counts_as_a_request() {
    for (lenient, used) in [(false, 2), (true, 1)] {
        let builder = SimProvider::builder().requests(10).tokens(1_000);
        let provider = if lenient { builder.lenient() } else { builder }.build();
        ask(&provider, chat(0, 900)).await;
        let refused = ask(&provider, chat(0, 200)).await;
        assert_eq!(refused.status, 429);
        assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("100"));
        let left = (10 - used).to_string();
        assert_eq!(
            refused.header("x-ratelimit-remaining-requests"),
            Some(&*left)
        );
        let decision = provider.account().requests[1].decision;
        assert_eq!(
            decision,
            Decision::Refused {
                unit: Unit::Tokens,
                never: false
            }
        );
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_that_are_sent_again_at_once_starve_themselves() {
    let provider = SimProvider::builder().requests(2).window(WINDOW).build();
    for _ in 0..2 {
        ask(&provider, chat(0, 1)).await;
    }
    let mut statuses = Vec::new();
    for _ in 0..20 {
        sleep(Duration::from_secs(1)).await;
        statuses.push(ask(&provider, chat(0, 1)).await.status.as_u16());
    }
    assert!(statuses.iter().all(|status| *status == 429));
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_the_limit_is_told_so_and_no_wait() {
    let provider = SimProvider::builder().requests(10).tokens(1_000).build();
    let refused = ask(&provider, chat(0, 1_001)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("1000"));
    let text = refused.json()["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(text.starts_with("Request too large for gpt-test"), "{text}");
    assert!(text.contains("Limit 1000, Requested 1001."), "{text}");
}

#[tokio::test(start_paused = true)]
async fn scopes_have_books_of_their_own() {
    let provider = SimProvider::builder().requests(1).per_model().build();
    assert_eq!(ask(&provider, chat_of("a", 0, 1)).await.status, 200);
    assert_eq!(ask(&provider, chat_of("a", 0, 1)).await.status, 429);
    assert_eq!(ask(&provider, chat_of("b", 0, 1)).await.status, 200);

    let provider = SimProvider::builder().requests(1).per_key().build();
    let keyed = |key: &str| {
        let mut request = chat(0, 1);
        let value = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        request
    };
    assert_eq!(ask(&provider, keyed("sk-1")).await.status, 200);
    assert_eq!(ask(&provider, keyed("sk-1")).await.status, 429);
    assert_eq!(ask(&provider, keyed("sk-2")).await.status, 200);
    let account = provider.account();
    assert_eq!(account.requests[0].key, account.requests[1].key);
    assert_ne!(account.requests[0].key, account.requests[2].key);
    assert!(!format!("{account:?}").contains("sk-1"));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_one_model_leaves_the_others_alone() {
    let provider = SimProvider::builder()
        .limit(SimLimit::requests(1).for_model("small"))
        .requests(3)
        .build();
    assert_eq!(ask(&provider, chat_of("small", 0, 1)).await.status, 200);
    assert_eq!(ask(&provider, chat_of("small", 0, 1)).await.status, 429);
    assert_eq!(ask(&provider, chat_of("large", 0, 1)).await.status, 200);
    assert_eq!(
        ask(&provider, chat_of("large", 0, 1)).await.status,
        429,
        "the common limit counts all"
    );
}

#[tokio::test(start_paused = true)]
async fn settling_gives_back_what_was_not_used_when_the_answer_ends() {
    let provider = SimProvider::builder()
        .tokens(1_000)
        .charging(Charging::Settle)
        .reply_tokens(50)
        .latency(Duration::from_secs(1))
        .build();
    let (first, second) = tokio::join!(ask(&provider, chat(40, 900)), async {
        sleep(Duration::from_millis(500)).await;
        ask(&provider, chat(40, 900)).await
    });
    assert_eq!(first.status, 200);
    assert_eq!(
        second.status, 429,
        "reserved in full while the answer is made"
    );
    let third = ask(&provider, chat(40, 900)).await;
    assert_eq!(third.status, 200);
    assert_eq!(
        third.header("x-ratelimit-remaining-tokens"),
        Some("30"),
        "1000 - 60 - 910"
    );
    assert_eq!(provider.account().requests[0].cost.tokens, 60);
}

#[tokio::test(start_paused = true)]
async fn real_usage_is_charged_as_it_comes_to_be() {
    let provider = SimProvider::builder()
        .limit(SimLimit::input_tokens(1_000))
        .limit(SimLimit::output_tokens(100))
        .charging(Charging::RealUsage)
        .reply_tokens(80)
        .cached_share(0.5)
        .build();
    assert_eq!(
        ask(&provider, messages(400, 5_000, false)).await.status,
        200
    );
    let second = ask(&provider, messages(400, 5_000, false)).await;
    assert_eq!(second.status, 200, "the cap does not count");
    assert_eq!(
        second.header("anthropic-ratelimit-input-tokens-remaining"),
        Some("900")
    );
    assert_eq!(
        second.header("anthropic-ratelimit-output-tokens-remaining"),
        Some("20")
    );
    let third = ask(&provider, messages(400, 5_000, false)).await;
    assert_eq!(
        third.header("anthropic-ratelimit-output-tokens-remaining"),
        Some("0"),
        "in debt"
    );
    assert_eq!(provider.account().requests[0].cost.output, 80);
}
