//! One call, one ledger: what all layers of a stack know of the call that they serve.
//!
//! A [`Call`] travels in the request's extensions, and every layer shares it, so retries inside
//! fallbacks cannot multiply and each layer can tell whether the deadline still allows a wait.
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use tollgate_core::call::{Call, CallOptions};
//!
//! let mut request = Request::new(());
//! request.extensions_mut().insert(CallOptions::new().max_attempts(2));
//!
//! let call = Call::of(request.extensions_mut());
//! assert_eq!(call.begin_attempt(3), Some(1));
//! // A layer further in sees the attempt that is under way; it does not count it again.
//! assert_eq!(Call::of(request.extensions_mut()).begin_attempt(3), Some(1));
//! call.end_attempt();
//! assert_eq!(call.begin_attempt(3), Some(2));
//! call.end_attempt();
//! assert_eq!(call.begin_attempt(3), None, "two attempts were allowed");
//! ```
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Extensions;
use tokio::time::Instant;

use crate::principal::Principal;

mod attempt;
mod queued;
mod steering;

pub use self::steering::Steering;
pub use attempt::{Attempt, Attempts, Skipped, WaitReason};
pub use queued::Queued;

/// What a caller may say about one call, put into the request's extensions.
///
/// ```
/// use std::time::Duration;
/// use tollgate_core::call::CallOptions;
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let options = CallOptions::new().within(Duration::from_secs(20)).principal("tenant-7");
/// # });
/// ```
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    deadline: Option<Instant>,
    priority: Priority,
    principal: Option<Principal>,
    tenant: Option<Principal>,
    tag: Option<Principal>,
    max_attempts: Option<u32>,
    no_fallbacks: bool,
    buffered: bool,
}

impl CallOptions {
    /// Nothing said: no deadline, normal priority, no principal, fallbacks allowed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The call is worth nothing after this instant: no layer waits beyond it.
    #[must_use]
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// [`deadline`](Self::deadline), this long from now. Too long to be represented: none.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.deadline = Instant::now().checked_add(time);
        self
    }

    /// Weight in a queue.
    #[must_use]
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// The user, or whoever else the call is made for; only a digest is kept.
    #[must_use]
    pub fn principal(mut self, name: &str) -> Self {
        self.principal = Some(Principal::of(name));
        self
    }

    /// The same, from a digest of the caller's own.
    #[must_use]
    pub fn principal_digest(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// The tenant that the user belongs to, for limits of one tenant; only a digest is kept.
    #[must_use]
    pub fn tenant(mut self, name: &str) -> Self {
        self.tenant = Some(Principal::of(name));
        self
    }

    /// The same, from a digest of the caller's own.
    #[must_use]
    pub fn tenant_digest(mut self, tenant: Principal) -> Self {
        self.tenant = Some(tenant);
        self
    }

    /// A feature, a team or a job, for limits of one tag; only a digest is kept.
    #[must_use]
    pub fn tag(mut self, name: &str) -> Self {
        self.tag = Some(Principal::of(name));
        self
    }

    /// The same, from a digest of the caller's own.
    #[must_use]
    pub fn tag_digest(mut self, tag: Principal) -> Self {
        self.tag = Some(tag);
        self
    }

    /// Most requests that may be sent for this call, over all layers; at least 1. It goes before the policies of the layers,
    /// whether it is more than they would make or less.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// Only the model that was asked for may serve this call.
    #[must_use]
    pub fn without_fallbacks(mut self) -> Self {
        self.no_fallbacks = true;
        self
    }

    /// The caller reads the whole answer before it uses any of it, also of a stream.
    ///
    /// A layer that can ask again holds the stream until it is whole, so that one that breaks in
    /// its middle is replaced and not only reported.
    #[must_use]
    pub fn buffered(mut self) -> Self {
        self.buffered = true;
        self
    }
}

/// Weight of a call in a queue; a share, never an absolute precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Priority {
    /// Weight 1.
    Low,
    /// Weight 4.
    #[default]
    Normal,
    /// Weight 16.
    High,
}

