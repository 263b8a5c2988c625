//! What arrived at the provider in the last window, in fine slots.
//!
//! No span of one window may hold more than the limit. This is the strictest discipline there is, so it is safe
//! whether the provider counts a rolling window, a fixed one or a bucket.
//!
//! **Dates.** An entry is dated by the latest time at which it can have arrived, for the provider lets go of it one
//! window after that. As more becomes known of it, it is dated again, earlier. Dates are rounded up to slots of
//! 1/4096 of the window: the memory is bounded, and a window loses at most that part.
//!
//! **Strangers.** Headers may show more use than our own entries can explain: somebody else is on the key, or a
//! charge was underestimated. The difference is kept as "so much, until one window from then"; of several such
//! statements the largest that is still alive counts. That is a maximum over a set: the order of answers does not
//! matter, and nothing is counted twice.
use std::collections::VecDeque;

use super::rate::{NEVER, Nanos, narrow};

const SLOTS: u64 = 4096;
/// A request of more than so many limits keeps the limit for this many windows and is forgiven the rest.
const MOST_WINDOWS: u64 = 64;

/// A log of one limit's use.
#[derive(Clone, Debug)]
pub(crate) struct Rolling {
    window: Nanos,
    slot: Nanos,
    /// (slot, units), by slot.
    own: VecDeque<(u64, u64)>,
    used: u128,
    /// (expiry, units): later ones expire later and are smaller.
    strangers: VecDeque<(Nanos, u64)>,
}

impl Rolling {
    pub(crate) fn new(window: Nanos) -> Self {
        Self {
            window,
            slot: (window / SLOTS).max(1),
            own: VecDeque::new(),
            used: 0,
            strangers: VecDeque::new(),
        }
    }

    fn expiry(&self, slot: u64) -> Nanos {
        slot.saturating_mul(self.slot).saturating_add(self.window)
    }

    fn expire(&mut self, now: Nanos) {
        while let Some(&(slot, units)) = self.own.front() {
            if self.expiry(slot) > now {
                break;
            }
            self.own.pop_front();
            self.used -= u128::from(units);
        }
        while self.strangers.front().is_some_and(|&(at, _)| at <= now) {
            self.strangers.pop_front();
        }
    }

    /// Our own units in the window.
    pub(crate) fn own(&mut self, now: Nanos) -> u128 {
        self.expire(now);
        self.used
    }

    /// All units in the window, strangers' among them.
    pub(crate) fn used(&mut self, now: Nanos) -> u128 {
        let own = self.own(now);
        own + u128::from(self.strangers.front().map_or(0, |&(_, units)| units))
    }

    /// When `units` fit under `limit`; more than the limit fits when the window is empty.
    pub(crate) fn fits_at(&mut self, now: Nanos, limit: u64, units: u64) -> Nanos {
        self.expire(now);
        self.falls_to(now, u128::from(limit.saturating_sub(units)))
    }

    /// When the last of so many units would be through, if all of them waited in line.
    pub(crate) fn drained_at(&mut self, now: Nanos, limit: u64, units: u128) -> Nanos {
        self.expire(now);
        let limit = u128::from(limit.max(1));
        // Each whole limit of the line takes a window, after which the log looks as it does now.
        let windows = units.saturating_sub(1) / limit;
        let rest = units - windows * limit;
        let at = self.falls_to(now, limit - rest.min(limit));
        at.saturating_add(narrow(windows.saturating_mul(u128::from(self.window))))
    }

    /// When own units and strangers' together are down to `room`.
    fn falls_to(&self, now: Nanos, room: u128) -> Nanos {
        let mut left = self.used;
        let mut own = self.own.iter().peekable();
        let mut strangers = self.strangers.iter().peekable();
        let mut at = now;
        loop {
            let others = strangers.peek().map_or(0, |&&(_, units)| u128::from(units));
            if left + others <= room {
                return at;
            }
            let next_own = own.peek().map_or(NEVER, |&&(slot, _)| self.expiry(slot));
            let next_stranger = strangers.peek().map_or(NEVER, |&&(at, _)| at);
            if next_own <= next_stranger {
                let Some(&(_, units)) = own.next() else {
                    return NEVER;
                };
                left -= u128::from(units);
                at = next_own;
            } else {
                strangers.next();
                at = next_stranger;
            }
        }
    }

