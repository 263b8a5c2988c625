//! How the shared store does.
use std::sync::Arc;

pub(crate) const TARGET: &str = "tollgate_redis";

/// What the task has seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) down: Option<&'static str>,
    pub(crate) trips: u64,
    pub(crate) failures: u64,
    pub(crate) processes: u32,
    pub(crate) maxmemory_policy: Option<Arc<str>>,
}

/// The server as this process sees it, at one instant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StoreSnapshot {
    /// Why it cannot be reached; `None`: it can.
    pub down: Option<&'static str>,
    /// Visits that it has answered.
    pub trips: u64,
    /// Visits that it has not.
    pub failures: u64,
    /// Processes that share the budget: the most that were there in the last minute or so before the server was heard last,
    /// or as many as [were told](crate::RedisBudgetBuilder::processes).
    pub processes: u32,
    /// What it does when its memory is full, if it tells; anything but `noeviction` can lose the budget's state.
    pub maxmemory_policy: Option<Arc<str>>,
}
