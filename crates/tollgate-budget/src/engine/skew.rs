//! When did a request arrive? A log of what was sent is not a log of what arrived.
//!
//! The provider lets go of a request one window after it *arrived*. A burst on cold connections arrives over some
//! 200 ms, the next one on warm connections over 50 ms: a log of send times is then 150 ms early for part of it, and
//! each such request is refused. So an entry is dated by the latest time at which it can have arrived:
//!
//! 1. when it is sent: then, and the longest way that must be reckoned with (one second, until less is learned);
//! 2. when its answer comes at `h`: `h` less the time that the provider says it worked, which leaves only the way back
//!    in it; or, where it says nothing, `h` less most of the smallest latency seen, but not later than (1), for a long
//!    answer would hold its place for ever. The premise is that the way there takes at most a quarter of a latency.
//!    Where it takes more (an answer at once, over a slow line) and nothing is stated, entries are dated too early by
//!    the difference, and a provider with a rolling window may refuse what follows within it.
//!
//! A little is added for what lies between the provider's admission and its clock. What this costs is the way back,
//! once a window; dating by `h` alone would cost a whole latency, and dating by send times costs refusals.
use super::rate::{MILLI, Nanos, SECOND};

/// Between the provider's admission and the begin of the time that it states.
const GUARD: Nanos = 5 * MILLI;
/// The longest way, until something is known.
const START: Nanos = SECOND;
/// A statement of processing time is believed up to here: it may be a proxy's that covers only a part.
const MOST_STATED: Nanos = 4 * SECOND;
/// Samples before the longest way seen says anything.
const ENOUGH: u32 = 4;
/// With so many, twice the longest way seen is reckoned with; with fewer, more, and less with more.
const MANY: u64 = 128;
const EPOCH: Nanos = 30 * SECOND;

/// The largest value of the last one or two epochs.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    since: Nanos,
    now: Option<Nanos>,
    before: Option<Nanos>,
}

impl Recent {
    fn see(&mut self, now: Nanos, value: Nanos, pick: fn(Nanos, Nanos) -> Nanos) {
        if now.saturating_sub(self.since) >= EPOCH {
            // Nothing is forgotten only because nothing was seen.
            self.before = self.now.or(self.before);
            self.now = None;
            self.since = now;
        }
        self.now = Some(self.now.map_or(value, |old| pick(old, value)));
    }

    fn get(&self, pick: fn(Nanos, Nanos) -> Nanos) -> Option<Nanos> {
        match (self.now, self.before) {
            (Some(a), Some(b)) => Some(pick(a, b)),
            (a, b) => a.or(b),
        }
    }
}

/// By how much ways differ: mean and mean deviation, followed as TCP follows a round trip's (RFC 6298).
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    mean: Nanos,
    deviation: Nanos,
}

impl Spread {
    fn see(&mut self, way: Nanos) {
        if self.mean == 0 {
            self.mean = way;
            self.deviation = way / 2;
            return;
        }
        self.deviation = self.deviation - self.deviation / 4 + self.mean.abs_diff(way) / 4;
        self.mean = self.mean - self.mean / 8 + way / 8;
    }
}

/// What is known of the way to the provider and back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Skew {
    way: Recent,
    least: Recent,
    spread: Spread,
    latency: Recent,
    samples: u32,
}

impl Skew {
    /// The longest way that must be reckoned with, for a limit of this period.
    pub(crate) fn bound(&self, period: Nanos) -> Nanos {
        let unknown = START.min(period / 4);
        match self.way.get(Nanos::max) {
            Some(way) if self.samples >= ENOUGH => {
                let longer = way + way * MANY / u64::from(self.samples) + 20 * MILLI;
                longer.min(unknown.max(2 * way)).min(5 * SECOND)
            }
            // Longer than was reckoned with, already.
            Some(way) => unknown.max(way),
            None => unknown,
        }
    }

    /// By how much one way may be longer than another, where the provider states what is needed to know that; else 0.
    pub(crate) fn spread(&self, period: Nanos) -> Nanos {
        let least = self.least.get(Nanos::min).unwrap_or(0);
        let longest = self.way.get(Nanos::max).unwrap_or(0);
        // A burst over cold connections long ago says nothing of now, and nothing is longer than the longest.
        let most = self.spread.mean.saturating_add(4 * self.spread.deviation);
        most.min(longest).saturating_sub(least).min(period / 10)
    }

