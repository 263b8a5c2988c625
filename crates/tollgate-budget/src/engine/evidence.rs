//! Is it a bucket, and how large? What the resets of a few answers prove.
//!
//! A bucket's reset is the time until it is full, and it fills evenly, so `reset = used / limit × window` to the
//! millisecond. A rolling window's reset is a whole window after the latest request; a fixed window's is a date that
//! does not move while use grows. Both can meet a bucket's figure by accident, but only where the window is nearly used
//! up, or once in passing. So an answer is asked only while no more than 60 % of the limit is used, each one that agrees
//! counts for as many bits as it is unlikely by accident, three must agree at least, and the date that they name must
//! have moved.
//!
//! A bucket may hold less than the limit (a limit a minute that is enforced by the second). Then
//! `remaining + reset × limit / window` is what it holds: the same in every answer while the reset goes up and down. In
//! a window, fixed or rolling, that sum changes whenever something is used.
use super::rate::{MILLI, Nanos};

const ENOUGH: i32 = 12;
const MOST: i32 = 48;
const AGAINST: i32 = 8;

/// What one answer says of a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// When it was counted, as well as we know.
    pub(crate) at: Nanos,
    pub(crate) limit: f64,
    pub(crate) used: f64,
    pub(crate) reset: Nanos,
    /// The sharpness of the reset as it is written.
    pub(crate) grain: Nanos,
}

/// The case for a bucket.
#[derive(Clone, Debug)]
pub(crate) struct Evidence {
    bits: i32,
    agreed: u32,
    /// What the case must reach; a refusal that disproves it raises the bar.
    needed: i32,
    date: Option<Nanos>,
    moved: bool,
    proven: bool,
    small: Small,
}

/// The case for a bucket that holds less than the limit.
#[derive(Clone, Debug, Default)]
struct Small {
    holds: f64,
    agreed: u32,
    against: u32,
    lowest: Nanos,
    highest: Nanos,
    proven: bool,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            bits: 0,
            agreed: 0,
            needed: ENOUGH,
            date: None,
            moved: false,
            proven: false,
            small: Small::default(),
        }
    }
}

impl Evidence {
    /// Whether it is proven to be a bucket.
    pub(crate) fn bucket(&self) -> bool {
        self.proven || self.small.proven
    }

    /// What the bucket holds, if that is less than the limit.
    pub(crate) fn holds(&self) -> Option<u64> {
        (self.small.proven && !self.proven).then_some(self.small.holds as u64)
    }

    /// Hears an answer.
    pub(crate) fn hear(&mut self, seen: Reading, period: Nanos) {
        self.small.hear(seen, period);
        match agrees(seen, period) {
            None => {}
            Some(Some(bits)) => {
                let date = seen.at.saturating_add(seen.reset);
                let first = *self.date.get_or_insert(date);
                self.moved |= first.abs_diff(date) > (4 * seen.grain).max(period / 200);
                self.agreed += 1;
                self.bits = (self.bits + bits).min(MOST);
                self.proven |= self.bits >= self.needed && self.agreed >= 3 && self.moved;
            }
            Some(None) => {
                self.agreed = 0;
                self.date = None;
                self.moved = false;
                self.bits = (self.bits - AGAINST).max(-3 * AGAINST);
                if self.bits <= 0 {
                    self.proven = false;
                }
            }
        }
    }

    /// The provider refused what a bucket would have taken; `short`: only for a little while.
    ///
    /// A bucket that strangers share refuses now and then, for a moment: that weighs little. Any other refusal undoes
    /// the proof, and the next one must be twice as good.
    pub(crate) fn refused(&mut self, short: bool) {
        if !self.proven {
            return;
        }
        self.bits -= 1;
        if !short || self.bits <= 0 {
            let needed = (self.needed * 2).min(MOST);
            *self = Self {
                needed,
                bits: -AGAINST,
                small: std::mem::take(&mut self.small),
                ..Self::default()
            };
        }
    }
}

impl Small {
    fn hear(&mut self, seen: Reading, period: Nanos) {
        let rate = seen.limit / period as f64;
        let holds = seen.limit - seen.used + seen.reset as f64 * rate;
        let slack = 2.0 + holds * 0.03 + seen.grain as f64 * rate;
        if holds <= 0.9 * seen.limit && (holds - self.holds).abs() <= slack {
            self.agreed += 1;
            self.against = 0;
            self.lowest = self.lowest.min(seen.reset);
            self.highest = self.highest.max(seen.reset);
            let spread = (self.highest - self.lowest) as f64 * rate;
            self.proven |= self.agreed >= 3 && spread >= (0.2 * holds).max(3.0);
            // `remaining` is rounded down, so the largest is the nearest.
            self.holds = self.holds.max(holds);
            return;
        }
        self.against += 1;
        if !self.proven || self.against >= 3 {
            *self = Self {
                holds: if holds <= 0.9 * seen.limit {
                    holds
                } else {
                    0.0
                },
                agreed: u32::from(holds <= 0.9 * seen.limit),
                lowest: seen.reset,
                highest: seen.reset,
                ..Self::default()
            };
        }
    }
}

