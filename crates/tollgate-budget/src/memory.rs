//! The shell around the state machine: one mutex, the clock, and the wakers.
//!
//! The lock is taken, used and let go in one function; wakers are called when it is free, for they are foreign code.
use std::{
    fmt,
    sync::{Arc, PoisonError},
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;
use tollgate_core::{clock::WallClock, wire::limits::Dimension};

use crate::{
    charging::Charging,
    engine::{
        calendar::nanos_of,
        core::{Core, Head, Said},
        headers::Stated,
        rate::{Nanos, narrow},
    },
    leases::{self, Bell},
    limit::{Unit, Wall},
    platform::{Mutex, MutexGuard, now},
    scope::Look,
    store::{Observation, Settle, Settlement, Ticket},
    telemetry::{Event, TARGET},
};

/// A budget's books in this process.
pub(crate) struct Memory {
    core: Mutex<Core>,
    start: Instant,
    charging: Charging,
    look: Look,
    /// Only where a limit has a calendar.
    wall: Option<WallClock>,
    /// Where a store shares out the limits among processes.
    bell: Option<Arc<Bell>>,
}

impl Memory {
    pub(crate) fn new(core: Core, charging: Charging, look: Look, wall: Option<WallClock>) -> Self {
        Self {
            core: Mutex::new(core),
            start: now(),
            charging,
            look,
            wall,
            bell: None,
        }
    }

    /// Limits are leased of a store that hears this bell.
    pub(crate) fn with_bell(mut self, bell: Arc<Bell>) -> Self {
        self.bell = Some(bell);
        self
    }

    pub(crate) fn charging(&self) -> &Charging {
        &self.charging
    }

    pub(crate) fn look_for(&self) -> &Look {
        &self.look
    }

    pub(crate) fn now(&self) -> Nanos {
        self.nanos(now())
    }

    /// A time of tokio's clock, in the books' time.
    pub(crate) fn nanos(&self, at: Instant) -> Nanos {
        narrow(at.saturating_duration_since(self.start).as_nanos())
    }

    /// The way back; `None` if it is too far ahead to be named.
    pub(crate) fn instant(&self, at: Nanos) -> Option<Instant> {
        self.start.checked_add(Duration::from_nanos(at))
    }

    /// Uses the state machine, then wakes whom it names.
    pub(crate) fn step<R>(&self, step: impl FnOnce(&mut Core, &mut Vec<Waker>) -> R) -> R {
        let mut wakes = Vec::new();
        let wall = self.epoch();
        let (result, events, rings) = {
            let mut core = self.lock();
            if let Some((now, epoch)) = wall {
                core.wall_is(now, epoch, &mut wakes);
            }
            let result = step(&mut core, &mut wakes);
            let rings = self.bell.is_some() && core.rings(self.now());
            (result, core.events(), rings)
        };
        for waker in wakes {
            waker.wake();
        }
        if let Some(bell) = self.bell.as_ref().filter(|_| rings) {
            bell.ring();
        }
        events.iter().for_each(Event::tell);
        result
    }

    /// Now, by our clock and by the wall clock; `None` where no limit has a calendar.
    pub(crate) fn wall(&self) -> Option<(Nanos, Wall)> {
        Some((self.now(), nanos_of(self.wall?.now())))
    }

    /// Now, and what the wall clock showed at our time 0.
    fn epoch(&self) -> Option<(Nanos, Wall)> {
        let (now, wall) = self.wall()?;
        Some((
            now,
            wall.saturating_sub(Wall::try_from(now).unwrap_or(Wall::MAX)),
        ))
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut Core) -> R) -> R {
        look(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // The books are whole after every step; a panic in one of them leaves at worst one entry behind.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(bell) = self.bell.take() {
            let now = self.now();
            // Nobody waits any more.
            let orders = self.look(|core| {
                let lines = core.close(now, &mut Vec::new());
                leases::orders(self, core, lines)
            });
            bell.close(orders);
        }
    }
}

impl Settle for Memory {
    fn sent(&self, ticket: Ticket) {
        let now = self.now();
        self.step(|core, wakes| core.sent(now, ticket.0, wakes));
    }

    fn observe(&self, ticket: Ticket, seen: &Observation<'_>) {
        let now = self.now();
        let stated: Vec<_> = seen.limits.iter().filter_map(Stated::read).collect();
        let head = Head {
            stated: &stated,
            processing: seen.processing.map(|time| narrow(time.as_nanos())),
            refusal: seen.refusal.map(|refusal| {
                let unit = refusal.what.and_then(unit_of);
                (unit, refusal.wait.map(|wait| narrow(wait.as_nanos())))
            }),
        };
        let said = self.step(|core, wakes| {
            core.head(now, ticket.0, head, wakes);
            core.said()
        });
        for said in said {
            tell(&said);
        }
    }

    fn settle(&self, ticket: Ticket, how: Settlement) {
        let now = self.now();
        self.step(|core, wakes| core.settle(now, ticket.0, how, wakes));
    }

    fn gated(&self, ticket: Ticket) -> Option<Duration> {
        let now = self.now();
        self.look(|core| core.gate_of(now, ticket.0))
            .map(Duration::from_nanos)
    }
}

/// A line for the operator: the provider charges otherwise than the profile says.
fn tell(said: &Said) {
    let model = said.model.as_deref();
    let charged = said.verdict.charged;
    if said.verdict.as_told {
        tracing::info!(
            target: TARGET,
            ?model,
            ?charged,
            "the provider charges as its profile says again, as far as that can be seen"
        );
    } else {
        tracing::warn!(
            target: TARGET,
            ?model,
            ?charged,
            "the provider charges otherwise than its profile says; what is reserved follows it"
        );
    }
}

fn unit_of(dimension: &Dimension) -> Option<Unit> {
    match dimension {
        Dimension::Requests => Some(Unit::Requests),
        Dimension::Tokens => Some(Unit::Tokens),
        Dimension::InputTokens => Some(Unit::InputTokens),
        Dimension::OutputTokens => Some(Unit::OutputTokens),
        _ => None,
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}
