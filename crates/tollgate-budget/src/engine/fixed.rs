//! A counter that starts anew each window.
//!
//! The provider's windows are where it says they are: `reset` in its headers is when the present one ends. Until a
//! header says so, the first begins with the first request. A request that is under way when a window ends may be
//! counted in either, so it is entered in both until its arrival is known.
//!
//! An end that comes earlier than the one that was stated would free the whole limit at once, so one answer alone does
//! not move it there: another must name the same end a while later.
use super::rate::{Nanos, Rate, Span, narrow};

/// One limit's use in this window and the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fixed {
    /// When this window ends.
    end: Option<Nanos>,
    /// The provider has said so; before that it is a guess.
    stated: bool,
    /// An earlier end that one answer has claimed, and when that was counted.
    claim: Option<(Nanos, Nanos)>,
    used: [u128; 2],
}

impl Fixed {
    fn roll(&mut self, now: Nanos, window: Nanos) {
        let Some(end) = self.end.filter(|&end| end <= now) else {
            return;
        };
        let passed = (now - end) / window + 1;
        self.used = [if passed == 1 { self.used[1] } else { 0 }, 0];
        self.end = Some(end + passed * window);
    }

    /// Which of the two windows an arrival falls into; `None`: a window that is over, or too far ahead.
    fn place(&self, date: Nanos, window: Nanos) -> Option<usize> {
        let end = self.end?;
        if date < end {
            (date.saturating_add(window) >= end).then_some(0)
        } else {
            (date - end < window).then_some(1)
        }
    }

    fn places(&self, span: Span, window: Nanos) -> impl Iterator<Item = usize> + use<> {
        let (lo, hi) = (self.place(span.lo, window), self.place(span.hi, window));
        lo.into_iter().chain(hi.filter(|_| hi != lo))
    }

    /// When `units` that arrive within `way` fit.
    pub(crate) fn fits_at(&mut self, now: Nanos, way: Nanos, rate: Rate, units: u64) -> Nanos {
        self.roll(now, rate.period);
        let Some(next) = self.end else { return now };
        let fits = |used: u128| used + u128::from(units) <= u128::from(rate.amount) || used == 0;
        let crosses = now.saturating_add(way) >= next;
        if fits(self.used[0]) && (!crosses || fits(self.used[1])) {
            now
        } else if fits(self.used[1]) {
            next
        } else {
            next.saturating_add(rate.period)
        }
    }

    /// When the last of so many units would be through, if all of them waited in line.
    pub(crate) fn drained_at(&mut self, now: Nanos, rate: Rate, units: u128) -> Nanos {
        self.roll(now, rate.period);
        let end = self.end.unwrap_or(now.saturating_add(rate.period));
        let line = self.used[0].saturating_add(units).saturating_sub(1) / u128::from(rate.amount);
        if line == 0 {
            return now;
        }
        end.saturating_add(narrow((line - 1).saturating_mul(u128::from(rate.period))))
    }

    pub(crate) fn put(&mut self, now: Nanos, rate: Rate, span: Span, units: u64) {
        self.roll(now, rate.period);
        self.end.get_or_insert(now.saturating_add(rate.period));
        for place in self.places(span, rate.period) {
            self.used[place] += u128::from(units);
        }
    }

    /// Takes units out of the windows that they were entered in, as far as these are not over.
    pub(crate) fn take_out(&mut self, now: Nanos, rate: Rate, span: Span, units: u64) {
        self.roll(now, rate.period);
        for place in self.places(span, rate.period) {
            self.used[place] = self.used[place].saturating_sub(u128::from(units));
        }
    }

    /// The provider, which counted within `span`, says that its window ends `reset` later.
    pub(crate) fn align(&mut self, now: Nanos, window: Nanos, span: Span, reset: Nanos) {
        self.roll(now, window);
        // Its own rounding and the way back: a window does not wander by less than this.
        let slack = (window / 100).max(2_000_000);
        let (first, end) = (span.lo.saturating_add(reset), span.hi.saturating_add(reset));
        if end <= now || reset > window {
            return;
        }
        let Some(known) = self.end else {
            (self.end, self.stated) = (Some(end), true);
            return;
        };
        if known.saturating_add(slack) < first {
            if end - known >= window.saturating_sub(slack) {
                // Its next window has begun, a little before ours.
                self.used = [self.used[1], 0];
            }
            (self.end, self.stated, self.claim) = (Some(end), true, None);
        } else if known <= end.saturating_add(slack) {
            self.claim = None;
        } else if !self.stated {
            (self.end, self.stated) = (Some(end), true);
        } else {
            match self.claim {
                Some((same, at)) if same.abs_diff(end) <= slack => {
                    // A reset that is always as short names no one end, and in a burst it seems to.
                    if at.abs_diff(span.hi) > 2 * slack {
                        (self.end, self.claim) = (Some(end), None);
                    }
                }
                _ => self.claim = Some((end, span.hi)),
            }
        }
    }

    /// By `date`, so much was used of the window that ran then.
    pub(crate) fn correct(&mut self, now: Nanos, window: Nanos, date: Nanos, used: u64) {
        self.roll(now, window);
        let end = *self.end.get_or_insert(now.saturating_add(window));
        // Of a window that is over it says nothing about this one.
        if date.saturating_add(window) >= end {
            self.used[0] = self.used[0].max(u128::from(used));
        }
    }

