//! Everything that arrived in the last window, entry by entry.
use std::collections::VecDeque;

#[derive(Clone, Debug)]
pub(super) struct Rolling {
    pub(super) limit: u64,
    window: u64,
    entries: VecDeque<(u64, u64)>,
    /// The place of the first entry; places count on for ever.
    first: u64,
    used: u64,
}

impl Rolling {
    pub(super) fn new(limit: u64, window: u64) -> Self {
        Self {
            limit,
            window,
            entries: VecDeque::new(),
            first: 0,
            used: 0,
        }
    }

    /// An entry made at `t` counts until just before `t + window`.
    fn expire(&mut self, now: u64) {
        while let Some(&(at, cost)) = self.entries.front() {
            if at.saturating_add(self.window) > now {
                break;
            }
            self.entries.pop_front();
            self.first += 1;
            self.used -= cost;
        }
    }

    pub(super) fn used(&mut self, now: u64) -> u64 {
        self.expire(now);
        self.used
    }

    pub(super) fn wait(&mut self, now: u64, cost: u64) -> u64 {
        self.expire(now);
        let Some(mut excess) = (self.used.saturating_add(cost)).checked_sub(self.limit) else {
            return 0;
        };
        if excess == 0 {
            return 0;
        }
        for &(at, held) in &self.entries {
            if held >= excess {
                return at + self.window - now;
            }
            excess -= held;
        }
        0
    }

    pub(super) fn charge(&mut self, now: u64, cost: u64) -> u64 {
        self.expire(now);
        self.entries.push_back((now, cost));
        self.used += cost;
        self.first + self.entries.len() as u64 - 1
    }

    pub(super) fn settle(&mut self, now: u64, place: u64, cost: u64) {
        self.expire(now);
        let Some(index) = place.checked_sub(self.first) else {
            return;
        };
        if let Some(entry) = usize::try_from(index)
            .ok()
            .and_then(|index| self.entries.get_mut(index))
        {
            self.used = self.used - entry.1 + cost;
            entry.1 = cost;
        }
    }

    pub(super) fn reset(&mut self, now: u64) -> u64 {
        self.expire(now);
        let last = self.entries.iter().rev().find(|entry| entry.1 > 0);
        last.map_or(0, |&(at, _)| at + self.window - now)
    }
}