impl Priority {
    /// Its share relative to the others.
    #[must_use]
    pub fn weight(self) -> u32 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }
}

/// The ledger of one call, shared by all layers. Cloning shares it.
#[derive(Clone)]
pub struct Call(Arc<Inner>);

struct Inner {
    id: u64,
    started: Instant,
    options: CallOptions,
    /// The total time in nanoseconds; `u64::MAX`: unbounded. Beside the state, as it is asked for often.
    /// A layer further out counts the time between frames.
    watched: AtomicBool,
    recorded: AtomicBool,
    total: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sent: u32,
    under_way: bool,
    max_attempts: Option<u32>,
    steering: Steering,
    attempts: Vec<Attempt>,
    queued: bool,
    let_go: Option<Instant>,
    /// When the latest of the attempt under way came to a layer that holds it: its head, or a frame.
    heard: Option<Instant>,
    gate: Option<Duration>,
}

impl Call {
    /// The call that a request belongs to; begun here if no layer has yet, with the caller's
    /// [`CallOptions`] where there are any.
    #[must_use]
    pub fn of(extensions: &mut Extensions) -> Self {
        if let Some(call) = extensions.get::<Self>() {
            return call.clone();
        }
        let call = Self::new(extensions.get::<CallOptions>().cloned().unwrap_or_default());
        extensions.insert(call.clone());
        call
    }

