//! Models of the queue, the baton and the settlement, for `loom` (all interleavings) and `shuttle` (random ones).
//!
//! ```console
//! $ RUSTFLAGS="--cfg tollgate_loom" cargo test -p tollgate-budget --lib --release model::
//! $ RUSTFLAGS="--cfg tollgate_shuttle" cargo test -p tollgate-budget --lib --release model::
//! ```
//!
//! They run the crate's own [`Acquire`](crate::Acquire), [`Reservation`] and [`Charge`](crate::Charge) over the real
//! state machine; only lock, clock and sleep are the checker's ([`crate::platform`]). A wake-up that is lost shows as a
//! deadlock, for time runs only for those who sleep.
pub(crate) mod platform;

#[cfg(tollgate_loom)]
mod every;
#[cfg(tollgate_shuttle)]
mod random;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    Acquire, Ask, Budget, BudgetStore, Cost, Enforcement, Limit, Reservation,
    model::platform::block_on,
};

/// So many requests a second, and nobody is refused for the wait.
fn budget(requests: u64) -> Budget {
    Budget::builder()
        .limit(
            Limit::requests(requests)
                .per_second()
                .enforcement(Enforcement::Rolling),
        )
        .max_wait(Duration::MAX)
        .build()
        .unwrap()
}

fn ask(budget: &Budget) -> Acquire {
    budget.acquire(Ask::new(Cost::request()))
}

fn admitted(budget: &Budget) -> Reservation {
    block_on(ask(budget)).expect("nothing refuses")
}

/// Asks once, and leaves: the place, or what was granted meanwhile, goes to another.
fn come_and_go(budget: &Budget) {
    let mut wait = pin!(ask(budget));
    let mut context = Context::from_waker(Waker::noop());
    if let Poll::Ready(got) = wait.as_mut().poll(&mut context) {
        drop(got.expect("nothing refuses"));
    }
}

/// Nobody waits, nothing is held.
fn clean(budget: &Budget) {
    let seen = budget.snapshot();
    assert_eq!((seen.queued, seen.in_flight), (0, 0));
    for limit in &seen.limits {
        assert_eq!((limit.reserved, limit.queued), (0, 0));
    }
}
