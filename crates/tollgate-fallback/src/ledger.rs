//! What a fallback changes in a call's ledger, and puts back.
use tollgate_core::call::{Call, Steering};

/// The call, put back as it was found when we are done with it, also by being dropped.
pub(crate) struct Ledger {
    pub(crate) call: Call,
    /// What a fallback further out has laid down.
    pub(crate) outer: Steering,
}

impl Ledger {
    pub(crate) fn of(call: Call) -> Self {
        let outer = call.steering();
        Self { call, outer }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.call.steer(std::mem::take(&mut self.outer));
        self.call.end_attempt();
    }
}
