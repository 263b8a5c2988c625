//! What a budget shows of itself.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    Charged,
    limit::{Enforcement, Scope, Unit},
};

/// A budget at one instant.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BudgetSnapshot {
    /// Every limit in use; a limit of a scope stands here once for each key in use.
    pub limits: Vec<LimitSnapshot>,
    /// Requests that wait.
    pub queued: usize,
    /// Bytes that they hold.
    pub queued_bytes: u64,
    /// Requests that were admitted and are not over.
    pub in_flight: usize,
    /// Requests that passed a limit of money without a price ([`Unpriced::Pass`](crate::Unpriced::Pass)), so far.
    pub unpriced: u64,
    /// Where the provider was seen to charge otherwise than the profile says, by model where models matter.
    pub charging: Vec<ChargingSnapshot>,
    /// What would have been done so far, in shadow mode ([`shadow`](crate::BudgetBuilder::shadow)).
    pub shadow: Option<ShadowSnapshot>,
    /// How long the gate stays shut after a refusal of the provider's.
    pub gated: Option<Duration>,
}

impl BudgetSnapshot {
    /// The first limit of this name.
    #[must_use]
    pub fn limit(&self, name: &str) -> Option<&LimitSnapshot> {
        self.limits.iter().find(|limit| &*limit.name == name)
    }
}

/// What lone requests have shown of one model's charging.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChargingSnapshot {
    /// The model; `None` where limits hold for all of them.
    pub model: Option<Arc<str>>,
    /// The rule that is followed instead of the profile's; `None`: the profile's stands.
    pub charged: Option<Charged>,
    /// Answers to lone requests that did not fit the rule in force; grows only.
    pub mismatches: u64,
}

/// What a budget in shadow mode would have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShadowSnapshot {
    /// Requests that would have passed at once.
    pub admitted: u64,
    /// Requests that would have waited.
    pub waited: u64,
    /// Requests that would have been refused.
    pub refused: u64,
    /// The longest wait that was predicted.
    pub longest_wait: Duration,
}

/// One limit at one instant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LimitSnapshot {
    /// Its name.
    pub name: Arc<str>,
    /// What it counts.
    pub unit: Unit,
    /// Whose requests share it.
    pub scope: Scope,
    /// The model, or the digest of the principal, of a limit with that scope.
    pub key: Option<Arc<str>>,
    /// Units a period, as in force: never above what was told, below it if the provider says less.
    pub limit: u64,
    /// What was told; `None`: it is learned.
    pub told: Option<u64>,
    /// The period; of a cap per calendar month 31 days.
    pub period: Duration,
    /// Units counted against it now, with those in flight and those of strangers that the headers show.
    pub used: u64,
    /// The part of them that is held by requests in flight.
    pub reserved: u64,
    /// Units by which it is overdrawn.
    pub debt: u64,
    /// Units that the requests in the queue will take.
    pub queued: u64,
    /// In what time all of it is free again, if nothing more is used.
    pub free_in: Duration,
    /// When the running period ends, of a cap per calendar period.
    pub resets_at: Option<SystemTime>,
    /// How it is enforced just now; never [`Enforcement::Auto`].
    pub enforcement: Enforcement,
    /// Learned from headers, not told.
    pub learned: bool,
}
