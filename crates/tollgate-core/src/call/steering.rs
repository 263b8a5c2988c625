//! What a fallback lays down for the layers further in.
use std::{sync::Arc, time::Duration};

/// What a fallback lays down for the layers further in while it tries one of its candidates.
///
/// ```
/// use tollgate_core::call::{Call, CallOptions};
///
/// let call = Call::new(CallOptions::new().max_attempts(3));
/// let outer = call.steering();
/// let mut mine = outer.clone();
/// mine.kept += 1;
/// call.steer(mine);
/// assert_eq!(call.attempts_left(3), 2, "one is for the next model");
/// call.steer(outer);
/// assert_eq!(call.attempts_left(3), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Steering {
    /// The model of the attempts that begin from here on.
    pub model: Option<Arc<str>>,
    /// The name of their target, where it is not only another model.
    pub target: Option<Arc<str>>,
    /// Attempts that are kept back for other candidates: a layer further in gets no more than the
    /// rest, so that the retries of one cannot use up what the next one needs.
    pub kept: u32,
    /// The longest that a budget may let an attempt queue before it refuses, and that a retry may
    /// wait on the server's word; `None`: no bound but their own.
    pub max_queue_wait: Option<Duration>,
    /// Streams are held by the layer that says so, and those further in pass them on as they come:
    /// one is enough, and the outer one must see the frames to hold them to its timeouts.
    pub holds_streams: bool,
}
