//! Every interleaving of a few tasks.
use std::sync::Arc;

use super::{
    admitted, ask, budget, clean, come_and_go,
    platform::{block_on, let_time_run, thread},
};
use crate::{Cost, Settlement};

fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    // Unbounded, the larger models take hours. Bugs of this kind need one or two preemptions, seldom three.
    builder.preemption_bound = Some(3);
    builder.check(model);
}

// X07
#[test]
fn whoever_waits_goes_on_when_the_one_who_keeps_the_timer_leaves() {
    check(|| {
        let budget = budget(1);
        drop(admitted(&budget).send());
        let waits = {
            let budget = budget.clone();
            thread::spawn(move || drop(admitted(&budget)))
        };
        let leaves = {
            let budget = budget.clone();
            thread::spawn(move || come_and_go(&budget))
        };
        let_time_run();
        waits.join().unwrap();
        leaves.join().unwrap();
        clean(&budget);
    });
}

// X07
#[test]
fn what_is_given_back_is_seen_by_whoever_waits_for_it() {
    check(|| {
        let budget = budget(1);
        let held = admitted(&budget);
        let waits: Vec<_> = (0..2)
            .map(|_| {
                let budget = budget.clone();
                thread::spawn(move || drop(admitted(&budget)))
            })
            .collect();
        // Time stands still: only this can let them go on, one after the other.
        drop(held);
        for waits in waits {
            waits.join().unwrap();
        }
        clean(&budget);
    });
}

// X07
#[test]
fn what_was_granted_to_one_who_leaves_goes_to_the_next() {
    check(|| {
        let budget = budget(1);
        let held = admitted(&budget);
        let leaves = {
            let budget = budget.clone();
            thread::spawn(move || come_and_go(&budget))
        };
        let waits = {
            let budget = budget.clone();
            thread::spawn(move || drop(admitted(&budget)))
        };
        drop(held);
        leaves.join().unwrap();
        waits.join().unwrap();
        clean(&budget);
    });
}

// X07
#[test]
fn a_ticket_that_is_settled_from_two_sides_is_settled_once() {
    check(|| {
        let budget = budget(10);
        let first = admitted(&budget);
        let (store, ticket) = first.into_parts();
        let sides = [Settlement::AllBack, Settlement::Keep].map(|how| {
            let store = Arc::clone(&store);
            thread::spawn(move || store.settle(ticket, how))
        });
        // Its place may be taken by the next; that one is not to be settled in its stead.
        let next = admitted(&budget);
        for side in sides {
            side.join().unwrap();
        }
        let seen = budget.snapshot();
        assert_eq!(seen.in_flight, 1, "the other one is held still");
        assert!((1..=2).contains(&seen.limits[0].used), "{seen:?}");
        assert_eq!(seen.limits[0].reserved, 1);
        drop(next);
        clean(&budget);
    });
}

// X07
#[test]
fn sending_answering_and_settling_beside_a_cancellation_lose_nobody() {
    check(|| {
        let budget = budget(1);
        let held = admitted(&budget);
        let sends = thread::spawn(move || held.send().settle(Cost::request()));
        let waits = {
            let budget = budget.clone();
            thread::spawn(move || block_on(ask(&budget)).expect("nothing refuses").send())
        };
        come_and_go(&budget);
        let_time_run();
        sends.join().unwrap();
        waits.join().unwrap().cancel();
        clean(&budget);
    });
}
