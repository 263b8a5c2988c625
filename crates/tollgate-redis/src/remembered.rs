//! What a process remembers of the shared state, to put it right when the server has lost some of it.
//!
//! A server that was flushed knows nothing, and a replica that takes over may be a second behind. Each process knows what
//! it was granted itself; when the server asks (its epoch is another one, or it has forgotten a visit), all tell it.
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::trip::{Granted, Line};

/// Limits that are remembered; of those that were not used longest, half are forgotten beyond that.
const MOST: usize = 4096;
/// Grants of one limit that are kept apart.
const MOST_GRANTS: usize = 512;
/// A key that nobody uses expires after a day or later; one that is not there after half of that was not lost.
const SURE: Duration = Duration::from_secs(12 * 3600);

#[derive(Debug)]
struct Limit {
    line: Line,
    /// The last state of a bucket or a cap, in the server's words.
    mem: String,
    /// When it was granted, for when, and how much.
    grants: VecDeque<(i64, i64, u64)>,
    used: u64,
    visited: Instant,
}

impl Limit {
    /// Units count for this date.
    fn add(&mut self, now: i64, date: i64, units: u64) {
        let gone = now.saturating_sub(self.line.window());
        while self.grants.front().is_some_and(|&(_, date, _)| date < gone) {
            self.grants.pop_front();
        }
        // Close together is near enough: the later date of both.
        let close = self.line.window() / (MOST_GRANTS as i64 / 2);
        match self.grants.back_mut() {
            Some((at, last, sum))
                if now.saturating_sub(*at) < close && date.saturating_sub(*last).abs() < close =>
            {
                (*at, *last) = (now, date.max(*last));
                *sum = sum.saturating_add(units);
            }
            _ => {
                if self.grants.len() >= MOST_GRANTS {
                    self.grants.pop_front();
                }
                self.grants.push_back((now, date, units));
            }
        }
    }
}

/// All that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    limits: HashMap<String, Limit>,
    turn: u64,
    needed: i64,
}

impl Remembered {
    pub(crate) fn granted(&mut self, name: &str, line: &Line, granted: &Granted, now: i64) {
        self.turn += 1;
        if self.limits.len() >= MOST && !self.limits.contains_key(name) {
            self.forget();
        }
        let limit = self.limits.entry(name.to_owned()).or_insert_with(|| Limit {
            line: line.clone(),
            mem: String::new(),
            grants: VecDeque::new(),
            used: 0,
            visited: Instant::now(),
        });
        limit.line = line.clone();
        // A cap's claim is what was claimed, and what was granted on top of it: told without that, it would be free for
        // others for a while.
        limit.line.claim = limit.line.claim.saturating_add(granted.units);
        (limit.used, limit.visited) = (self.turn, Instant::now());
        if !granted.mem.is_empty() {
            limit.mem.clone_from(&granted.mem);
        }
        if line.is_cap() && limit.line.claim > 0 {
            self.needed = self.needed.max(line.ends());
        }
        if line.is_rolling() {
            let debts = line
                .debts()
                .map(|(age, units)| (now.saturating_sub(age), units));
            let granted = (granted.units > 0).then_some((granted.date, granted.units));
            for (date, units) in debts.chain(granted) {
                limit.add(now, date, units);
                self.needed = self.needed.max(date.saturating_add(line.window()));
            }
        }
    }

    fn forget(&mut self) {
        let mut used: Vec<u64> = self.limits.values().map(|limit| limit.used).collect();
        let middle = used.len() / 2;
        let (_, &mut middle, _) = used.select_nth_unstable(middle);
        self.limits.retain(|_, limit| limit.used > middle);
    }

    /// Whether the server has a key of it for sure, if it has lost nothing.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let limit = self.limits.get(name);
        // A cap's lasts longer than its period.
        limit.is_some_and(|limit| limit.line.is_cap() || limit.visited.elapsed() < SURE)
    }

    /// Until then, by the server's time, something of it counts in a limit.
    pub(crate) fn needed(&self) -> i64 {
        self.needed
    }

    /// What is to be told of a state in which nothing after `since` is known.
    pub(crate) fn told(&self, since: i64) -> Vec<(String, Line)> {
        let told = self.limits.iter().map(|(name, limit)| {
            let mem = Some(limit.mem.clone()).filter(|mem| !mem.is_empty());
            let recent = limit.grants.iter().filter(|&&(at, ..)| at >= since);
            (
                name.clone(),
                limit.line.remembering(mem, recent.copied().collect()),
            )
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> Granted {
        Granted {
            units: 1,
            wait: Duration::ZERO,
            back: Duration::ZERO,
            share: 0.0,
            date: 1,
            mem: "1".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_may_have_expired_is_not_missed() {
        let mut remembered = Remembered::default();
        remembered.granted("window", &Line::of("r"), &granted(), 1);
        remembered.granted("cap", &Line::of("c"), &granted(), 1);
        assert!(remembered.knows("window") && remembered.knows("cap"));
        assert!(!remembered.knows("another"));
        tokio::time::advance(SURE).await;
        assert!(!remembered.knows("window"));
        assert!(
            remembered.knows("cap"),
            "those last longer than their period"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_limits_those_are_kept_that_were_used_last() {
        let mut remembered = Remembered::default();
        let name = |limit: usize| format!("limit {limit}");
        for limit in 0..MOST {
            remembered.granted(&name(limit), &Line::of("r"), &granted(), 1);
        }
        // However often one of them is used.
        for _ in 0..MOST {
            remembered.granted("limit 7", &Line::of("r"), &granted(), 1);
        }
        remembered.granted("one more", &Line::of("r"), &granted(), 1);
        let kept = (0..MOST).filter(|&limit| remembered.knows(&name(limit)));
        assert!(kept.count() >= MOST / 2 - 1);
        assert!(remembered.knows("limit 7") && remembered.knows("one more"));
        assert!(!remembered.knows("limit 0"));
    }
}
