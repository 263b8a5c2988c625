//! The settings of a fallback.
use std::time::Duration;

use tollgate_core::{
    body::PeekPolicy,
    resend::Resend,
    timeouts::Timeouts,
    wire::outcome::{NextModel, OutcomeKind, Overrides},
};

/// Which answer the caller gets when all candidates have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnExhausted {
    /// The first candidate's, if its whole document is within the cap of
    /// [`PeekPolicy::error_cap`]; else the last one's.
    First,
    /// The last one's; but the first one's if the last found fault with the request, for that is
    /// about a request that the caller has not made.
    #[default]
    Last,
}

/// The settings of a fallback.
///
/// ```
/// use std::time::Duration;
/// use tollgate_fallback::{FallbackPolicy, OnExhausted};
///
/// let policy = FallbackPolicy::default()
///     .max_wait(Duration::from_secs(2))
///     .on_exhausted(OnExhausted::First)
///     .model_header(true);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct FallbackPolicy {
    pub(crate) max_wait: Duration,
    pub(crate) on_exhausted: OnExhausted,
    pub(crate) overrides: Overrides<NextModel>,
    pub(crate) resend: Resend,
    pub(crate) replay_cap: u64,
    pub(crate) peek: PeekPolicy,
    pub(crate) model_header: bool,
    pub(crate) attempts: u32,
    pub(crate) buffered: bool,
    pub(crate) timeouts: Timeouts,
}

impl Default for FallbackPolicy {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_secs(10),
            on_exhausted: OnExhausted::default(),
            overrides: Overrides::new(),
            resend: Resend::default(),
            replay_cap: 32 << 20,
            peek: PeekPolicy::default(),
            model_header: false,
            attempts: 3,
            buffered: false,
            timeouts: Timeouts::new(),
        }
    }
}

impl FallbackPolicy {
    /// The longest that a request may queue in a budget inside, or be held by a retry inside because
    /// the server said so, while another candidate is left.
    /// Default 10 s. Where another member of the same pool is free, nothing is waited for; the last
    /// candidate may wait as long as they allow.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    /// Whose answer the caller gets when all have failed. Default [`OnExhausted::Last`].
    pub fn on_exhausted(mut self, whose: OnExhausted) -> Self {
        self.on_exhausted = whose;
        self
    }

    /// Does otherwise than the [table](tollgate_core::wire::outcome::Outcome::advice) after such an
    /// outcome. Of waits and retries nothing changes: what is seen here is what the layers inside
    /// gave up on.
    ///
    /// ```
    /// use tollgate_core::wire::outcome::{NextModel, OutcomeKind};
    /// use tollgate_fallback::FallbackPolicy;
    ///
    /// let policy = FallbackPolicy::default()
    ///     .on(OutcomeKind::ServerError, NextModel::Never)
    ///     .on(OutcomeKind::Invalid, NextModel::Now);
    /// ```
    ///
    /// Work which is done later (background responses, batches, files, fine-tuning) is never sent
    /// twice, whatever stands here.
    ///
    /// # Panics
    ///
    /// On [`NextModel::Done`]: what has failed cannot be called served.
    pub fn on(mut self, outcome: OutcomeKind, action: NextModel) -> Self {
        assert!(
            action != NextModel::Done,
            "an outcome that was not served cannot be called done: {outcome:?}"
        );
        self.overrides = self.overrides.with(outcome, action);
        self
    }

    /// Whether a content filter's refusal is put to the next candidate: [`on`](Self::on) in other
    /// words. Default no.
    pub fn route_around_refusals(self, allowed: bool) -> Self {
        let action = if allowed {
            NextModel::Now
        } else {
            NextModel::Never
        };
        self.on(OutcomeKind::ContentRefused, action)
    }

    /// Whether a request that may have been served is sent to the next candidate. Default
    /// [`Resend::NothingDelivered`].
    pub fn resend(mut self, resend: Resend) -> Self {
        self.resend = resend;
        self
    }

    /// Largest request document, in bytes, that is held to be sent again. Default 32 MiB; a larger
    /// one is sent once, as it came.
    pub fn replay_cap(mut self, bytes: u64) -> Self {
        self.replay_cap = bytes;
        self
    }

    /// How long each candidate is waited for, the retries inside included: one that does not answer,
    /// or whose stream's first content does not come in time, is dropped, connection and all, and
    /// the next one is asked. Default none.
    ///
    /// The idle timeout leads to the next candidate while an answer is held
    /// ([`buffered`](Self::buffered)); a stream that was handed on ends in a
    /// [`BodyError`](tollgate_core::body::BodyError). Requests that pass unread are not timed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate_core::timeouts::Timeouts;
    /// use tollgate_fallback::FallbackPolicy;
    ///
    /// let ten = Duration::from_secs(10);
    /// let timeouts = Timeouts::new().first_token(ten).idle(ten);
    /// let policy = FallbackPolicy::default().timeouts(timeouts);
    /// ```
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// How far to look into an answer before it is passed on. See [`PeekPolicy`] for the defaults.
    ///
    /// Answers are held whole only while another candidate is left, and not if a retry inside has
    /// done so; of the last candidate only as far as an error's document may go
    /// ([`PeekPolicy::error_cap`]).
    pub fn peek(mut self, peek: PeekPolicy) -> Self {
        self.peek = peek;
        self
    }

    /// Whether the callers read a whole answer before they use any of it, also of a stream. Default
    /// no; a single call says so with
    /// [`CallOptions::buffered`](tollgate_core::call::CallOptions::buffered).
    ///
    /// A stream is then held until it is whole, up to the bytes of [`PeekPolicy::hold_answer`], while
    /// another candidate is left: one that breaks or stalls in its middle is asked of the next
    /// candidate from the start, and the caller sees nothing of the first. Otherwise a stream that
    /// breaks after its first content ends in its error.
    pub fn buffered(mut self, yes: bool) -> Self {
        self.buffered = yes;
        self
    }

    /// Whether the answer names the model that was asked in an `x-tollgate-model` header. Default
    /// no. [`ServedBy`](tollgate_core::extensions::ServedBy) is in the extensions anyway.
    pub fn model_header(mut self, on: bool) -> Self {
        self.model_header = on;
        self
    }

    /// Attempts of one call, retries inside included, beside one for each further candidate.
    /// Default 3. What the caller or a layer outside has set goes before.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }
}
