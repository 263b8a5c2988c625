//! The order of a pool: who has most left of its limits.
use std::{cmp::Ordering, time::Duration};

use tokio::time::Instant;
use tollgate_core::wire::limits::{Dimension, RateLimit};

use crate::{
    FallbackHealth, MemberSnapshot,
    choose::Choice,
    health::{Slot, keep_within},
};

/// How long a limit takes to be full again that does not say so.
const WINDOW: Duration = Duration::from_secs(60);

/// Most limits of one answer that are kept.
const MOST_LIMITS: usize = 8;

/// What is known of how busy one target is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load {
    /// Requests and tokens under way.
    requests: u64,
    tokens: u64,
    /// The latest answer, and what it said of the limits.
    answered: Option<Instant>,
    limits: Vec<Stated>,
    /// When it was last chosen, in a count of all choices.
    pub(crate) turn: u64,
}

/// One limit as the latest answer stated it.
#[derive(Clone, Copy, Debug)]
struct Stated {
    limit: f64,
    remaining: f64,
    full_after: Duration,
    counts_tokens: bool,
}

/// Who is asked first: the larger share left; the fewer under way; the longer ago.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rank {
    pub(crate) last: bool,
    left: f64,
    under_way: u64,
    turn: u64,
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        let most_left = other.left.partial_cmp(&self.left)?;
        let others = (self.last, self.under_way, self.turn);
        Some(
            self.last
                .cmp(&other.last)
                .then(most_left)
                .then(others.cmp(&(other.last, other.under_way, other.turn))),
        )
    }
}

impl Load {
    pub(crate) fn begin(&mut self, tokens: u64, turn: u64) {
        self.requests += 1;
        self.tokens = self.tokens.saturating_add(tokens);
        self.turn = turn;
    }

    pub(crate) fn end(&mut self, tokens: u64) {
        self.requests = self.requests.saturating_sub(1);
        self.tokens = self.tokens.saturating_sub(tokens);
    }

    pub(crate) fn answered(&mut self, limits: &[RateLimit], now: Instant) {
        self.answered = Some(now);
        let stated = limits.iter().filter_map(|limit| {
            let reset = limit.reset.as_ref().and_then(|reset| reset.after());
            Some(Stated {
                limit: limit.limit.filter(|limit| *limit > 0.0)?,
                remaining: limit.remaining?,
                full_after: reset.unwrap_or(WINDOW),
                counts_tokens: !matches!(
                    limit.dimension,
                    Dimension::Requests | Dimension::InputImages
                ),
            })
        });
        self.limits = stated.take(MOST_LIMITS).collect();
    }

    /// The share of the tightest limit that would be left with what is under way, from 1 down to
    /// below 0. One that states no limits counts as half full, one that was never asked as full.
    fn left(&self, tokens: u64, now: Instant) -> f64 {
        let Some(answered) = self.answered else {
            return 1.0;
        };
        let age = now.saturating_duration_since(answered).as_secs_f64();
        let left = self.limits.iter().map(|stated| {
            let refilled = age / stated.full_after.as_secs_f64().max(0.001);
            let missing = stated.limit - stated.remaining;
            let remaining = (stated.remaining + missing * refilled).min(stated.limit);
            let cost = if stated.counts_tokens {
                self.tokens.saturating_add(tokens)
            } else {
                self.requests + 1
            };
            (remaining - cost as f64) / stated.limit
        });
        left.fold(None, |least: Option<f64>, left| {
            Some(least.map_or(left, |least| least.min(left)))
        })
        .unwrap_or(0.5)
    }

    pub(crate) fn show(&self, slot: &Slot, now: Instant) -> MemberSnapshot {
        MemberSnapshot {
            target: slot.target.clone(),
            model: slot.model.clone(),
            under_way: self.requests,
            left: self.left(0, now),
        }
    }

    pub(crate) fn rank(&self, tokens: u64, now: Instant, last: bool) -> Rank {
        Rank {
            last,
            left: self.left(tokens, now),
            under_way: self.requests,
            turn: self.turn,
        }
    }
}

/// One attempt at a target of a pool, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) health: FallbackHealth,
    pub(crate) slot: Slot,
    pub(crate) tokens: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.health.end(&self.slot, self.tokens);
    }
}