    /// Begins a call.
    #[must_use]
    pub fn new(options: CallOptions) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Unique in this process by the counter, and unlikely to meet another process's by its random half.
        static HIGH: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
        let high = *HIGH.get_or_init(|| fastrand::u64(..) << 32);
        let id = high ^ NEXT.fetch_add(1, Ordering::Relaxed);
        let state = State {
            max_attempts: options.max_attempts,
            ..State::default()
        };
        Self(Arc::new(Inner {
            id,
            started: Instant::now(),
            options,
            total: AtomicU64::new(u64::MAX),
            watched: AtomicBool::new(false),
            recorded: AtomicBool::new(false),
            state: Mutex::new(state),
        }))
    }

    /// Identifies the call in records and logs.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Whether nobody has asked this before: of several records of one call, the first counts it.
    ///
    /// The number of an attempt does not tell, for one that was [taken
    /// back](Self::take_back_attempt) leaves its number to the next.
    #[must_use]
    pub fn first_record(&self) -> bool {
        !self.0.recorded.swap(true, Ordering::Relaxed)
    }

    /// When the first layer saw it.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.0.started
    }

    /// After this instant the call is worth nothing: the caller's deadline or the end of a total timeout,
    /// whichever comes first.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let own = self.0.options.deadline;
        let total = match self.0.total.load(Ordering::Relaxed) {
            u64::MAX => return own,
            nanos => self.0.started.checked_add(Duration::from_nanos(nanos)),
        };
        match (own, total) {
            (Some(own), Some(total)) => Some(own.min(total)),
            (own, total) => own.or(total),
        }
    }

    /// The call must be over so long after it began; a longer time never undoes a shorter one.
    pub fn end_within(&self, total: Duration) {
        let nanos = u64::try_from(total.as_nanos()).unwrap_or(u64::MAX);
        self.0.total.fetch_min(nanos, Ordering::Relaxed);
    }

    /// Time left at `now`; `None` if there is no deadline, zero if it has passed.
    #[must_use]
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline().map(|at| at.saturating_duration_since(now))
    }

    /// Its weight in a queue.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.0.options.priority
    }

    /// Whom it is made for.
    #[must_use]
    pub fn principal(&self) -> Option<Principal> {
        self.0.options.principal
    }

    /// The tenant that it is made for.
    #[must_use]
    pub fn tenant(&self) -> Option<Principal> {
        self.0.options.tenant
    }

    /// Its tag.
    #[must_use]
    pub fn tag(&self) -> Option<Principal> {
        self.0.options.tag
    }

    /// Whether another model may serve it.
    #[must_use]
    pub fn fallbacks_allowed(&self) -> bool {
        !self.0.options.no_fallbacks
    }

    /// Whether the layer that asks may hold streams until they are whole: the caller reads all of
    /// them, and no layer further out holds them already.
    #[must_use]
    pub fn is_buffered(&self) -> bool {
        self.0.options.buffered && !self.state().steering.holds_streams
    }

    /// Asks to send a request, and gives its number; `None` if no more may be sent for this call.
    ///
    /// The layer nearest the caller begins an attempt; a layer further in that asks while the
    /// attempt is under way gets the same number, and it counts once. `default_max` is the most
    /// attempts of the asking layer; the first to ask sets it, unless the caller has.
    #[must_use]
    pub fn begin_attempt(&self, default_max: u32) -> Option<u32> {
        let mut state = self.state();
        if state.under_way {
            return Some(state.sent);
        }
        let max = *state.max_attempts.get_or_insert(default_max.max(1));
        if state.sent.saturating_add(state.steering.kept) >= max {
            return None;
        }
        state.sent += 1;
        state.under_way = true;
        state.gate = None;
        state.heard = None;
        let attempt = state.attempt();
        state.attempts.push(attempt);
        Some(state.sent)
    }

    /// Enters a request that is being sent, for a layer that has no maximum of its own; true if this
    /// began an attempt, false if a layer further out has one under way already.
    pub fn begin_sent(&self) -> bool {
        let mut state = self.state();
        if state.under_way {
            return false;
        }
        state.sent = state.sent.saturating_add(1);
        state.under_way = true;
        state.gate = None;
        state.heard = None;
        let attempt = state.attempt();
        state.attempts.push(attempt);
        true
    }

    /// The attempt under way has been answered or has failed; the next one counts. Idempotent.
    pub fn end_attempt(&self) {
        self.state().under_way = false;
    }

    /// The number of the attempt that a layer further out has begun and not ended; `None` before
    /// the first and between two.
    #[must_use]
    pub fn attempt_under_way(&self) -> Option<u32> {
        let state = self.state();
        state.under_way.then_some(state.sent)
    }

    /// How many more requests may be sent; `default_max` as for [`begin_attempt`](Self::begin_attempt).
    #[must_use]
    pub fn attempts_left(&self, default_max: u32) -> u32 {
        let state = self.state();
        state
            .max_attempts
            .unwrap_or(default_max.max(1))
            .saturating_sub(state.sent)
            .saturating_sub(state.steering.kept)
    }

    /// The most attempts as the caller has said it ([`CallOptions::max_attempts`]), which goes before every layer's own.
    #[must_use]
    pub fn told_max_attempts(&self) -> Option<u32> {
        self.0.options.max_attempts
    }

    /// Sets the most attempts if neither the caller nor a layer further out has.
    pub fn default_max_attempts(&self, attempts: u32) {
        self.state().max_attempts.get_or_insert(attempts.max(1));
    }

    /// How many requests were begun.
    #[must_use]
    pub fn attempts_begun(&self) -> u32 {
        self.state().sent
    }

    /// What a fallback further out has laid down.
    #[must_use]
    pub fn steering(&self) -> Steering {
        self.state().steering.clone()
    }

    /// Lays down what holds for the layers further in. A fallback puts back what it found when it is
    /// done.
    pub fn steer(&self, steering: Steering) {
        self.state().steering = steering;
    }

    /// Enters a candidate that was passed over, so that the list of attempts says why.
    pub fn skip(&self, model: Option<Arc<str>>, target: Option<Arc<str>>, why: Skipped) {
        let mut state = self.state();
        let entry = Attempt {
            model,
            target,
            skipped: Some(why),
            ..state.attempt()
        };
        state.attempts.push(entry);
    }

    /// The latest attempt was not sent after all: it does not count, and its entry says why.
    pub fn take_back_attempt(&self, why: Skipped) {
        let mut state = self.state();
        if let Some(attempt) = state.latest() {
            attempt.skipped = Some(why);
            state.sent = state.sent.saturating_sub(1);
        }
    }

    /// Writes into the entry of the latest attempt that was sent, if there is one.
    ///
    /// `write` runs while the ledger is locked: it must be short, and must not ask the call anything,
    /// which would wait for itself.
    pub fn note(&self, write: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = self.state().latest() {
            write(attempt);
        }
    }

    /// All attempts so far, and the candidates that were passed over.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.state().attempts.clone()
    }

    /// The longest that a budget may let this attempt queue before it refuses, and that a retry may
    /// wait on the server's word; set by a fallback that has somewhere else to go.
    #[must_use]
    pub fn max_queue_wait(&self) -> Option<Duration> {
        self.state().steering.max_queue_wait
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics while it holds the lock; a poisoned one is as good as any.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn attempt(&self) -> Attempt {
        Attempt {
            number: self.sent,
            model: self.steering.model.clone(),
            target: self.steering.target.clone(),
            started: Instant::now(),
            waited: None,
            status: None,
            outcome: None,
            took: None,
            queued: None,
            at_risk: None,
            cost: None,
            skipped: None,
        }
    }

    fn latest(&mut self) -> Option<&mut Attempt> {
        self.attempts
            .iter_mut()
            .rev()
            .find(|attempt| attempt.skipped.is_none())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Call")
            .field("id", &format_args!("{:016x}", self.0.id))
            .field("attempts", &state.attempts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_layers_share_one_count() {
        let call = Call::new(CallOptions::new());
        assert_eq!(call.begin_attempt(2), Some(1), "outer");
        assert_eq!(call.begin_attempt(9), Some(1), "inner: the same attempt");
        call.end_attempt();
        assert_eq!(call.begin_attempt(9), Some(2), "inner tries again");
        call.end_attempt();
        call.end_attempt();
        assert_eq!(
            call.begin_attempt(2),
            None,
            "the outer layer's maximum holds for both"
        );
        assert_eq!(call.attempts().len(), 2);
    }

    #[test]
    fn the_callers_maximum_wins() {
        let call = Call::new(CallOptions::new().max_attempts(1));
        call.default_max_attempts(5);
        assert_eq!(call.attempts_left(5), 1);
        assert_eq!(call.begin_attempt(5), Some(1));
        call.end_attempt();
        assert_eq!(call.begin_attempt(5), None);
    }

    #[test]
    fn attempts_that_are_kept_back_are_for_the_layer_that_keeps_them() {
        let call = Call::new(CallOptions::new());
        call.default_max_attempts(4);
        assert_eq!(call.begin_attempt(4), Some(1));
        let keep = |kept| Steering {
            kept,
            ..Steering::default()
        };
        call.steer(keep(2));
        call.end_attempt();
        assert_eq!(call.attempts_left(4), 1);
        assert_eq!(call.begin_attempt(4), Some(2), "a retry further in");
        call.end_attempt();
        assert_eq!(
            call.begin_attempt(4),
            None,
            "the rest is for the next model"
        );
        call.steer(keep(0));
        assert_eq!(call.begin_attempt(4), Some(3));
    }

    #[test]
    fn what_was_not_sent_does_not_count_and_says_why() {
        let call = Call::new(CallOptions::new());
        call.steer(Steering {
            model: Some("m-1".into()),
            ..Steering::default()
        });
        assert_eq!(call.begin_attempt(1), Some(1));
        call.end_attempt();
        call.take_back_attempt(Skipped::DeadCredential);
        call.skip(Some("m-2".into()), None, Skipped::CoolingDown);
        assert_eq!(call.begin_attempt(1), Some(1));
        call.note(|attempt| attempt.took = Some(Duration::ZERO));
        let all = call.attempts();
        assert_eq!(all[0].skipped, Some(Skipped::DeadCredential));
        assert_eq!(all[1].model.as_deref(), Some("m-2"));
        assert_eq!(all[2].model.as_deref(), Some("m-1"));
        assert_eq!((all[2].skipped, all[2].took), (None, Some(Duration::ZERO)));
    }
}