/// Bits for the agreement of one reading with a bucket; `Some(None)`: it disagrees; `None`: it cannot tell.
#[expect(clippy::option_option)]
fn agrees(seen: Reading, period: Nanos) -> Option<Option<i32>> {
    let share = seen.used / seen.limit;
    if !(share > 0.0 && share <= 0.6) {
        return None;
    }
    let window = period as f64;
    let grain = seen.grain as f64;
    let expected = share * window;
    // `remaining` is rounded down: up to one unit less may be used.
    let unit = window / seen.limit;
    let slack = grain + (expected * 0.01).max(MILLI as f64);
    if expected < 4.0 * slack.min(grain + MILLI as f64) {
        return None;
    }
    let reset = seen.reset as f64;
    let (low, high) = (expected - unit - slack, expected + slack);
    if reset < low || reset > high {
        return Some(None);
    }
    let bits = (window / (high - low)).log2().floor();
    Some(Some((bits as i32).clamp(1, 8)))
}

#[cfg(test)]
mod tests {
    use super::{
        super::rate::{Rate, SECOND},
        *,
    };

    const RATE: Rate = Rate {
        amount: 455,
        period: 6 * SECOND,
    };

    fn hear(evidence: &mut Evidence, now: Nanos, used: u64, reset: Nanos) {
        let reading = Reading {
            at: now,
            limit: RATE.amount as f64,
            used: used as f64,
            reset,
            grain: MILLI,
        };
        evidence.hear(reading, RATE.period);
    }

    #[test]
    fn three_answers_of_a_bucket_prove_it() {
        let mut evidence = Evidence::default();
        for used in [50, 100, 200] {
            assert!(!evidence.bucket());
            hear(&mut evidence, SECOND / 4, used, RATE.time_of(used));
        }
        assert!(evidence.bucket());
    }

    #[test]
    fn lone_small_requests_prove_it_too() {
        let mut evidence = Evidence::default();
        for n in 0..3 {
            hear(&mut evidence, n * SECOND, 1, RATE.time_of(1));
        }
        assert!(evidence.bucket());
    }

    #[test]
    fn a_rolling_window_never_looks_like_a_bucket() {
        let mut evidence = Evidence::default();
        for used in 1..455 {
            hear(&mut evidence, SECOND / 4 + used, used, 6 * SECOND - used);
        }
        assert!(!evidence.bucket());
    }

    #[test]
    fn a_fixed_window_never_does_wherever_the_burst_falls() {
        for left in (0..6000).step_by(7) {
            let mut evidence = Evidence::default();
            for used in 1..455 {
                hear(&mut evidence, used * MILLI / 3, used, left * MILLI);
            }
            assert!(!evidence.bucket(), "{left} ms left");
        }
    }

    #[test]
    fn one_stray_answer_does_not_undo_a_good_case_and_a_refusal_does() {
        let mut evidence = Evidence::default();
        for used in [50, 100, 200, 210, 220, 230] {
            hear(&mut evidence, SECOND / 4, used, RATE.time_of(used));
        }
        hear(&mut evidence, SECOND, 100, 5 * SECOND);
        assert!(evidence.bucket());
        evidence.refused(true);
        assert!(evidence.bucket(), "a little early is no disproof");
        evidence.refused(false);
        assert!(!evidence.bucket());
    }

    #[test]
    fn a_bucket_that_holds_a_sixtieth_of_the_limit_gives_its_size_away() {
        let mut evidence = Evidence::default();
        for left in [6, 4, 1, 0, 0] {
            hear(&mut evidence, left, 455 - left, RATE.time_of(7 - left));
        }
        assert!(evidence.bucket());
        assert_eq!(evidence.holds(), Some(7));
    }

    #[test]
    fn strangers_in_a_window_do_not_look_like_a_small_bucket() {
        for left in (1..6000).step_by(97) {
            let mut evidence = Evidence::default();
            for used in 420..455 {
                // Fixed: the reset falls while use grows.
                hear(&mut evidence, used, used, left * MILLI - left * used);
            }
            assert!(!evidence.bucket(), "{left} ms left");
        }
    }

    #[test]
    fn a_small_limit_needs_more_answers() {
        let mut evidence = Evidence::default();
        let mut heard = 0;
        while !evidence.bucket() {
            heard += 1;
            let reading = Reading {
                at: heard * 40 * SECOND,
                limit: 3.0,
                used: 1.0,
                reset: 20 * SECOND,
                grain: MILLI,
            };
            evidence.hear(reading, 60 * SECOND);
            assert!(heard < 100, "never proven");
        }
        assert!(heard > 5, "{heard}");
    }
}
