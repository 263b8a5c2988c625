//! A bucket that refills continuously, as one number: the time at which it would be full again.
//!
//! That time (GCRA's "theoretical arrival time") is the exact dual of a level, and it is what providers publish:
//! `x-ratelimit-reset-*` is this time less now. Kept in nanoseconds × the limit's amount, where one unit is exactly
//! one period, so nothing is ever rounded.
//!
//! **Headroom for the way.** The provider's bucket begins to refill when a request *arrives*, ours when one is sent.
//! If ways take up to `J`, what is sent in any span `t` may arrive in `t − J`, so no more than `burst + rate × (t − J)`
//! may be sent in it: a bucket that is smaller by what refills in `J`. One case is better: after an idle time the
//! provider's bucket is surely full, and the whole burst may go within `J`, whatever the order in which it arrives.
//!
//! `J` is at least 50 ms, and more where ways are seen to differ by more (a machine that is busy sends late). It costs
//! some of the burst, once; what is refilled in it comes later and is not lost.
use super::rate::{MILLI, Nanos, Rate, narrow};

/// How much longer one way to the provider may be than another, where nothing else is known.
pub(crate) const HEADROOM: Nanos = 50 * MILLI;

/// Where many go one by one, they go in groups that far apart.
const GRAIN: Nanos = 24 * MILLI;

/// One bucket. Its rate comes with each call, so that it can change.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    /// Nanoseconds × amount.
    full_at: u128,
    /// When the last idle time ended.
    woken: Nanos,
    headroom: Nanos,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            full_at: 0,
            woken: 0,
            headroom: HEADROOM,
        }
    }
}

impl Bucket {
    /// Ways differ by so much.
    pub(crate) fn ways_differ(&mut self, by: Nanos) {
        self.headroom = by.max(HEADROOM);
    }

    pub(crate) fn headroom(&self) -> Nanos {
        self.headroom
    }

    /// Whether the provider's bucket is surely full too.
    fn is_idle(&self, now: Nanos, rate: Rate) -> bool {
        now.checked_sub(self.headroom)
            .is_some_and(|then| self.full_at <= time(then, rate))
            || self.full_at == 0
    }

    /// When `units` fit into a bucket of `burst`; more than the whole burst fits when it is full.
    pub(crate) fn fits_at(&self, now: Nanos, rate: Rate, burst: u64, units: u64) -> Nanos {
        let (burst, cost) = (scaled(rate, burst), scaled(rate, units));
        let headroom = time(self.headroom, rate);
        if self.is_idle(now, rate) {
            return now;
        }
        let from = now.saturating_sub(self.headroom).max(self.woken);
        let now_at = time(now, rate);
        if self.full_at.max(now_at).saturating_add(cost) <= time(from, rate).saturating_add(burst) {
            return now;
        }
        let room = if cost.saturating_add(headroom) <= burst {
            burst - cost
        } else {
            // It needs all of the bucket, or more.
            0
        };
        let least = self
            .full_at
            .saturating_add(headroom)
            .saturating_sub(room)
            .max(now_at);
        narrow(least.div_ceil(u128::from(rate.amount)))
    }

    /// When it is full again, or was.
    pub(crate) fn fills_at(&self, rate: Rate) -> Nanos {
        narrow(self.full_at.div_ceil(u128::from(rate.amount)))
    }

    /// When the last of so many units would be through, if all of them waited in line.
    pub(crate) fn drained_at(&self, now: Nanos, rate: Rate, burst: u64, units: u128) -> Nanos {
        let line = units.saturating_mul(u128::from(rate.period));
        let idle = self.is_idle(now, rate);
        let headroom = if idle { 0 } else { time(self.headroom, rate) };
        let least = self
            .full_at
            .max(time(now, rate))
            .saturating_add(line)
            .saturating_add(headroom)
            .saturating_sub(scaled(rate, burst));
        narrow(least.div_ceil(u128::from(rate.amount))).max(now)
    }

    /// For how long after one grant the next may wait, so that one wake serves several: nothing is lost by it, for what
    /// is refilled meanwhile is not wasted as long as the bucket is nowhere near full.
    pub(crate) fn grain(rate: Rate, burst: u64) -> Nanos {
        GRAIN.min(rate.time_of(burst) / 32)
    }

    /// Takes units, whether they fit or not; too many are a debt.
    pub(crate) fn take(&mut self, now: Nanos, rate: Rate, units: u64) {
        if self.is_idle(now, rate) {
            self.woken = now;
        }
        self.full_at = self
            .full_at
            .max(time(now, rate))
            .saturating_add(scaled(rate, units));
    }

    /// Gives units back. Never more than full: what lies in the past is full.
    pub(crate) fn give_back(&mut self, rate: Rate, units: u64) {
        self.full_at = self.full_at.saturating_sub(scaled(rate, units));
    }

    /// The provider says that `used` units were used at `at`.
    ///
    /// A maximum: the order of answers does not matter, an answer that is repeated changes nothing, and time is what
    /// loosens.
    pub(crate) fn correct(&mut self, at: Nanos, rate: Rate, used: u64) {
        let used = scaled(rate, used.min(rate.amount));
        self.full_at = self.full_at.max(time(at, rate).saturating_add(used));
    }

    /// It is known when it will be full.
    pub(crate) fn full_at(&mut self, at: Nanos, rate: Rate) {
        self.full_at = time(at, rate);
    }

