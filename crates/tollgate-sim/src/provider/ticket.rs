//! What a request holds until its answer has ended: its place in the account, and its charge.
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::desk::Desk;
use crate::{
    body::{BodyFate, Watch},
    books::Held,
    charge::{Billed, Cost},
    limit::Unit,
};

/// Settles and closes exactly once, on every way out, also when dropped.
pub(super) struct Ticket {
    desk: Arc<Desk>,
    generation: u64,
    index: Option<usize>,
    scope: u64,
    admitted: Option<Admitted>,
    open: bool,
}

struct Admitted {
    billed: Billed,
    cost: Cost,
    held: Vec<(usize, Held)>,
    /// Output tokens sent so far, of a stream.
    sent: Option<Arc<AtomicU64>>,
}

impl Ticket {
    pub(super) fn new(desk: Arc<Desk>, generation: u64, index: Option<usize>, scope: u64) -> Self {
        Self {
            desk,
            generation,
            index,
            scope,
            admitted: None,
            open: true,
        }
    }

    pub(super) fn admitted(
        &mut self,
        billed: Billed,
        cost: Cost,
        held: Vec<(usize, Held)>,
        sent: Option<Arc<AtomicU64>>,
    ) {
        self.admitted = Some(Admitted {
            billed,
            cost,
            held,
            sent,
        });
    }

    /// The headers leave, or (status 0) the connection breaks. A document is all made now.
    pub(super) fn answered(&mut self, status: u16) {
        let mut state = self.desk.lock();
        if state.generation != self.generation {
            return;
        }
        state.totals.status_429 += u64::from(status == 429);
        let now = state.now();
        if let Some(index) = self.index {
            let seen = &mut state.requests[index];
            seen.answered_at = Some(Duration::from_nanos(now));
            seen.status = status;
        }
        drop(state);
        if self
            .admitted
            .as_ref()
            .is_some_and(|admitted| admitted.sent.is_none())
        {
            self.settle();
        }
    }

    /// Bills what was used. Who leaves early pays for a whole document, and for the part of a stream that was sent.
    fn settle(&mut self) {
        let Some(mut admitted) = self.admitted.take() else {
            return;
        };
        let mut state = self.desk.lock();
        if state.generation != self.generation {
            return;
        }
        if let Some(sent) = &admitted.sent {
            admitted.billed.output = sent.load(Ordering::Relaxed);
        }
        let (billed, charging) = (admitted.billed, self.desk.config.charging);
        state.totals.billed_input += billed.input;
        state.totals.billed_output += billed.output;
        let now = state.now();
        let mut cost = admitted.cost;
        let settled = charging.at_end(billed);
        let added = charging.added_at_end(billed);
        for (limit, held) in admitted.held {
            let unit = self.desk.config.limits[limit].unit;
            let Some(book) = state.scopes.book(self.scope, limit) else {
                continue;
            };
            if let Some(settled) = &settled {
                book.settle(now, held, unit.of(settled));
            }
            if let Some(added) = added.as_ref().filter(|_| unit != Unit::Requests) {
                book.charge(now, unit.of(added));
            }
        }
        if let Some(settled) = settled {
            cost = settled;
        }
        if let Some(added) = added {
            cost.tokens += added.tokens;
            cost.output += added.output;
        }
        state.totals.charged_tokens =
            state.totals.charged_tokens + cost.tokens - admitted.cost.tokens;
        if let Some(index) = self.index {
            state.requests[index].billed = billed;
            state.requests[index].cost = cost;
        }
    }

    pub(super) fn close(&mut self, fate: BodyFate) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        self.settle();
        let mut state = self.desk.lock();
        if state.generation != self.generation {
            return;
        }
        state.totals.in_flight -= 1;
        let now = state.now();
        if let Some(index) = self.index {
            state.requests[index].ended_at = Some(Duration::from_nanos(now));
            state.requests[index].body_fate = fate;
        }
    }
}

impl Watch for Ticket {
    fn ended(mut self: Box<Self>, fate: BodyFate) {
        self.close(fate);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.close(BodyFate::Dropped);
    }
}
