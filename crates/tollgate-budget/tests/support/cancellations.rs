//! Random cancellations: requests come, wait, are sent, answered and dropped at any point, and the books are held against
//! what is known of each.
//!
//! Used by a test (some) and by the bench (a million).
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tollgate_budget::{Acquire, Ask, Budget, BudgetStore, Charge, Cost, Limit, Reservation};
use tollgate_core::{call::Priority, principal::Principal};

/// Where a request stands.
enum Life {
    Waiting(Pin<Box<Acquire>>),
    Held(Reservation),
    Sent(Charge),
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Done {
    pub(crate) cancelled_waiting: u64,
    pub(crate) cancelled_held: u64,
    pub(crate) cancelled_sent: u64,
    pub(crate) settled: u64,
}

impl Done {
    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled_waiting + self.cancelled_held + self.cancelled_sent
    }
}

fn acquire(budget: &Budget, rng: &mut fastrand::Rng) -> Pin<Box<Acquire>> {
    let priority = [Priority::Low, Priority::Normal, Priority::High][rng.usize(..3)];
    let ask = Ask::new(Cost::request().tokens(rng.u64(1..100), rng.u64(1..100)))
        .principal(Principal::from_digest(rng.u64(..20)))
        .priority(priority);
    Box::pin(budget.acquire(ask))
}

/// Runs on a paused clock until so many were cancelled; panics if anything is lost or left behind.
pub(crate) async fn run(seed: u64, cancellations: u64) -> Done {
    let second = Duration::from_secs(1);
    let budget = Budget::builder()
        .limit(Limit::requests(100).per(second))
        .limit(Limit::tokens(10_000).per(second))
        .max_wait(3600 * second)
        .build()
        .expect("limits that can be");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut lives: Vec<Life> = Vec::new();
    let mut done = Done::default();
    let mut steps = 0u64;
    while done.cancelled() < cancellations {
        steps += 1;
        if steps % 64 == 0 {
            tokio::time::advance(Duration::from_millis(rng.u64(..100))).await;
            count(&budget, &mut lives, seed);
        }
        let step = rng.u8(..8);
        if lives.is_empty() || (step < 4 && lives.len() < 400) {
            let wait = acquire(&budget, &mut rng);
            poll(Life::Waiting(wait), &mut lives);
            continue;
        }
        let life = lives.swap_remove(rng.usize(..lives.len()));
        match (step, life) {
            (0..=5, Life::Waiting(wait)) => {
                done.cancelled_waiting += 1;
                drop(wait);
            }
            (0..=4, Life::Held(held)) => {
                done.cancelled_held += 1;
                drop(held);
            }
            (0..=4, Life::Sent(charge)) => {
                done.cancelled_sent += 1;
                drop(charge);
            }
            (5, Life::Sent(charge)) => {
                done.settled += 1;
                charge.settle(Cost::request().tokens(rng.u64(..300), 0));
            }
            (6, Life::Sent(charge)) => {
                done.settled += 1;
                charge.tokens_back();
            }
            (_, Life::Sent(charge)) => {
                done.settled += 1;
                charge.cancel();
            }
            (_, Life::Held(held)) => lives.push(Life::Sent(held.send())),
            (_, waiting) => poll(waiting, &mut lives),
        }
    }
    // Nobody who waits is lost: each goes on as soon as time allows.
    let (waiting, under_way): (Vec<_>, Vec<_>) = lives
        .into_iter()
        .partition(|life| matches!(life, Life::Waiting(_)));
    drop(under_way);
    let waiting: Vec<_> = waiting
        .into_iter()
        .map(|life| match life {
            Life::Waiting(wait) => tokio::spawn(async { wait.await.map(|held| drop(held.send())) }),
            _ => unreachable!("parted just now"),
        })
        .collect();
    for wait in waiting {
        let got = wait.await.expect("no panic");
        got.unwrap_or_else(|refused| panic!("seed {seed}: {refused:?}"));
    }
    count(&budget, &mut Vec::new(), seed);
    // What was used passes, and the whole limit is there again.
    tokio::time::advance(10 * second).await;
    for limit in budget.snapshot().limits {
        assert_eq!((limit.used, limit.debt), (0, 0), "seed {seed}: {limit:?}");
    }
    done
}

fn poll(life: Life, lives: &mut Vec<Life>) {
    let Life::Waiting(mut wait) = life else {
        return lives.push(life);
    };
    let mut context = Context::from_waker(Waker::noop());
    lives.push(match wait.as_mut().poll(&mut context) {
        Poll::Pending => Life::Waiting(wait),
        Poll::Ready(got) => Life::Held(got.expect("nothing is refused")),
    });
}

/// The books say what is known of each request.
fn count(budget: &Budget, lives: &mut Vec<Life>, seed: u64) {
    let waits = |life: &&Life| matches!(life, Life::Waiting(_));
    let mut waiting = lives.iter().filter(waits).count();
    // What was granted since is in flight, and its future does not know it yet; a poll may grant to one before it.
    let mut quiet = 0;
    while quiet < 2 {
        for life in std::mem::take(lives) {
            poll(life, lives);
        }
        let before = std::mem::replace(&mut waiting, lives.iter().filter(waits).count());
        quiet = if waiting == before { quiet + 1 } else { 0 };
    }
    let seen = budget.snapshot();
    assert_eq!(
        (seen.queued, seen.in_flight),
        (waiting, lives.len() - waiting),
        "seed {seed}"
    );
    assert_eq!(
        seen.limits[0].queued, waiting as u64,
        "seed {seed}: {seen:?}"
    );
    assert_eq!(
        seen.limits[0].reserved,
        (lives.len() - waiting) as u64,
        "seed {seed}: {seen:?}"
    );
}
