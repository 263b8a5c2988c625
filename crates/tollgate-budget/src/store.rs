//! The seam between the layer and whatever keeps the books.
//!
//! The way in is a future, for a request may have to wait its turn or ask a server; it takes a value and not a
//! closure. The way back is synchronous for every store, since books are settled in `Drop`, on every way out: an
//! answer, an error, a timeout, a panic, a `select!`. A [`Reservation`] becomes a [`Charge`] when the request is
//! sent; the first gives back what it holds when it is dropped, the second keeps it.
use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::time::Instant;
use tollgate_core::{
    call::Priority,
    extensions::Refused,
    principal::Principal,
    wire::limits::{Dimension, RateLimit},
};

use crate::{
    charging::{Charging, Cost},
    scope::{Asking, Keys},
    used::Used,
};

/// Keeps the books of a budget. [`Budget`](crate::Budget) keeps them in memory.
pub trait BudgetStore: Clone {
    /// The wait for admission. Dropping it leaves the queue and takes nothing.
    type Acquire: Future<Output = Result<Reservation, Refused>>;

    /// Asks for admission. Nothing happens before the future is polled.
    fn acquire(&self, ask: Ask) -> Self::Acquire;

    /// Fills in the keys that its limits look for in a request. Default: none are looked for.
    ///
    /// Runs where the request is, before it is asked for admission; the keys of the call stand in there already.
    fn look(&self, keys: &mut Keys, asking: &Asking<'_>) {
        let _ = (keys, asking);
    }

    /// The charging rules to estimate and to settle with, as they stand now.
    fn charging(&self) -> Charging;
}

/// What a request asks of the budget.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ask {
    /// The units it takes.
    pub cost: Cost,
    /// The model, for limits of one model.
    pub model: Option<Arc<str>>,
    /// Whom it is made for, for limits of one principal and for fairness.
    pub principal: Option<Principal>,
    /// Its other keys, for limits of those.
    pub keys: Option<Box<Keys>>,
    /// Its weight in the queue.
    pub priority: Priority,
    /// It is worth nothing after this.
    pub deadline: Option<Instant>,
    /// The longest that it may queue.
    pub max_wait: Option<Duration>,
    /// Bytes that it holds while it queues.
    pub bytes: u64,
    /// Whether the provider is expected to put the charge right when the answer has ended.
    pub settles: bool,
}

impl Ask {
    /// A request of this cost, of nobody and for no model in particular.
    #[must_use]
    pub fn new(cost: Cost) -> Self {
        Self {
            cost,
            model: None,
            principal: None,
            keys: None,
            priority: Priority::default(),
            deadline: None,
            max_wait: None,
            bytes: 0,
            settles: false,
        }
    }

    /// For this model.
    #[must_use]
    pub fn model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// For this principal.
    #[must_use]
    pub fn principal(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// With these keys.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = (keys != Keys::default()).then(|| Box::new(keys));
        self
    }

    /// With this weight.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Not to queue longer than this.
    #[must_use]
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }
}

/// Names one reservation in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);

/// What becomes of a reservation or a charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settlement {
    /// Nothing was sent: all of it is given back.
    AllBack,
    /// The provider refused it or could not serve it: the tokens are given back, the request is counted.
    TokensBack,
    /// It stands.
    Keep,
    /// This takes its place.
    Actual(Cost),
    /// The provider's charge stands; this is what was used of our own limits.
    Used(Used),
}

/// What an answer's head tells a budget.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Observation<'a> {
    /// The limits as the headers state them.
    pub limits: &'a [RateLimit],
    /// How long the provider says that it worked (`openai-processing-ms`).
    pub processing: Option<Duration>,
    /// The provider refused for its rate.
    pub refusal: Option<Refusal<'a>>,
}

impl<'a> Observation<'a> {
    /// An answer with these limits in its headers.
    #[must_use]
    pub fn new(limits: &'a [RateLimit]) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Says how long the provider worked.
    #[must_use]
    pub fn processing(mut self, time: Option<Duration>) -> Self {
        self.processing = time;
        self
    }

    /// Says that it refused.
    #[must_use]
    pub fn refusal(mut self, refusal: Option<Refusal<'a>>) -> Self {
        self.refusal = refusal;
        self
    }
}

/// A refusal of the provider's for its rate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusal<'a> {
    /// Which limit refused, if it says.
    pub what: Option<&'a Dimension>,
    /// The wait that it states.
    pub wait: Option<Duration>,
}

/// The synchronous way back to a store.
///
/// Called from `Drop` among other places: it must neither block nor panic. A ticket is settled once; what comes
/// after that is ignored.
pub trait Settle: Send + Sync {
    /// The request is being sent.
    fn sent(&self, ticket: Ticket);

    /// Its answer's head has come.
    fn observe(&self, ticket: Ticket, seen: &Observation<'_>);

    /// It is over.
    fn settle(&self, ticket: Ticket, how: Settlement);

    /// For how long others like it are held back now, because the provider refused: no time at all if they are not.
    /// `None` if that is not known here.
    fn gated(&self, ticket: Ticket) -> Option<Duration> {
        let _ = ticket;
        None
    }
}

struct Held {
    store: Arc<dyn Settle>,
    ticket: Ticket,
}

/// Units held for a request that has not been sent. Dropping it gives all of them back.
#[must_use = "dropped, it gives back what it holds"]
pub struct Reservation(Option<Held>);

impl Reservation {
    /// Holds what `ticket` names in `store`.
    pub fn new(store: Arc<dyn Settle>, ticket: Ticket) -> Self {
        Self(Some(Held { store, ticket }))
    }

    /// The store and the name in it, to settle from two sides.
    #[cfg(all(test, tollgate_loom))]
    pub(crate) fn into_parts(mut self) -> (Arc<dyn Settle>, Ticket) {
        let held = self.0.take().expect("held until it is taken");
        (held.store, held.ticket)
    }

    /// The request is being sent, now: to be called right before it is.
    pub fn send(mut self) -> Charge {
        let held = self.0.take();
        if let Some(held) = &held {
            held.store.sent(held.ticket);
        }
        Charge(held)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.store.settle(held.ticket, Settlement::AllBack);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reservation")
            .field(&self.0.as_ref().map(|held| held.ticket))
            .finish()
    }
}

/// Units charged for a request that was sent. Dropping it keeps the estimate, for the provider may have charged.
#[must_use = "dropped, it keeps what it was charged"]
pub struct Charge(Option<Held>);

impl Charge {
    /// The answer's head has come.
    pub fn observe(&self, seen: &Observation<'_>) {
        if let Some(held) = &self.0 {
            held.store.observe(held.ticket, seen);
        }
    }

    /// For how long others like it are held back now; see [`Settle::gated`].
    pub fn gated(&self) -> Option<Duration> {
        let held = self.0.as_ref()?;
        held.store.gated(held.ticket)
    }

    /// This is what it really cost.
    pub fn settle(self, actual: Cost) {
        self.end(Settlement::Actual(actual));
    }

    /// The provider did not serve it: gives the tokens back and keeps the request counted.
    pub fn tokens_back(self) {
        self.end(Settlement::TokensBack);
    }

    /// It was not sent after all: gives all back.
    pub fn cancel(self) {
        self.end(Settlement::AllBack);
    }

    pub(crate) fn end(mut self, how: Settlement) {
        if let Some(held) = self.0.take() {
            held.store.settle(held.ticket, how);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.store.settle(held.ticket, Settlement::Keep);
        }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Charge")
            .field(&self.0.as_ref().map(|held| held.ticket))
            .finish()
    }
}