    /// An answer came; learns from it.
    pub(crate) fn see(&mut self, sent: Nanos, now: Nanos, processing: Option<Nanos>) {
        let latency = now.saturating_sub(sent);
        self.latency.see(now, latency, Nanos::min);
        if let Some(processing) = processing.filter(|&p| p <= latency) {
            let way = (latency - processing).min(MOST_STATED);
            self.way.see(now, way, Nanos::max);
            self.least.see(now, way, Nanos::min);
            self.spread.see(way);
            self.samples = self.samples.saturating_add(1);
        }
    }

    /// The latest time at which a request can have arrived, that was sent at `sent` and answered `now`.
    pub(crate) fn arrival(
        &self,
        sent: Nanos,
        now: Nanos,
        processing: Option<Nanos>,
        period: Nanos,
    ) -> Nanos {
        let latency = now.saturating_sub(sent);
        // A millisecond more than the whole latency is rounding; more than that is nonsense.
        let stated = processing.filter(|&p| p <= latency + MILLI);
        let way = match stated {
            Some(processing) => latency.saturating_sub(processing).min(MOST_STATED),
            None => {
                // Not all of the smallest: it has a way there in it.
                let least = self.latency.get(Nanos::min).unwrap_or(0) / 4 * 3;
                latency.saturating_sub(least).min(self.bound(period))
            }
        };
        sent.saturating_add(way).saturating_add(GUARD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stated_processing_time_leaves_only_the_way_back() {
        let skew = Skew::default();
        let date = skew.arrival(0, 270 * MILLI, Some(250 * MILLI), 60 * SECOND);
        assert_eq!(date, 20 * MILLI + GUARD);
    }

    #[test]
    fn a_long_answer_does_not_hold_its_place() {
        let mut skew = Skew::default();
        skew.see(0, 100 * MILLI, None);
        let date = skew.arrival(SECOND, 40 * SECOND, None, 60 * SECOND);
        assert_eq!(date, 2 * SECOND + GUARD);
    }

    #[test]
    fn nonsense_about_the_processing_time_is_no_statement() {
        let skew = Skew::default();
        let date = skew.arrival(0, SECOND / 2, Some(3600 * SECOND), 60 * SECOND);
        assert_eq!(date, SECOND / 2 + GUARD);
    }

    #[test]
    fn the_spread_of_ways_follows_a_machine_that_gets_busy_and_back() {
        let mut skew = Skew::default();
        assert_eq!(skew.spread(60 * SECOND), 0);
        let mut answers = |ways: &[u64]| {
            for way in ways {
                skew.see(SECOND, SECOND + (100 + way) * MILLI, Some(100 * MILLI));
            }
            skew.spread(60 * SECOND)
        };
        let quiet = answers(&[80; 64]);
        assert!(quiet < 5 * MILLI, "{quiet}");
        let busy = answers(&[80, 180, 90, 200, 80, 150]);
        assert!(busy > 90 * MILLI, "{busy}");
        let again = answers(&[80; 64]);
        assert!(again < 10 * MILLI, "{again}");
    }

    #[test]
    fn the_bound_follows_the_longest_way_seen() {
        let mut skew = Skew::default();
        assert_eq!(skew.bound(60 * SECOND), SECOND);
        assert_eq!(skew.bound(SECOND), SECOND / 4);
        let mut bounds = Vec::new();
        for n in 0..1280 {
            let sent = n * MILLI;
            skew.see(sent, sent + 120 * MILLI, Some(100 * MILLI));
            bounds.push(skew.bound(60 * SECOND));
        }
        assert_eq!(bounds[0], SECOND, "one is not enough");
        assert_eq!(bounds[127], 60 * MILLI);
        assert_eq!(bounds[1279], 42 * MILLI);
        assert!(bounds.windows(2).all(|two| two[1] <= two[0]));
        // Somebody was on the way for long.
        skew.see(SECOND, 3 * SECOND, Some(SECOND / 10));
        assert!(skew.bound(60 * SECOND) > SECOND);
    }
}
