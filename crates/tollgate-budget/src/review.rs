//! Asking somebody instead of refusing.
use std::{fmt, sync::Arc, time::Duration};

use crate::limit::Unit;

/// A request that a limit has no room for, as a review sees it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Review {
    /// The limit's name.
    pub limit: Arc<str>,
    /// What it counts.
    pub unit: Unit,
    /// The model, or the digest of the principal or whatever else it is kept for.
    pub key: Option<Arc<str>>,
    /// What the limit allows.
    pub amount: u64,
    /// What is used of it. If others are let go before the answer is there, it is asked again with what is used then.
    pub used: u64,
    /// What the request would use, at most.
    pub asked: u64,
    /// When there will be room; `None`: never, the request is larger than the whole limit.
    pub wait: Option<Duration>,
}

/// What a review decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The request goes on as if this limit had room for it. What it uses counts, and the limit is overdrawn.
    Allow,
    /// The request is refused, as without a review.
    Refuse,
}

type Decide = dyn Fn(&Review) -> Decision + Send + Sync;

/// A review function.
#[derive(Clone)]
pub(crate) struct ReviewFn(pub(crate) Arc<Decide>);

impl fmt::Debug for ReviewFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReviewFn")
    }
}
