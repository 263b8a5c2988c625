//! What a process remembers of the shared state, to put it right when the server has lost some of it.
//!
//! A server that was flushed knows nothing, and a replica that takes over may be a second behind. Each process knows what
//! it was granted itself; when the server asks (its epoch is another one, or it has forgotten a visit), all tell it.
use std::collections::{HashMap, VecDeque};

use crate::trip::{Granted, Line};

/// Limits that are remembered; of those that were not used longest, half are forgotten beyond that.
const MOST: usize = 4096;
/// Grants of one limit that are kept apart.
const MOST_GRANTS: usize = 512;

#[derive(Debug)]
struct Limit {
    line: Line,
    /// The last state of a bucket or a cap, in the server's words.
    mem: String,
    /// When it was granted, for when, and how much.
    grants: VecDeque<(i64, i64, u64)>,
    used: u64,
}

/// All that is remembered.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    limits: HashMap<String, Limit>,
    turn: u64,
}

impl Remembered {
    pub(crate) fn granted(&mut self, name: &str, line: &Line, granted: &Granted, now: i64) {
        self.turn += 1;
        if self.limits.len() >= MOST && !self.limits.contains_key(name) {
            let oldest = self.turn.saturating_sub(MOST as u64 / 2);
            self.limits.retain(|_, limit| limit.used > oldest);
        }
        let limit = self.limits.entry(name.to_owned()).or_insert_with(|| Limit {
            line: line.clone(),
            mem: String::new(),
            grants: VecDeque::new(),
            used: 0,
        });
        limit.line = line.clone();
        // A cap's claim is what was claimed, and what was granted on top of it: told without that, it would be free for
        // others for a while.
        limit.line.claim = limit.line.claim.saturating_add(granted.units);
        limit.used = self.turn;
        limit.mem.clone_from(&granted.mem);
        if line.is_rolling() && granted.units > 0 {
            let gone = now.saturating_sub(line.window());
            while limit
                .grants
                .front()
                .is_some_and(|&(_, date, _)| date < gone)
            {
                limit.grants.pop_front();
            }
            // Close together is near enough: the later date of both.
            let close = line.window() / (MOST_GRANTS as i64 / 2);
            match limit.grants.back_mut() {
                Some((at, date, units)) if now - *at < close && granted.date - *date < close => {
                    (*at, *date) = (now, granted.date);
                    *units = units.saturating_add(granted.units);
                }
                _ => {
                    if limit.grants.len() >= MOST_GRANTS {
                        limit.grants.pop_front();
                    }
                    limit.grants.push_back((now, granted.date, granted.units));
                }
            }
        }
    }

    pub(crate) fn knows(&self, name: &str) -> bool {
        self.limits.contains_key(name)
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