impl FallbackHealth {
    /// Where a target stands in the order of its pool.
    pub(crate) fn rank(&self, slot: &Slot, tokens: u64, now: Instant, last: bool) -> Rank {
        let state = self.state();
        match state.loads.get(slot) {
            Some(load) => load.rank(tokens, now, last),
            None => Load::default().rank(tokens, now, last),
        }
    }

    /// An attempt at a target of a pool begins; it ends with what is given back.
    pub(crate) fn begin(&self, slot: &Slot, tokens: u64) -> UnderWay {
        let mut state = self.state();
        state.turns += 1;
        let turn = state.turns;
        keep_within(&mut state.loads, |load| load.turn, slot);
        let load = state.loads.entry(slot.clone()).or_default();
        load.begin(tokens, turn);
        UnderWay {
            health: self.clone(),
            slot: slot.clone(),
            tokens,
        }
    }

    pub(crate) fn end(&self, slot: &Slot, tokens: u64) {
        if let Some(load) = self.state().loads.get_mut(slot) {
            load.end(tokens);
        }
    }

    /// What an answer said of a pooled target's limits.
    pub(crate) fn saw_limits(&self, slot: &Slot, limits: &[RateLimit], now: Instant) {
        if let Some(load) = self.state().loads.get_mut(slot) {
            load.answered(limits, now);
        }
    }
}

impl Choice {
    /// Puts each pool of the route in order.
    pub(crate) fn order_pools(&mut self, health: &FallbackHealth, now: Instant) {
        if !self.route.has_pools() {
            return;
        }
        let mut route = self.route.clone();
        route.rank(|candidate| {
            let Some(key) = self.best_key(candidate, health, now) else {
                return Load::default().rank(self.tokens, now, true);
            };
            let slot = self.slot(candidate, key.id);
            // With fallbacks off only the model itself will do.
            let other = self.route.len() == 1 && !candidate.serves(self.facts.model.as_deref());
            let left_alone = health.dead_until(key.id, now).is_some()
                || health.cooling_until(&slot, now).is_some();
            health.rank(&slot, self.tokens, now, other || left_alone)
        });
        self.route = route;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(limit: f64, remaining: f64, dimension: Dimension) -> RateLimit {
        let mut headers = http::HeaderMap::new();
        let name = dimension.as_str();
        for (what, value) in [("limit", limit), ("remaining", remaining)] {
            let header = format!("x-ratelimit-{what}-{name}");
            let header = http::HeaderName::from_bytes(header.as_bytes()).unwrap();
            headers.insert(header, value.to_string().parse().unwrap());
        }
        let mut read =
            tollgate_core::wire::limits::from_headers(&headers, std::time::SystemTime::UNIX_EPOCH);
        read.remove(0)
    }

    #[test]
    fn what_is_under_way_counts_against_what_is_left() {
        let now = Instant::now();
        let mut load = Load::default();
        load.answered(&[limit(10.0, 10.0, Dimension::Requests)], now);
        assert_eq!(load.left(5, now), 0.9, "after this one");
        load.begin(5, 1);
        assert_eq!(load.left(5, now), 0.8);
        load.end(5);
        load.answered(
            &[
                limit(10.0, 10.0, Dimension::Requests),
                limit(100.0, 30.0, Dimension::Tokens),
            ],
            now,
        );
        assert_eq!(load.left(10, now), 0.2, "the tightest counts");
        assert_eq!(load.left(10, now + WINDOW), 0.9, "and fills again");
    }

    #[test]
    fn hostile_numbers_leave_an_order() {
        let now = Instant::now();
        let mut load = Load::default();
        load.answered(&[], now);
        for (limit, remaining) in [(1e308, -1e308), (1e-300, 1e300), (1.0, -1e308)] {
            let full_after = Duration::ZERO;
            load.limits = vec![Stated {
                limit,
                remaining,
                full_after,
                counts_tokens: true,
            }];
            let rank = load.rank(u64::MAX, now, false);
            assert!(rank.partial_cmp(&rank).is_some(), "{rank:?}");
        }
    }
}
