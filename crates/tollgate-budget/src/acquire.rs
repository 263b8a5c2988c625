//! The wait for admission.
use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;
use tollgate_core::extensions::{Reason, Refused};

use crate::{
    engine::{
        core::{Arrival, Arrived, Asked, Heard},
        rate::{NEVER, Nanos},
    },
    memory::Memory,
    platform::{self, Sleep, sleep_until},
    review::Decision,
    store::{Ask, Reservation, Settle, Ticket},
    telemetry,
};

/// The wait for admission to a [`Budget`](crate::Budget).
///
/// Of all that wait, one keeps the timer for all of them; whoever leaves while it does, hands it on.
///
/// # Cancel safety
///
/// Dropping it leaves the queue, and gives back what was granted but not taken. It must be polled when it is woken or
/// else be dropped: it may be the one that keeps the timer.
pub struct Acquire {
    memory: Arc<Memory>,
    state: State,
    // Boxed: one of all that wait has it, and a hundred thousand others need not have room for it.
    timer: Option<Pin<Box<Sleep>>>,
    set_for: Nanos,
}

// Asking is on the way of every call: a box would be one allocation more for each.
#[allow(clippy::large_enum_variant)]
enum State {
    /// Not polled yet.
    Asking(Ask, Instant),
    Waiting(InLine, Instant),
    Done,
}

/// A place in the queue; dropping it leaves.
struct InLine {
    memory: Arc<Memory>,
    ticket: Option<u64>,
    /// To come again after a review; only where limits are reviewed.
    again: Option<Box<Arrival>>,
}

impl Drop for InLine {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let now = self.memory.now();
            let left = self
                .memory
                .step(|core, wakes| core.leave(now, ticket, wakes));
            drop(left);
        }
    }
}

impl Acquire {
    pub(crate) fn new(memory: Arc<Memory>, ask: Ask, asked_at: Instant) -> Self {
        Self {
            memory,
            state: State::Asking(ask, asked_at),
            timer: None,
            set_for: NEVER,
        }
    }
}

fn arrival(memory: &Memory, asked_at: Instant, ask: Ask) -> Arrival {
    let asked = memory.nanos(asked_at);
    let wait = ask.max_wait.map_or(NEVER, |wait| {
        asked.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(NEVER))
    });
    let deadline = ask.deadline.map_or(NEVER, |at| memory.nanos(at));
    Arrival {
        cost: ask.cost,
        model: ask.model,
        principal: ask.principal,
        keys: ask.keys,
        weight: ask.priority.weight(),
        until: wait.min(deadline),
        deadline,
        bytes: ask.bytes,
        settles: ask.settles,
        allowed: Vec::new(),
    }
}

enum Entered {
    Admitted(Reservation),
    Waiting(InLine),
}

/// A request comes, and comes again as long as reviews let it.
fn enter(memory: &Arc<Memory>, mut arrival: Arrival) -> Result<Entered, Refused> {
    loop {
        let now = memory.now();
        match memory.step(|core, wakes| core.arrive(now, &arrival, wakes)) {
            Arrived::Admitted(ticket) => return Ok(Entered::Admitted(hold(memory, ticket))),
            Arrived::Refused(refused) => return Err(refused),
            Arrived::Review(asked) => arrival = reviewed(memory, arrival, &asked)?,
            Arrived::Waiting(ticket) => {
                let mut line = InLine {
                    memory: Arc::clone(memory),
                    ticket: Some(ticket),
                    again: None,
                };
                if memory.look_for().reviews() {
                    line.again = Some(Box::new(arrival));
                }
                return Ok(Entered::Waiting(line));
            }
        }
    }
}

