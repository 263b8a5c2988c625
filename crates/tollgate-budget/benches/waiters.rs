//! A hundred thousand requests that wait for one budget: time an operation, memory a waiter; and a million random
//! cancellations.
//!
//! ```console
//! $ taskset -c 0 cargo bench -p tollgate-budget --bench waiters
//! ```
//!
//! One thread, its own CPU time. Two limits, and as many flows as the row says. *Enqueue* is a first poll that has to
//! wait; *grant* is a reservation given back, which lets the next one go, its poll, and another one that comes in its
//! place; *cancel* is a drop, in random order. Memory is all that is allocated after they have come, less what there was
//! before, a waiter: in the books, and with its future, which holds what was asked and is the caller's in any case.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/support/cancellations.rs"]
mod cancellations;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use cpu_time::ThreadTime;
use tollgate_budget::{Acquire, Ask, Budget, BudgetStore, Cost, Limit, Reservation};
use tollgate_core::principal::Principal;

/// Notes who is woken.
struct Bell {
    number: usize,
    rung: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().unwrap().push(self.number);
    }
}

struct Row {
    enqueue: Duration,
    grant: Duration,
    cancel: Duration,
    books: u64,
    bytes: u64,
    wakes: f64,
}

fn acquire(budget: &Budget, number: usize, flows: u64) -> Acquire {
    let ask = Ask::new(Cost::request().tokens(100 + number as u64 % 50, 50))
        .principal(Principal::from_digest(number as u64 % flows));
    budget.acquire(ask)
}

fn poll(wait: &mut Pin<Box<Acquire>>, waker: &Waker) -> Option<Reservation> {
    match wait.as_mut().poll(&mut Context::from_waker(waker)) {
        Poll::Pending => None,
        Poll::Ready(got) => Some(got.unwrap()),
    }
}

fn row(waiters: usize, flows: u64) -> Row {
    let budget = Budget::builder()
        .limit(Limit::requests(1).per_hour())
        .limit(Limit::tokens(100_000_000).per_minute())
        .queue_len(2 * waiters)
        .max_wait(Duration::MAX)
        .build()
        .unwrap();
    let rung = Arc::new(Mutex::new(Vec::with_capacity(waiters)));
    let bells: Vec<Waker> = (0..waiters)
        .map(|number| {
            let rung = Arc::clone(&rung);
            Arc::new(Bell { number, rung }).into()
        })
        .collect();
    let mut first = Box::pin(acquire(&budget, 0, flows));
    let mut held = poll(&mut first, Waker::noop());
    drop(first);

    let mut lines: Vec<Option<Pin<Box<Acquire>>>> = Vec::with_capacity(waiters);
    let mut enqueue = Duration::ZERO;
    let memory = allocation_counter::measure(|| {
        let begun = ThreadTime::now();
        for (number, bell) in bells.iter().enumerate() {
            let mut wait = Box::pin(acquire(&budget, number, flows));
            assert!(poll(&mut wait, bell).is_none());
            lines.push(Some(wait));
        }
        enqueue = begun.elapsed();
    });
    assert_eq!(budget.snapshot().queued, waiters);

    rung.lock().unwrap().clear();
    let grants = waiters.min(50_000);
    let mut wakes = 0;
    let begun = ThreadTime::now();
    for _ in 0..grants {
        drop(held.take());
        while held.is_none() {
            let number = rung.lock().unwrap().pop().expect("somebody is woken");
            wakes += 1;
            let line = &mut lines[number];
            held = line.as_mut().and_then(|wait| poll(wait, &bells[number]));
            if held.is_some() {
                let mut wait = Box::pin(acquire(&budget, number, flows));
                assert!(poll(&mut wait, &bells[number]).is_none());
                *line = Some(wait);
            }
        }
    }
    let grant = begun.elapsed();
    assert_eq!(budget.snapshot().queued, waiters);

    fastrand::Rng::with_seed(1).shuffle(&mut lines);
    let begun = ThreadTime::now();
    lines.clear();
    let cancel = begun.elapsed();
    drop(held);
    let seen = budget.snapshot();
    assert_eq!((seen.queued, seen.in_flight), (0, 0));
    let bytes = memory.bytes_current as u64 / waiters as u64;
    Row {
        enqueue: enqueue / waiters as u32,
        grant: grant / grants as u32,
        cancel: cancel / waiters as u32,
        books: bytes - size_of::<Acquire>() as u64,
        bytes,
        wakes: f64::from(wakes) / grants as f64,
    }
}

fn main() {
    let test = std::env::args().any(|arg| arg == "--test");
    let runtime = |paused| {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(paused)
            .build()
            .unwrap()
    };
    let sizes: &[(usize, u64)] = match test {
        true => &[(2_000, 1), (2_000, 50)],
        false => &[
            (1_000, 1),
            (100_000, 1),
            (100_000, 1_000),
            (100_000, 50_000),
        ],
    };
    println!(
        "| waiters | flows | enqueue ns | grant ns | cancel ns | wakes a grant | bytes | with its future |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for &(waiters, flows) in sizes {
        let row = runtime(false).block_on(async { row(waiters, flows) });
        println!(
            "| {waiters} | {flows} | {} | {} | {} | {:.2} | {} | {} |",
            row.enqueue.as_nanos(),
            row.grant.as_nanos(),
            row.cancel.as_nanos(),
            row.wakes,
            row.books,
            row.bytes,
        );
        assert!(row.wakes <= 2.0, "who goes, and who is to keep the timer");
        // A flow of its own for every second waiter costs more.
        let most = if flows < 10_000 { 512 } else { 768 };
        assert!(row.books <= most, "{} bytes a waiter", row.books);
    }
    let begun = ThreadTime::now();
    let done = runtime(true).block_on(cancellations::run(1, 1_000_000));
    println!(
        "\n{} random cancellations ({} waiting, {} admitted, {} sent) in {:.1} s: nothing lost, nothing left behind",
        done.cancelled(),
        done.cancelled_waiting,
        done.cancelled_held,
        done.cancelled_sent,
        begun.elapsed().as_secs_f64(),
    );
}
