//! What a fallback changes in a call's ledger, and puts back.
use std::{sync::Arc, time::Duration};

use tollgate_core::call::Call;

/// The call, put back as it was found when we are done with it, also by being dropped.
pub(crate) struct Ledger {
    pub(crate) call: Call,
    pub(crate) queue_wait: Option<Duration>,
    /// What a fallback further out keeps back, and aims at.
    pub(crate) kept: u32,
    aim: (Option<Arc<str>>, Option<Arc<str>>),
    held_outside: bool,
}

impl Ledger {
    /// `holds`: we hold streams, so that layers further in need not.
    pub(crate) fn of(call: Call, holds: bool) -> Self {
        let held_outside = call.hold_streams(true);
        call.hold_streams(holds || held_outside);
        Self {
            queue_wait: call.max_queue_wait(),
            kept: call.kept_attempts(),
            aim: call.aimed(),
            held_outside,
            call,
        }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        let (model, target) = std::mem::take(&mut self.aim);
        self.call.keep_attempts(self.kept);
        self.call.aim(model, target);
        self.call.set_max_queue_wait(self.queue_wait);
        self.call.hold_streams(self.held_outside);
        self.call.end_attempt();
    }
}