    pub(crate) fn used(&mut self, now: Nanos, window: Nanos) -> u128 {
        self.roll(now, window);
        self.used[0]
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rate::SECOND, *};

    const RATE: Rate = Rate {
        amount: 10,
        period: 60 * SECOND,
    };

    #[test]
    fn the_limit_is_free_again_when_the_window_ends() {
        let mut fixed = Fixed::default();
        fixed.put(5 * SECOND, RATE, Span::at(5 * SECOND), 10);
        assert_eq!(fixed.fits_at(6 * SECOND, 0, RATE, 1), 65 * SECOND);
        assert_eq!(fixed.fits_at(65 * SECOND, 0, RATE, 10), 65 * SECOND);
    }

    #[test]
    fn one_that_may_arrive_in_either_window_counts_in_both_until_it_is_known() {
        let mut fixed = Fixed::default();
        fixed.put(0, RATE, Span::at(0), 1);
        let (lo, hi) = (59 * SECOND, 61 * SECOND);
        fixed.put(lo, RATE, Span { lo, hi }, 9);
        assert_eq!(
            fixed.fits_at(60 * SECOND, 0, RATE, 2),
            120 * SECOND,
            "9 may count"
        );
        fixed.take_out(60 * SECOND, RATE, Span { lo, hi }, 9);
        fixed.put(60 * SECOND, RATE, Span::at(lo), 9);
        assert_eq!(fixed.fits_at(60 * SECOND, 0, RATE, 2), 60 * SECOND);
    }

    // T13
    #[test]
    fn a_refund_goes_to_the_window_that_was_charged_or_nowhere() {
        let mut fixed = Fixed::default();
        fixed.put(0, RATE, Span::at(0), 8);
        fixed.put(61 * SECOND, RATE, Span::at(61 * SECOND), 5);
        fixed.take_out(62 * SECOND, RATE, Span::at(0), 8);
        assert_eq!(fixed.used(62 * SECOND, RATE.period), 5);
    }

    #[test]
    fn the_providers_own_end_of_the_window_is_believed() {
        let mut fixed = Fixed::default();
        fixed.put(0, RATE, Span::at(0), 10);
        fixed.align(SECOND, RATE.period, Span::at(SECOND), 9 * SECOND);
        assert_eq!(fixed.fits_at(SECOND, 0, RATE, 1), 10 * SECOND);
    }

    /// A window that the provider has stated to end after a minute, all of it used.
    fn full() -> Fixed {
        let mut fixed = Fixed::default();
        fixed.put(0, RATE, Span::at(0), 10);
        fixed.align(0, RATE.period, Span::at(0), RATE.period);
        fixed.align(SECOND, RATE.period, Span::at(SECOND), 58 * SECOND);
        fixed.align(2 * SECOND, RATE.period, Span::at(2 * SECOND), 58 * SECOND);
        fixed
    }

    #[test]
    fn a_tiny_reset_in_every_answer_does_not_free_the_limit() {
        let mut fixed = full();
        for tick in 0..500 {
            let now = 3 * SECOND + tick * SECOND / 10;
            fixed.align(now, RATE.period, Span::at(now), 1_000_000);
            assert_eq!(fixed.used(now + 2_000_000, RATE.period), 10, "at {now}");
        }
        assert_eq!(fixed.fits_at(55 * SECOND, 0, RATE, 1), 60 * SECOND);
    }

    #[test]
    fn an_earlier_end_is_believed_when_a_later_answer_names_it_again() {
        let mut fixed = full();
        fixed.align(5 * SECOND, RATE.period, Span::at(5 * SECOND), 25 * SECOND);
        assert_eq!(fixed.fits_at(5 * SECOND, 0, RATE, 1), 60 * SECOND);
        fixed.align(9 * SECOND, RATE.period, Span::at(9 * SECOND), 21 * SECOND);
        assert_eq!(fixed.fits_at(9 * SECOND, 0, RATE, 1), 30 * SECOND);
    }

    #[test]
    fn a_late_answer_is_read_as_of_when_it_was_counted() {
        let mut fixed = full();
        let (lo, hi) = (40 * SECOND, 59 * SECOND);
        fixed.align(hi, RATE.period, Span { lo, hi }, 20 * SECOND);
        assert_eq!(fixed.fits_at(hi, 0, RATE, 1), 60 * SECOND);
        // What it says of the window before is nothing to this one.
        fixed.correct(61 * SECOND, RATE.period, 59 * SECOND, 10);
        assert_eq!(fixed.used(61 * SECOND, RATE.period), 0);
    }

    #[test]
    fn a_window_that_begins_a_little_before_ours_begins_empty() {
        let mut fixed = full();
        let now = 59 * SECOND + SECOND / 2;
        fixed.align(now, RATE.period, Span::at(now), RATE.period);
        assert_eq!(fixed.fits_at(now, 0, RATE, 10), now);
        fixed.put(now, RATE, Span::at(now), 10);
        assert_eq!(fixed.fits_at(now, 0, RATE, 1), now + RATE.period);
    }
}
