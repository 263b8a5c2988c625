//! How much had been taken by then.
//!
//! An answer counts what had arrived when it was counted. To tell strangers' use from our own we must know how much of
//! ours can have been in it: all that was in the books when its request was sent, and what was sent from then until it
//! was counted. Not what was sent until the answer came; in a burst that is nearly everything.
use std::collections::VecDeque;

use super::rate::{MILLI, Nanos, SECOND};

/// Fine enough for ways over a network.
const SLOT: Nanos = 2 * MILLI;
/// Answers are rarely dated further back.
const LENGTH: Nanos = 10 * SECOND;

/// A running total over the last ten seconds, in slots of 2 ms.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// (slot, total at its end)
    slots: VecDeque<(u64, u128)>,
    total: u128,
}

impl History {
    /// So much more was taken.
    pub(crate) fn add(&mut self, now: Nanos, units: u64) {
        self.total += u128::from(units);
        let slot = now / SLOT;
        match self.slots.back_mut() {
            Some(last) if last.0 >= slot => last.1 = self.total,
            _ => self.slots.push_back((slot, self.total)),
        }
        let oldest = now.saturating_sub(LENGTH) / SLOT;
        while self.slots.front().is_some_and(|&(slot, _)| slot < oldest) {
            self.slots.pop_front();
        }
    }

    /// All that was ever taken.
    pub(crate) fn total(&self) -> u128 {
        self.total
    }

    /// The most that can have been taken by then.
    pub(crate) fn by(&self, then: Nanos) -> u128 {
        // What a slot has at its end is more than it had at any time within it.
        let after = self.slots.partition_point(|&(slot, _)| slot <= then / SLOT);
        match after.checked_sub(1) {
            Some(index) => self.slots[index].1,
            None if self.slots.is_empty() => self.total,
            // Before all that is remembered: the first slot's total is the nearest that is not less.
            None => self.slots[0].1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_never_less_than_what_was_taken() {
        let mut history = History::default();
        history.add(SECOND, 5);
        history.add(SECOND + MILLI, 7);
        history.add(2 * SECOND, 100);
        assert_eq!(history.by(0), 12);
        assert_eq!(history.by(SECOND), 12);
        assert_eq!(history.by(SECOND + SECOND / 2), 12);
        assert_eq!(history.by(2 * SECOND), 112);
        history.add(60 * SECOND, 1);
        assert_eq!(history.by(SECOND), 113, "forgotten, so the most it can be");
    }
}
