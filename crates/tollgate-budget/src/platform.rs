//! What the shell takes from outside: a lock, a clock and a sleep.
//!
//! The models of concurrency in [`crate::model`] put their own in this place and no other line of the crate knows of
//! it, so what they prove holds for the code that runs. The cfg names are our own: `loom` alone would change tokio too.
#[cfg(not(all(test, any(tollgate_loom, tollgate_shuttle))))]
mod real {
    pub(crate) use std::sync::{Mutex, MutexGuard};
    pub(crate) use tokio::time::{Sleep, sleep_until};

    pub(crate) fn now() -> tokio::time::Instant {
        tokio::time::Instant::now()
    }
}

#[cfg(not(all(test, any(tollgate_loom, tollgate_shuttle))))]
pub(crate) use real::*;

#[cfg(all(test, any(tollgate_loom, tollgate_shuttle)))]
pub(crate) use crate::model::platform::*;
