//! The attempt under way in the call's ledger.
use http::{StatusCode, request::Parts};
use tollgate_core::{
    call::{Attempt, Call},
    wire::outcome::Verdict,
};

/// The attempt under way in the call's ledger; ended when dropped.
///
/// A layer further out that drops our future in mid-attempt may begin the next one itself.
pub(crate) struct UnderWay {
    pub(crate) call: Call,
    open: bool,
}

impl UnderWay {
    pub(crate) fn of(parts: &mut Parts) -> Self {
        Self {
            call: Call::of(&mut parts.extensions),
            open: false,
        }
    }

    /// The first attempt is made even if the ledger has none left: who sent the request to us has
    /// decided that.
    pub(crate) fn begin(&mut self, most: u32) {
        if self.call.begin_attempt(most).is_none() {
            // It is one all the same, and must not be written over the one before.
            self.call.begin_sent();
        }
        self.open = true;
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        self.note(|attempt| {
            attempt.status = Some(status);
            attempt.took = Some(attempt.started.elapsed());
        });
    }

    pub(crate) fn judged(&mut self, verdict: &Verdict, at_risk: Option<u64>) {
        self.note(|attempt| {
            attempt.at_risk = at_risk;
            attempt.outcome = Some(verdict.outcome.clone());
            attempt.took.get_or_insert(attempt.started.elapsed());
        });
        self.end();
    }

    pub(crate) fn note(&self, write: impl FnOnce(&mut Attempt)) {
        if self.open {
            self.call.note(write);
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            self.call.end_attempt();
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.end();
    }
}
