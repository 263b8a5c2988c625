//! A request in the queue of a budget, and the gate that holds it there.
use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::Instant;

use super::{Call, WaitReason};

/// A request in the queue of a budget; it has left when this is dropped. See [`Call::queue`].
#[derive(Debug)]
pub struct Queued {
    call: Call,
    since: Instant,
}

impl Drop for Queued {
    fn drop(&mut self) {
        let now = Instant::now();
        let queued = now.saturating_duration_since(self.since);
        let mut state = self.call.state();
        state.queued = false;
        state.let_go = Some(now);
        if state.under_way {
            if let Some(attempt) = state.latest() {
                let queued = attempt.queued.unwrap_or_default().saturating_add(queued);
                attempt.queued = Some(queued);
                if let Some((waited, WaitReason::Queue)) = &mut attempt.waited {
                    *waited = queued;
                }
            }
        }
    }
}

impl Call {
    /// The request waits in a queue of ours from now until what is returned is dropped. It is not under way:
    /// no timeout but the total one counts it, and the ledger names it.
    #[must_use]
    pub fn queue(&self) -> Queued {
        self.state().queued = true;
        Queued {
            call: self.clone(),
            since: Instant::now(),
        }
    }

    /// The provider has refused the attempt under way, and a budget further in has shut its gate for so long:
    /// who asks again is held there, in order with all others. No time at all: it takes the refusal for a stray one,
    /// which holds nobody but the one who was refused.
    pub fn hold_gate(&self, shut_for: Duration) {
        self.state().gate = Some(shut_for);
    }

    /// For how long a budget further in has shut its gate because of the latest attempt; `None` if none has.
    #[must_use]
    pub fn gate_held(&self) -> Option<Duration> {
        self.state().gate
    }

    /// The head of the attempt under way has come, or a frame of its body, to a layer that holds it. Whoever waits
    /// further out would take it for silence.
    pub fn heard(&self) {
        self.state().heard = Some(Instant::now());
    }

    /// Whether somebody further out wants to hear of every frame that is held.
    pub(crate) fn is_watched(&self) -> bool {
        self.0.watched.load(Ordering::Relaxed)
    }

    pub(crate) fn watch(&self) {
        self.0.watched.store(true, Ordering::Relaxed);
    }

    /// When a queue of ours has let the request go, if it has been in one; `now` while it is there. Else when
    /// the call began. And when it was last heard of.
    pub(crate) fn progress(&self, now: Instant) -> (Instant, Option<Instant>) {
        let state = self.state();
        let sent = if state.queued {
            now
        } else {
            state.let_go.unwrap_or(self.0.started)
        };
        (sent, state.heard)
    }
}
