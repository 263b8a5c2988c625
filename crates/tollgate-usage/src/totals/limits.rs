//! The limits that providers have stated last.
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tollgate_core::{
    principal::Principal,
    wire::limits::{Dimension, RateLimit},
};

use crate::UsageRecord;

/// Limits that are kept.
const MOST: usize = 1_000;
/// What names a limit comes from the wire.
const NAME: usize = 128;

/// A limit as a provider has stated it last.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SeenLimit {
    /// The model that the answer was of; empty if it named none.
    pub model: Arc<str>,
    /// The digest of the key that it was asked with.
    pub key: Option<Principal>,
    /// Limit, remaining units, and when it is full again.
    pub stated: RateLimit,
    /// When the answer's head came.
    pub at: SystemTime,
}

impl SeenLimit {
    /// When the limit is full again, by the wall clock; `None` if the provider has not said.
    #[must_use]
    pub fn resets_at(&self) -> Option<SystemTime> {
        self.at.checked_add(self.stated.reset.as_ref()?.after()?)
    }

    /// The part that is left, from 0 to 1; `None` if the provider has not stated both.
    #[must_use]
    pub fn share_left(&self) -> Option<f64> {
        share_left(&self.stated)
    }
}

/// The part of a limit that is left.
pub(crate) fn share_left(stated: &RateLimit) -> Option<f64> {
    let (limit, remaining) = (stated.limit?, stated.remaining?);
    (limit > 0.0).then(|| (remaining / limit).clamp(0.0, 1.0))
}

type Name = (Arc<str>, Option<Principal>, Dimension, Option<Box<str>>);

#[derive(Default)]
pub(super) struct Seen(HashMap<Name, (RateLimit, SystemTime)>);

impl Seen {
    pub(super) fn take(&mut self, record: &UsageRecord) {
        if record.rate_limits.is_empty() {
            return;
        }
        let head = record.time_to_head.unwrap_or(Duration::ZERO);
        let at = record.started.checked_add(head).unwrap_or(record.started);
        let model = record.model().cloned().unwrap_or_default();
        if model.len() > NAME {
            return;
        }
        for stated in &record.rate_limits {
            let name = (
                Arc::clone(&model),
                record.key,
                stated.dimension.clone(),
                stated.window.clone(),
            );
            if let Some(known) = self.0.get_mut(&name) {
                // Streams end in another order than they began.
                if at >= known.1 {
                    *known = (stated.clone(), at);
                }
                continue;
            }
            if self.0.len() >= MOST {
                let oldest = self.0.iter().min_by_key(|(_, (_, at))| *at);
                if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                    self.0.remove(&name);
                }
            }
            self.0.insert(name, (stated.clone(), at));
        }
    }

    pub(super) fn snapshot(&self) -> Vec<SeenLimit> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_unstable_by(|(a, _), (b, _)| {
            let name = |of: &Name| (of.0.clone(), of.1, of.2.as_str().to_owned(), of.3.clone());
            name(a).cmp(&name(b))
        });
        let seen =
            |((model, key, ..), (stated, at)): (&Name, &(RateLimit, SystemTime))| SeenLimit {
                model: Arc::clone(model),
                key: *key,
                stated: stated.clone(),
                at: *at,
            };
        all.into_iter().map(seen).collect()
    }
}
