//! What every store of budgets must do, and both do.
#![allow(clippy::unwrap_used)]
mod support;

use std::{cell::Cell, future::Future, time::Duration};

use support::{Server, budget};
use tokio::time::{Instant, sleep, timeout};
use tollgate_budget::{Ask, Budget, BudgetStore, Cost, Enforcement, Limit, Scope};
use tollgate_core::{extensions::Reason, principal::Principal};

const SECOND: Duration = Duration::from_secs(1);

fn tokens(units: u64) -> Limit {
    Limit::tokens(units)
        .per(SECOND)
        .enforcement(Enforcement::Rolling)
        .named("tokens")
}

fn ask(units: u64) -> Ask {
    Ask::new(Cost::request().tokens(units, 0))
}

/// Whether it goes soon, without the next window.
async fn goes(store: &impl BudgetStore, ask: Ask) -> bool {
    match timeout(Duration::from_millis(250), store.acquire(ask)).await {
        Ok(Ok(held)) => {
            drop(held.send());
            true
        }
        _ => false,
    }
}

/// What every store does, whatever it keeps its books in. It makes one for each case.
async fn conforms<S: BudgetStore, F: Future<Output = S>>(make: impl Fn(Vec<Limit>) -> F) {
    // The first of both tests has set it.
    let _ = Principal::set_key(*b"the same for all");
    let (back, kept, settled, both, keyed, refuses, left, waits) = tokio::join!(
        make(vec![tokens(100)]),
        make(vec![tokens(100)]),
        make(vec![tokens(100).scope(Scope::Principal)]),
        make(vec![
            tokens(100),
            Limit::requests(2)
                .per(SECOND)
                .enforcement(Enforcement::Rolling)
                .named("requests"),
        ]),
        make(vec![tokens(100).scope(Scope::Principal)]),
        make(vec![tokens(100).refuse()]),
        make(vec![tokens(100)]),
        make(vec![tokens(100)]),
    );
    // A shared store begins as if it had been used.
    sleep(Duration::from_millis(1500)).await;

    // What is not sent is given back at once, and what was sent stays.
    let held = back.acquire(ask(100)).await.unwrap();
    assert!(!goes(&back, ask(1)).await);
    drop(held);
    assert!(goes(&back, ask(100)).await);
    drop(kept.acquire(ask(100)).await.unwrap().send());
    assert!(!goes(&kept, ask(1)).await);

    // A limit of our own settles to what was used.
    let of = |units, user: &str| ask(units).principal(Principal::of(user));
    let charge = settled.acquire(of(100, "alice")).await.unwrap().send();
    charge.settle(Cost::request().tokens(10, 0));
    assert!(goes(&settled, of(80, "alice")).await);

    // All limits or none: what one of them refuses takes nothing of the other.
    assert!(goes(&both, ask(10)).await);
    let never = both.acquire(ask(101)).await.unwrap_err();
    assert_eq!(
        (never.reason, never.limit.as_deref()),
        (Reason::NeverFits, Some("tokens"))
    );
    assert!(goes(&both, ask(10)).await);
    assert!(!goes(&both, ask(10)).await, "two requests");

    // Each key has its own.
    assert!(goes(&keyed, of(100, "alice")).await);
    assert!(goes(&keyed, of(100, "bob")).await);
    assert!(!goes(&keyed, of(1, "alice")).await);

    // A refusal says when to come back, and nobody is refused who fits.
    drop(refuses.acquire(ask(100)).await.unwrap().send());
    let refused = refuses.acquire(ask(50)).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Exhausted);
    assert!(refused.retry_after.unwrap() > Duration::ZERO);

    // Who leaves the queue has taken nothing, and who may not wait so long is refused.
    drop(left.acquire(ask(100)).await.unwrap().send());
    assert!(!goes(&left, ask(100)).await, "it leaves");
    let short = left
        .acquire(ask(100).max_wait(Duration::from_millis(20)))
        .await;
    assert_eq!(short.unwrap_err().reason, Reason::WaitTooLong);
    let came = Instant::now();
    drop(left.acquire(ask(100)).await.unwrap().send());
    assert!(
        came.elapsed() < Duration::from_millis(1800),
        "{:?}",
        came.elapsed()
    );

    // Those who wait go in the order in which they came.
    drop(waits.acquire(ask(100)).await.unwrap().send());
    let turn = Cell::new(0);
    let third = |order: u32| {
        let (waits, turn) = (&waits, &turn);
        async move {
            drop(waits.acquire(ask(30)).await.unwrap().send());
            assert_eq!(turn.get(), order);
            turn.set(order + 1);
        }
    };
    tokio::join!(third(0), third(1), third(2));
}

#[tokio::test(start_paused = true)]
async fn a_budget_in_memory_does_what_a_store_must() {
    conforms(async |limits| Budget::in_memory(limits).unwrap()).await;
}

#[tokio::test]
async fn a_shared_budget_does_what_a_store_must() {
    let server = Server::start().await;
    let number = Cell::new(0);
    conforms(async |limits| {
        number.set(number.get() + 1);
        let name = format!("case {}", number.get());
        let near = Duration::from_millis(80);
        let made = budget(&server)
            .name(name)
            .hold(near)
            .horizon(near)
            .limits(limits);
        made.build().await.unwrap()
    })
    .await;
}
