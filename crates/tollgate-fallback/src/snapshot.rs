//! What a health shows of itself.
use std::sync::Arc;

use tokio::time::Instant;
use tollgate_core::wire::outcome::Outcome;

/// What a [`FallbackHealth`](crate::FallbackHealth) knows.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HealthSnapshot {
    /// Targets that are left alone, the longest first; one that is not listed is well.
    pub targets: Vec<TargetSnapshot>,
    /// Keys that are not used now.
    pub dead_keys: usize,
}

/// One target that is left alone.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TargetSnapshot {
    /// The target's name, where it is not only another model.
    pub target: Option<Arc<str>>,
    /// The model.
    pub model: Option<Arc<str>>,
    /// What is known of it.
    pub state: TargetState,
    /// Since when it has not been well.
    pub since: Instant,
    /// From when on one call may try it.
    pub next_probe: Instant,
    /// Failures in a row, those counted once that were under way together.
    pub failures: u32,
    /// What the last attempt met.
    pub reason: Outcome,
}

/// What is known of a target that is not well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TargetState {
    /// It failed, or is limited, and is left alone.
    CoolingDown,
    /// One call is finding out whether it is well.
    Probing,
    /// Its time has passed; the next call tries it.
    Due,
    /// Its key was refused, or has no money left.
    CredentialDead,
    /// The model does not exist.
    Gone,
}