    /// Enters units that arrive at `date`. More than `limit` hold it for as many windows as they need.
    pub(crate) fn put(&mut self, now: Nanos, date: Nanos, units: u64, limit: u64) {
        for (date, units) in self.spread(date, units, limit) {
            self.put_one(now, date, units);
        }
    }

    /// Takes out what [`put`](Self::put) has entered with the same arguments; what has expired stays gone.
    pub(crate) fn take_out(&mut self, now: Nanos, date: Nanos, units: u64, limit: u64) {
        self.expire(now);
        for (date, units) in self.spread(date, units, limit) {
            let slot = date.div_ceil(self.slot);
            if let Ok(index) = self.own.binary_search_by_key(&slot, |&(slot, _)| slot) {
                let entry = &mut self.own[index];
                let units = units.min(entry.1);
                entry.1 -= units;
                self.used -= u128::from(units);
            }
        }
    }

    fn spread(
        &self,
        date: Nanos,
        units: u64,
        limit: u64,
    ) -> impl Iterator<Item = (Nanos, u64)> + use<> {
        let (window, limit) = (self.window, limit.max(1));
        let mut left = units;
        (0..MOST_WINDOWS).map_while(move |n| {
            let part = left.min(limit);
            left -= part;
            (part > 0).then(|| (date.saturating_add(window.saturating_mul(n)), part))
        })
    }

    fn put_one(&mut self, now: Nanos, date: Nanos, units: u64) {
        let slot = date.div_ceil(self.slot);
        if self.expiry(slot) <= now {
            return;
        }
        self.used += u128::from(units);
        // Nearly always at the very end, or near it.
        match self.own.binary_search_by_key(&slot, |&(slot, _)| slot) {
            Ok(index) => {
                let entry = &mut self.own[index].1;
                let sum = entry.saturating_add(units);
                self.used -= u128::from(units - (sum - *entry));
                *entry = sum;
            }
            Err(index) => self.own.insert(index, (slot, units)),
        }
    }

    /// Headers showed `units` at `date` that are not ours.
    pub(crate) fn stranger(&mut self, now: Nanos, date: Nanos, units: u64) {
        let expiry = self.expiry(date.div_ceil(self.slot));
        if expiry <= now || units == 0 {
            return;
        }
        let at = self.strangers.partition_point(|&(e, _)| e < expiry);
        if self.strangers.get(at).is_some_and(|&(_, u)| u >= units) {
            return;
        }
        // The same expiry and fewer units, and all that end sooner and are no larger.
        if self.strangers.get(at).is_some_and(|&(e, _)| e == expiry) {
            self.strangers.remove(at);
        }
        let keep = self.strangers.partition_point(|&(_, u)| u > units).min(at);
        self.strangers.drain(keep..at);
        self.strangers.insert(keep, (expiry, units));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::rate::SECOND, *};

    const W: Nanos = 6 * SECOND;

    #[test]
    fn what_arrived_one_window_ago_is_free_again_and_not_before() {
        let mut log = Rolling::new(W);
        log.put(0, 10, 100, 100);
        let at = log.fits_at(0, 100, 1);
        assert!((10 + W..=10 + W + W / SLOTS).contains(&at), "{at}");
        assert_eq!(log.used(at - 1), 100);
        assert_eq!(log.used(at), 0);
    }

    // T13
    #[test]
    fn a_refund_after_the_window_has_rolled_credits_nothing() {
        let mut log = Rolling::new(W);
        log.put(0, 0, 100, 100);
        log.put(2 * W, 2 * W, 100, 100);
        log.take_out(2 * W, 0, 100, 100);
        assert_eq!(log.used(2 * W), 100);
    }

