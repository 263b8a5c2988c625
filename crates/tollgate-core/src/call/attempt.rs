//! What was tried for a call, and why.
use std::{sync::Arc, time::Duration};

use http::{Response, StatusCode};
use tokio::time::Instant;

use crate::{
    call::Call,
    extensions::Reason,
    price::Cost,
    wire::{outcome::Outcome, prompt::Capability, retry_after},
};

/// One request that was sent for a call, or was about to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Attempt {
    /// 1 for the first. A candidate that was passed over has the number of the attempt before it.
    pub number: u32,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// The name of the target, where it is not only another model.
    pub target: Option<Arc<str>>,
    /// When it began.
    pub started: Instant,
    /// How long a layer waited because of the one before, and why.
    pub waited: Option<(Duration, WaitReason)>,
    /// How long it stood in the queue of a budget before it was sent.
    pub queued: Option<Duration>,
    /// Status of the answer.
    pub status: Option<StatusCode>,
    /// What the answer meant.
    pub outcome: Option<Outcome>,
    /// From the begin to the answer's head, or to the failure.
    pub took: Option<Duration>,
    /// LLM tokens, by estimate, that the provider may have charged although the attempt failed: it timed out, broke, or
    /// its connection was lost after it was sent.
    pub at_risk: Option<u64>,
    /// What it cost, once a recorder has computed it: when its answer has been read to the end.
    pub cost: Option<Cost>,
    /// Why nothing was sent; `None` for an attempt that was.
    pub skipped: Option<Skipped>,
}

/// Why a candidate of a chain was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Skipped {
    /// It failed a short while ago and is left alone until its next probe.
    CoolingDown,
    /// Its key was refused, or has no money left.
    DeadCredential,
    /// The request does not fit into its context window, or did not fit into one that is as large.
    TooSmall,
    /// The request names stored state that only another origin has.
    Pinned,
    /// It speaks another dialect than the request.
    OtherDialect,
    /// It lacks something that the request needs.
    Incapable(Capability),
    /// The request cannot be rewritten for it.
    CannotRewrite,
    /// A layer of ours refused the request before it was sent.
    Refused(Reason),
}

/// Where a wait before an attempt came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitReason {
    /// The server stated it.
    Stated(retry_after::Source),
    /// Until an exhausted limit has refilled what this request needs.
    Refill,
    /// Our own back-off.
    Backoff,
    /// Somebody else was refused, and the gate was shut for all who share the key.
    Gate,
    /// It went back at once into the queue of the budget that had heard of the refusal.
    Queue,
}

/// The attempts that led to a response.
///
/// ```
/// use http::Response;
/// use tollgate_core::call::Attempts;
///
/// let response = Response::new(());
/// assert!(Attempts::of(&response).is_empty(), "no layer of ours has seen it");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attempts;

impl Attempts {
    /// In the order in which they were begun; empty if no layer left its [`Call`].
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Vec<Attempt> {
        response
            .extensions()
            .get::<Call>()
            .map(Call::attempts)
            .unwrap_or_default()
    }
}
