//! The ledger under the whole stack: it agrees with the provider's own account, and gives caps back what they had spent.
#![allow(clippy::unwrap_used)]
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tollgate::{
    UsageRecorderLayer,
    budget::{Scope, Spent},
    call::CallOptions,
    prelude::*,
    price::{Pico, Price, PriceTable},
    principal::Principal,
};
use tollgate_ledger::{By, Ledger, Reader, Select};
use tollgate_sim::{Fault, Latency, SimProvider, Unit};
use tower::{ServiceBuilder, ServiceExt};

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("usage.sqlite");
    (directory, path)
}

fn prices() -> PriceTable {
    let price = |input, output| Price::per_million(input, output).unwrap();
    PriceTable::new()
        .with("gpt-5", price("1.25", "10"))
        .with("gpt-5-mini", price("0.25", "2"))
}

fn request(n: u64) -> Request<Full<Bytes>> {
    let body = json!({
        "model": "gpt-5",
        "stream": n % 2 == 0,
        "max_tokens": 20 + n % 50,
        "messages": [{"role": "user", "content": "lorem ".repeat(1 + n as usize % 40)}],
    });
    let who = Principal::from_digest(n % 3);
    Request::post("https://provider.example/v1/chat/completions")
        .header("content-type", "application/json")
        .extension(CallOptions::new().principal_digest(who))
        .body(Full::from(body.to_string()))
        .unwrap()
}

/// Runs on simulated time; the ledger's thread knows only the real one.
fn simulated<F: Future>(path: &Path, run: impl FnOnce(Ledger) -> F) -> F::Output {
    let ledger = Ledger::with_capacity(100_000, path).unwrap();
    let simulated = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let output = simulated.block_on(run(ledger.clone()));
    drop(simulated);
    let real = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    real.block_on(ledger.flush(Duration::from_secs(60)))
        .unwrap();
    assert_eq!(ledger.snapshot().dropped, 0);
    output
}

#[test]
fn the_ledger_agrees_with_the_provider_to_the_token_and_the_request() {
    const CALLS: u64 = 300;
    let (_directory, path) = place();
    let asked = AtomicU64::new(0);
    // Faults of every kind that is not billed: what a caller pays for and never gets, nobody can know but the provider.
    let provider = SimProvider::builder()
        .requests(600)
        .tokens(100_000)
        .latency(Latency::LogNormal {
            median: Duration::from_millis(300),
            sigma: 0.5,
        })
        .on(move |_| match asked.fetch_add(1, Ordering::Relaxed) % 23 {
            3 => Fault::Status(503),
            7 => Fault::Overloaded,
            11 => Fault::RateLimited {
                unit: Unit::Tokens,
                retry_after: Some(Duration::from_secs(1)),
            },
            _ => Fault::None,
        })
        .build();
    let seen = provider.clone();
    let totals = UsageTotals::new();
    let snapshot = simulated(&path, |ledger| {
        let totals = totals.clone();
        async move {
            let outer = UsageRecorderLayer::new(ledger.clone()).and(totals.clone());
            let client = ServiceBuilder::new()
                .layer(outer.prices(prices()))
                .model_fallback(ModelChain::new(["gpt-5", "gpt-5-mini"]).unwrap())
                .retry_on_rate_limit(RateLimitPolicy::default())
                .token_budget(
                    Budget::in_memory([
                        Limit::requests(600).per_minute(),
                        Limit::tokens(100_000).per_minute(),
                    ])
                    .unwrap(),
                )
                .layer(UsageRecorderLayer::new(ledger).prices(prices()))
                .service(provider);
            let calls = (0..CALLS).map(|n| {
                let client = client.clone();
                async move {
                    let answer = client.oneshot(request(n)).await.unwrap();
                    answer.into_body().collect().await.unwrap();
                }
            });
            join_all(calls).await;
            totals.snapshot().all
        }
    });

    let account = seen.totals();
    let reader = Reader::open(&path).unwrap();
    let calls = reader.sums(&Select::calls()).unwrap();
    assert_eq!(calls.records, CALLS);
    assert_eq!(
        calls.requests, account.requests,
        "each request that arrived"
    );
    assert_eq!(calls.rate_limited, account.status_429);
    assert_eq!(calls.input, u128::from(account.billed_input));
    assert_eq!(calls.output, u128::from(account.billed_output));
    assert_eq!(
        (calls.cost, calls.unpriced),
        (snapshot.cost, 0),
        "the live totals and the ledger say the same"
    );
    assert!(account.requests > CALLS, "there were faults");
    let sent = reader.sums(&Select::sent()).unwrap();
    assert_eq!(
        (sent.records, sent.requests),
        (account.requests, account.requests)
    );
    assert_eq!(sent.rate_limited, account.status_429);
    assert_eq!((sent.input, sent.output), (calls.input, calls.output));
    let by_model = reader.sums_by(By::Model, &Select::calls()).unwrap();
    assert_eq!(
        by_model.iter().map(|(_, sums)| sums.cost).sum::<Pico>(),
        calls.cost
    );
}

#[test]
fn a_cap_that_was_spent_before_a_restart_stays_spent() {
    let (_directory, path) = place();
    let provider = SimProvider::builder().reply_tokens(10).build();
    let begin = tollgate::clock::wall();
    let cap = || {
        Budget::in_memory([
            Limit::tokens(1_000).per_calendar_month("UTC").named("all"),
            Limit::requests(4)
                .per_calendar_month("UTC")
                .scope(Scope::Principal)
                .named("each"),
        ])
        .unwrap()
    };
    let status = |ledger: Ledger, budget: Budget, n: u64| {
        let client = ServiceBuilder::new()
            .layer(UsageRecorderLayer::new(ledger))
            .token_budget(budget)
            .service(provider.clone());
        async move {
            let answer = client.oneshot(request(n)).await.unwrap();
            let status = answer.status();
            answer.into_body().collect().await.unwrap();
            status.as_u16()
        }
    };
    // The first process: three calls of one user, one of another.
    let before = cap();
    let (status, first) = (&status, &before);
    simulated(&path, |ledger| async move {
        for n in [0, 3, 6, 1] {
            assert_eq!(status(ledger.clone(), first.clone(), n).await, 200);
        }
    });
    // The next one knows nothing, but the ledger does.
    let after = cap();
    let reader = Reader::open(&path).unwrap();
    let month = Select::calls().since(begin);
    let all = reader.sums(&month).unwrap();
    let mut spent = vec![Spent::new("all", u64::try_from(all.tokens()).unwrap())];
    for (who, sums) in reader.sums_by(By::Principal, &month).unwrap() {
        spent.extend(who.map(|who| Spent::new("each", sums.requests).key(Arc::from(who))));
    }
    after.restore(spent).unwrap();
    let used = |budget: &Budget| {
        let mut used: Vec<_> = budget
            .spent()
            .into_iter()
            .map(|spent| (spent.limit, spent.key, spent.units))
            .collect();
        used.sort();
        used
    };
    assert_eq!(used(&after), used(&before));
    simulated(&path, |ledger| async move {
        assert_eq!(
            status(ledger.clone(), after.clone(), 0).await,
            200,
            "the fourth of the user"
        );
        assert_eq!(
            status(ledger.clone(), after.clone(), 3).await,
            429,
            "there is no fifth"
        );
        assert_eq!(
            status(ledger.clone(), after.clone(), 1).await,
            200,
            "the other user has two left"
        );
    });
}
