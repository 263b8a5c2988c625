//! What was used in one calendar period.
//!
//! A cap is our own: it counts when we send, and no header moves it. Its periods end by the wall clock, which knows
//! nothing of ours; `epoch` says what the wall clock showed when ours began.
//!
//! **A wall clock that is set.** Forward, or after the machine has slept: what has ended has ended. Back: the period
//! goes on to the end that it had, so nothing is spent twice; only if that is further away than two periods, because the
//! clock had been far ahead, it ends with the calendar's. What was used is never forgotten before.
use std::{sync::Arc, time::SystemTime};

use super::rate::{Nanos, Rate, Span, narrow};
use crate::limit::{Plan, Wall};

/// One period's use.
#[derive(Clone, Debug)]
pub(crate) struct Period {
    plan: Arc<Plan>,
    /// The wall clock at our time 0.
    epoch: Wall,
    begin: Nanos,
    /// 0: not known yet.
    end: Nanos,
    end_wall: Wall,
    used: u128,
}

impl Period {
    pub(crate) fn new(plan: Arc<Plan>, epoch: Wall) -> Self {
        Self {
            plan,
            epoch,
            begin: 0,
            end: 0,
            end_wall: 0,
            used: 0,
        }
    }

    fn wall(&self, now: Nanos) -> Wall {
        let now = Wall::try_from(now).unwrap_or(Wall::MAX);
        self.epoch.saturating_add(now)
    }

    /// When the wall clock will show `wall`.
    fn when(&self, now: Nanos, wall: Wall) -> Nanos {
        let left = wall.saturating_sub(self.wall(now));
        now.saturating_add(u64::try_from(left).unwrap_or(0))
    }

    fn roll(&mut self, now: Nanos) {
        if now < self.end {
            return;
        }
        self.begin = self.end;
        self.used = 0;
        self.end_wall = self.plan.next(self.wall(now));
        self.end = self.when(now, self.end_wall).max(now.saturating_add(1));
    }

    /// The wall clock has been set.
    pub(crate) fn set(&mut self, now: Nanos, epoch: Wall) {
        self.epoch = epoch;
        if self.end == 0 {
            return;
        }
        let next = self.plan.next(self.wall(now));
        if self.end_wall > self.plan.next(next) {
            self.end_wall = next;
        }
        self.end = self.when(now, self.end_wall);
    }

    pub(crate) fn fits_at(&mut self, now: Nanos, rate: Rate, units: u64) -> Nanos {
        self.roll(now);
        if self.used + u128::from(units) <= u128::from(rate.amount) {
            now
        } else {
            self.end
        }
    }

    /// When the last of so many units would be through, if all of them waited in line.
    pub(crate) fn drained_at(&mut self, now: Nanos, rate: Rate, units: u128) -> Nanos {
        self.roll(now);
        let line = self.used.saturating_add(units).saturating_sub(1) / u128::from(rate.amount);
        match line {
            0 => now,
            periods => {
                let more = (periods - 1).saturating_mul(rate.period.into());
                self.end.saturating_add(narrow(more))
            }
        }
    }

    pub(crate) fn put(&mut self, now: Nanos, sent: Span, units: u64) {
        self.roll(now);
        if sent.lo >= self.begin {
            self.used += u128::from(units);
        }
    }

    /// Adds what was spent before.
    pub(crate) fn add(&mut self, now: Nanos, units: u64) {
        self.roll(now);
        self.used += u128::from(units);
    }

    /// Takes out what was put in; of a period that is over nothing.
    pub(crate) fn take_out(&mut self, now: Nanos, sent: Span, units: u64) {
        self.roll(now);
        if sent.lo >= self.begin {
            self.used = self.used.saturating_sub(units.into());
        }
    }

    pub(crate) fn used(&mut self, now: Nanos) -> u128 {
        self.roll(now);
        self.used
    }

    /// When it ends, by our clock and by the wall clock.
    pub(crate) fn ends(&mut self, now: Nanos) -> (Nanos, Wall) {
        self.roll(now);
        (self.end, self.end_wall)
    }
}

