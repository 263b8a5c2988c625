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
    /// Members of pools that were asked before, the fullest first.
    pub members: Vec<MemberSnapshot>,
}

/// One member of a [pool](crate::Candidate::pool).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MemberSnapshot {
    /// The target's name, where it is not only another model.
    pub target: Option<Arc<str>>,
    /// The model.
    pub model: Option<Arc<str>>,
    /// Attempts under way, up to their answers' heads.
    pub under_way: u64,
    /// The share of its tightest limit that one more request without tokens would leave, by its
    /// latest answer and what is under way: from 1 down to below 0. One that states no limits counts
    /// as half full, one that has not answered yet as not used at all.
    pub left: f64,
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
