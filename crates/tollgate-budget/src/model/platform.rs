//! The lock, the clock and the sleep of a model: every lock is a point at which the checker may go on with another task.
use std::{
    future::Future,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll, Waker},
    time::Duration,
};

#[cfg(tollgate_loom)]
pub(crate) use loom::{
    future::block_on,
    lazy_static,
    sync::{Mutex, MutexGuard},
    thread,
};
#[cfg(tollgate_shuttle)]
pub(crate) use shuttle::{
    future::block_on,
    lazy_static,
    sync::{Mutex, MutexGuard},
    thread,
};
use tokio::time::Instant;

/// Time stands still until it is let go; from then on whoever sleeps takes it to the end of its sleep at once.
///
/// So a request that waits while nobody sleeps waits for ever, and the checker calls that a deadlock.
#[derive(Default)]
struct Clock {
    passed: Duration,
    runs: bool,
    sleepers: Vec<Waker>,
}

lazy_static! {
    static ref CLOCK: Mutex<Clock> = Mutex::new(Clock::default());
}

/// The same in every execution of a model.
fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

pub(crate) fn now() -> Instant {
    start() + CLOCK.lock().unwrap().passed
}

pub(crate) fn let_time_run() {
    let sleepers = {
        let mut clock = CLOCK.lock().unwrap();
        clock.runs = true;
        std::mem::take(&mut clock.sleepers)
    };
    sleepers.into_iter().for_each(Waker::wake);
}

pub(crate) struct Sleep(Instant);

pub(crate) fn sleep_until(at: Instant) -> Sleep {
    Sleep(at)
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut clock = CLOCK.lock().unwrap();
        let end = self.0.duration_since(start());
        if clock.runs {
            clock.passed = clock.passed.max(end);
        }
        if clock.passed >= end {
            return Poll::Ready(());
        }
        clock.sleepers.push(cx.waker().clone());
        Poll::Pending
    }
}