/// A time of the wall clock in nanoseconds; a strange one is the nearest that can be named.
pub(crate) fn nanos_of(time: SystemTime) -> Wall {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => Wall::try_from(after.as_nanos()).unwrap_or(Wall::MAX),
        Err(before) => Wall::try_from(before.duration().as_nanos()).map_or(Wall::MIN, |n| -n),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::rate::SECOND, *};
    use crate::limit::Calendar;

    const HOUR: Nanos = 3600 * SECOND;
    const RATE: Rate = Rate {
        amount: 100,
        period: 24 * HOUR,
    };

    fn day(epoch: Wall) -> Period {
        Period::new(Arc::new(Calendar::day("UTC").plan().unwrap()), epoch)
    }

    fn wall(hours: u64) -> Wall {
        Wall::try_from(hours * HOUR).unwrap()
    }

    #[test]
    fn a_cap_is_free_again_at_midnight_and_a_late_refund_credits_nothing() {
        let mut period = day(wall(10));
        period.put(0, Span::at(0), 100);
        assert_eq!(period.fits_at(HOUR, RATE, 1), 14 * HOUR);
        assert_eq!(period.drained_at(HOUR, RATE, 250), 14 * HOUR + 48 * HOUR);
        assert_eq!(period.used(14 * HOUR), 0);
        period.put(15 * HOUR, Span::at(15 * HOUR), 30);
        period.take_out(16 * HOUR, Span::at(0), 100);
        assert_eq!(period.used(16 * HOUR), 30);
        period.take_out(16 * HOUR, Span::at(15 * HOUR), 10);
        assert_eq!(period.used(16 * HOUR), 20);
    }

    // T31
    #[test]
    fn a_machine_that_slept_past_midnight_finds_a_new_day() {
        let mut period = day(wall(23));
        period.put(0, Span::at(0), 100);
        // Asleep for two hours, of which our clock has seen none.
        period.set(SECOND, wall(25));
        assert_eq!(period.fits_at(SECOND, RATE, 100), SECOND);
        assert_eq!(period.ends(SECOND).0, 23 * HOUR);
    }

    // T31
    #[test]
    fn a_clock_that_is_set_back_spends_no_day_twice() {
        let mut period = day(wall(23));
        period.put(0, Span::at(0), 100);
        period.put(HOUR, Span::at(HOUR), 60);
        // Half past midnight, and then half past eleven of the day before.
        let now = HOUR + HOUR / 2;
        period.set(now, wall(22));
        assert_eq!(period.used(now), 60);
        assert_eq!(period.fits_at(now, RATE, 50), now + 24 * HOUR + HOUR / 2);
    }

    // T31
    #[test]
    fn a_clock_that_was_a_year_ahead_does_not_shut_a_cap_for_a_year() {
        let mut period = day(wall(365 * 24 + 10));
        period.put(0, Span::at(0), 100);
        period.set(HOUR, wall(9));
        assert_eq!(period.used(HOUR), 100, "nothing is forgotten");
        assert_eq!(period.fits_at(HOUR, RATE, 1), HOUR + 14 * HOUR);
    }

    // T40
    #[test]
    fn a_million_additions_lose_nothing() {
        let mut period = day(0);
        let mut sum = 0;
        for n in 0..1_000_000u64 {
            let pico = 1_000_000_007 + n % 97;
            period.put(n, Span::at(n), pico);
            sum += u128::from(pico);
        }
        assert_eq!(period.used(HOUR), sum);
    }

    proptest! {
        // T31
        #[test]
        fn whatever_the_clocks_do_no_wait_is_negative_and_no_period_holds_more_than_the_cap(
            steps in prop::collection::vec((0u64..30 * HOUR, -100i64..100, 1u64..60), 1..60),
        ) {
            let mut period = day(wall(50_000));
            let mut now: Nanos = 0;
            let mut spent = 0u128;
            let mut end = 0;
            for (pass, step, units) in steps {
                now += pass;
                if step % 3 == 0 {
                    let epoch = period.epoch + step * Wall::try_from(HOUR).unwrap();
                    period.set(now, epoch);
                }
                let at = period.fits_at(now, RATE, units);
                prop_assert!(at >= now);
                prop_assert!(at <= now + 49 * HOUR, "a day and what is left of one");
                // By the wall clock: that no two periods have in common.
                let ends = period.ends(now).1;
                if ends != end && period.used(now) == 0 {
                    spent = 0;
                }
                end = ends;
                if at == now {
                    period.put(now, Span::at(now), units);
                    spent += u128::from(units);
                    prop_assert!(spent <= 100);
                }
            }
        }
    }
}