/// Asks a review; no lock is held and nothing is reserved.
fn reviewed(memory: &Memory, mut arrival: Arrival, asked: &Asked) -> Result<Arrival, Refused> {
    let review = &asked.review;
    let refused = |reason| Refused::new(reason).limit(review.limit.clone());
    match (memory.look_for().decide(asked), review.wait) {
        (Decision::Allow, _) => {
            // For what was used when it was asked: others may have been allowed meanwhile.
            arrival.allowed.retain(|&(rule, _)| rule != asked.rule);
            arrival.allowed.push((asked.rule, asked.used));
            Ok(arrival)
        }
        (Decision::Refuse, None) => Err(refused(Reason::NeverFits)),
        (Decision::Refuse, Some(wait)) => {
            let wait = wait.max(Duration::from_nanos(1));
            Err(refused(Reason::Exhausted).retry_after(wait))
        }
    }
}

impl Future for Acquire {
    type Output = Result<Reservation, Refused>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let memory = &*this.memory;
        if matches!(this.state, State::Asking(..)) {
            let State::Asking(ask, asked_at) = std::mem::replace(&mut this.state, State::Done)
            else {
                unreachable!("looked at just now")
            };
            match enter(&this.memory, arrival(memory, asked_at, ask)) {
                Ok(Entered::Admitted(reservation)) => return Poll::Ready(Ok(reservation)),
                Ok(Entered::Waiting(line)) => this.state = State::Waiting(line, asked_at),
                Err(refused) => {
                    telemetry::refused(&refused);
                    return Poll::Ready(Err(refused));
                }
            }
        }
        let State::Waiting(line, asked_at) = &mut this.state else {
            panic!("polled again after it was ready");
        };
        loop {
            let ticket = line.ticket.expect("polled again after it was ready");
            let now = memory.now();
            // Cloned and dropped where no lock is held.
            let mut waker = Some(cx.waker().clone());
            let heard = memory.step(|core, wakes| core.poll(now, ticket, &mut waker, wakes));
            drop(waker);
            match heard {
                Heard::Admitted => {
                    line.ticket = None;
                    telemetry::admitted(|| platform::now().saturating_duration_since(*asked_at));
                    return Poll::Ready(Ok(hold(&this.memory, ticket)));
                }
                Heard::Refused(refused) => {
                    line.ticket = None;
                    telemetry::refused(&refused);
                    return Poll::Ready(Err(refused));
                }
                Heard::Review(asked) => {
                    line.ticket = None;
                    let mut arrival = line.again.take().expect("kept where limits are reviewed");
                    // It comes again, and has waited already.
                    let longest = memory.look(|core| core.max_wait());
                    let until = memory.nanos(*asked_at).saturating_add(longest);
                    arrival.until = arrival.until.min(until);
                    let entered = reviewed(memory, *arrival, &asked)
                        .and_then(|arrival| enter(&this.memory, arrival));
                    match entered {
                        Ok(Entered::Admitted(reservation)) => return Poll::Ready(Ok(reservation)),
                        Ok(Entered::Waiting(again)) => *line = again,
                        Err(refused) => {
                            telemetry::refused(&refused);
                            return Poll::Ready(Err(refused));
                        }
                    }
                    continue;
                }
                Heard::Waiting(until) => {
                    let until = until.unwrap_or(NEVER);
                    if until != this.set_for {
                        this.set_for = until;
                        let at = (until != NEVER).then(|| memory.instant(until)).flatten();
                        this.timer = at.map(|at| Box::pin(sleep_until(at)));
                    }
                }
            }
            let fired = match &mut this.timer {
                Some(timer) => timer.as_mut().poll(cx).is_ready(),
                None => false,
            };
            if !fired {
                return Poll::Pending;
            }
            this.set_for = NEVER;
            this.timer = None;
        }
    }
}

fn hold(memory: &Arc<Memory>, ticket: u64) -> Reservation {
    let store: Arc<dyn Settle> = Arc::clone(memory) as _;
    Reservation::new(store, Ticket(ticket))
}

impl fmt::Debug for Acquire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("waiting", &matches!(self.state, State::Waiting(..)))
            .finish_non_exhaustive()
    }
}