    /// The provider's will not be full before `at`.
    pub(crate) fn not_full_before(&mut self, at: Nanos, rate: Rate) {
        self.full_at = self.full_at.max(time(at, rate));
    }

    /// Units used now.
    pub(crate) fn used(&self, now: Nanos, rate: Rate) -> u64 {
        let used = self.full_at.saturating_sub(time(now, rate));
        narrow(used.div_ceil(u128::from(rate.period)))
    }

    /// The amount has changed. What is used stays used, and takes longer or shorter to refill.
    pub(crate) fn rerate(&mut self, now: Nanos, old: Rate, new: Rate) {
        let used = self.full_at.saturating_sub(time(now, old));
        self.full_at = if used == 0 {
            // A full bucket stays full, and has been for as long.
            time(narrow(self.full_at / u128::from(old.amount)), new)
        } else {
            time(now, new).saturating_add(used)
        };
    }
}

fn time(time: Nanos, rate: Rate) -> u128 {
    u128::from(time) * u128::from(rate.amount)
}

fn scaled(rate: Rate, units: u64) -> u128 {
    u128::from(units) * u128::from(rate.period)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::rate::SECOND, *};

    const RATE: Rate = Rate {
        amount: 455,
        period: 6 * SECOND,
    };

    #[test]
    fn a_full_burst_goes_at_once_and_the_next_unit_waits_for_its_refill() {
        let mut bucket = Bucket::default();
        let now = 100 * SECOND;
        for _ in 0..455 {
            assert_eq!(bucket.fits_at(now, RATE, 455, 1), now);
            bucket.take(now, RATE, 1);
        }
        let wait = bucket.fits_at(now, RATE, 455, 1) - now;
        assert_eq!(wait, HEADROOM + RATE.time_of(1));
        assert_eq!(bucket.used(now, RATE), 455);
        assert_eq!(bucket.used(now + 6 * SECOND, RATE), 0);
    }

    /// The provider: it refills from the first arrival, and is asked in the order of arrivals.
    fn refused_by_provider(mut arrivals: Vec<(Nanos, u64)>) -> usize {
        arrivals.sort_unstable();
        let mut full_at = 0;
        let mut refused = 0;
        for (at, units) in arrivals {
            let next = u128::max(full_at, u128::from(at) * 455) + scaled(RATE, units);
            if next > u128::from(at) * 455 + scaled(RATE, 455) {
                refused += 1;
            } else {
                full_at = next;
            }
        }
        refused
    }

    proptest! {
        #[test]
        fn a_provider_that_is_up_to_the_headroom_away_never_refuses(
            asks in prop::collection::vec((0u64..SECOND, 0u64..HEADROOM, 1u64..100), 1..200),
        ) {
            let mut bucket = Bucket::default();
            let mut now = 0;
            let mut arrivals = Vec::new();
            for (gap, way, units) in asks {
                // Mostly in bursts, sometimes after an idle time.
                now += if gap % 7 == 0 { gap * 5 } else { gap / 100 };
                now = bucket.fits_at(now, RATE, 455, units);
                bucket.take(now, RATE, units);
                arrivals.push((now + way, units));
            }
            prop_assert_eq!(refused_by_provider(arrivals), 0);
        }

        #[test]
        fn the_promised_wait_is_enough_and_nothing_less_is(
            takes in prop::collection::vec((0u64..60 * SECOND, 1u64..500), 1..60),
            units in 1u64..455,
        ) {
            let mut bucket = Bucket::default();
            let mut now = 0;
            for (gap, units) in takes {
                now += gap / 8;
                bucket.take(now, RATE, units);
            }
            let at = bucket.fits_at(now, RATE, 455, units);
            prop_assert_eq!(bucket.fits_at(at, RATE, 455, units), at);
            if at > now {
                prop_assert!(bucket.fits_at(at - 1, RATE, 455, units) > at - 1);
            }
        }

        #[test]
        fn giving_back_undoes_taking(used in 1u64..400, units in 0u64..1 << 62, now in SECOND..SECOND << 30) {
            let mut bucket = Bucket::default();
            bucket.take(now, RATE, used);
            let before = bucket.full_at;
            bucket.take(now, RATE, units);
            bucket.give_back(RATE, units);
            prop_assert_eq!(bucket.full_at, before);
        }

        #[test]
        fn headers_in_any_order_leave_the_same_books(
            mut seen in prop::collection::vec((0u64..60 * SECOND, 0u64..1000), 1..20),
            seed in any::<u64>(),
        ) {
            let apply = |seen: &[(u64, u64)]| {
                let mut bucket = Bucket::default();
                bucket.take(0, RATE, 100);
                for &(at, used) in seen {
                    bucket.correct(at, RATE, used);
                }
                bucket.full_at
            };
            let straight = apply(&seen);
            let n = seen.len();
            for i in 0..n {
                seen.swap(i, (seed as usize).wrapping_mul(i + 7) % n);
            }
            prop_assert_eq!(apply(&seen), straight);
        }

        #[test]
        fn no_cost_overflows(costs in prop::collection::vec(0u64..=1 << 63, 0..50), amount in 1u64..1 << 62) {
            let rate = Rate { amount, period: 366 * 86_400 * SECOND };
            let mut bucket = Bucket::default();
            for cost in costs {
                bucket.take(SECOND << 28, rate, cost);
                let _ = bucket.fits_at(0, rate, amount, cost);
                let _ = bucket.used(0, rate);
            }
            bucket.rerate(0, rate, Rate { amount: 1, ..rate });
        }
    }
}