    // T04
    #[test]
    fn more_than_the_limit_is_a_debt_of_as_many_windows() {
        let mut log = Rolling::new(W);
        log.put(0, 0, 250, 100);
        let after = |at: Nanos, windows: u64| at >= windows * W && at < windows * W + W / 1000;
        assert!(after(log.fits_at(0, 100, 60), 3));
        assert!(after(log.fits_at(0, 100, 50), 2));
    }

    #[test]
    fn the_larger_of_two_statements_about_strangers_counts_while_it_lives() {
        let mut log = Rolling::new(W);
        log.stranger(0, 0, 30);
        log.stranger(0, SECOND, 10);
        log.stranger(0, SECOND / 2, 5);
        assert_eq!(log.used(0), 30);
        assert_eq!(log.used(W + SECOND / 10), 10, "the larger has expired");
        assert_eq!(log.used(W + SECOND + W / 1000), 0);
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_the_limit(
            asks in prop::collection::vec((0u64..SECOND, 0u64..SECOND, 1u64..100), 1..200),
        ) {
            const LIMIT: u64 = 100;
            let mut log = Rolling::new(W);
            let mut now = 0;
            let mut arrived = Vec::new();
            for (gap, way, units) in asks {
                now += gap / 4;
                now = log.fits_at(now, LIMIT, units);
                log.put(now, now + SECOND, units, LIMIT);
                let arrival = now + way;
                arrived.push((arrival, units));
                // Sometimes the arrival becomes known exactly.
                if way % 2 == 0 {
                    log.take_out(now, now + SECOND, units, LIMIT);
                    log.put(now, arrival, units, LIMIT);
                }
            }
            arrived.sort_unstable();
            for (i, &(at, _)) in arrived.iter().enumerate() {
                let sum: u64 = arrived[..=i]
                    .iter()
                    .filter(|&&(other, _)| other + W > at)
                    .map(|&(_, units)| units)
                    .sum();
                prop_assert!(sum <= LIMIT, "{sum} in the window before {at}");
            }
        }

        #[test]
        fn taking_out_undoes_putting(
            entries in prop::collection::vec((0u64..W, 1u64..1000), 0..50),
            date in 0u64..W,
            units in 0u64..1 << 63,
        ) {
            let mut log = Rolling::new(W);
            for (date, units) in entries {
                log.put(0, date, units, 100);
            }
            let (used, fits) = (log.used(0), log.fits_at(0, 100, 7));
            log.put(0, date, units, 100);
            log.take_out(0, date, units, 100);
            prop_assert_eq!((log.used(0), log.fits_at(0, 100, 7)), (used, fits));
        }

        #[test]
        fn statements_about_strangers_leave_the_same_books_in_any_order(
            mut seen in prop::collection::vec((0u64..W, 0u64..100), 1..30),
            seed in any::<u64>(),
        ) {
            let apply = |seen: &[(u64, u64)]| {
                let mut log = Rolling::new(W);
                for &(date, units) in seen {
                    log.stranger(0, date, units);
                }
                log.strangers
            };
            let straight = apply(&seen);
            for i in 0..seen.len() {
                let j = (seed as usize).wrapping_mul(i + 3) % seen.len();
                seen.swap(i, j);
            }
            prop_assert_eq!(apply(&seen), straight);
        }

        #[test]
        fn the_promised_wait_is_the_first_time_at_which_it_fits(
            entries in prop::collection::vec((0u64..W, 1u64..30), 0..50),
            strangers in prop::collection::vec((0u64..W, 1u64..60), 0..5),
            units in 1u64..100,
        ) {
            let mut log = Rolling::new(W);
            for (date, units) in entries {
                log.put(0, date, units, 1000);
            }
            for (date, units) in strangers {
                log.stranger(0, date, units);
            }
            let at = log.fits_at(0, 100, units);
            let fits = |at| log.clone().used(at) + u128::from(units) <= 100;
            prop_assert!(fits(at));
            prop_assert!(at == 0 || !fits(at - 1));
        }
    }
}
