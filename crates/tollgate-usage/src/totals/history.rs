//! The last minutes and hours, each with its sum.
use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tollgate_core::price::Pico;

use super::Totals;
use crate::UsageRecord;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;
/// Minutes that are kept: three hours.
const MINUTES: usize = 180;
/// Hours that are kept: a week.
const HOURS: usize = 168;

/// What was used of late.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct History {
    /// The last 180 minutes, the oldest first. Minutes in which nothing ended are left out.
    pub minutes: Vec<Period>,
    /// The last 168 hours, the oldest first. Hours in which nothing ended are left out.
    pub hours: Vec<Period>,
}

/// What was used in one minute or hour. A call counts where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Period {
    /// When it began, by the wall clock.
    pub start: SystemTime,
    /// Calls, however they ended.
    pub calls: u64,
    /// Records that ended in an error.
    pub errors: u64,
    /// Input tokens, cached ones included.
    pub input: u64,
    /// Output tokens, reasoning included.
    pub output: u64,
    /// All tokens.
    pub total: u64,
    /// What the priced ones cost.
    pub cost: Pico,
}

/// Two rings of periods.
#[derive(Default)]
pub(super) struct Ring {
    minutes: VecDeque<Period>,
    hours: VecDeque<Period>,
}

impl Ring {
    pub(super) fn add(&mut self, record: &UsageRecord, sum: &Totals) {
        let ended = record.ended();
        let since = ended.duration_since(UNIX_EPOCH).unwrap_or_default();
        add(&mut self.minutes, MINUTE, MINUTES, since.as_secs(), sum);
        add(&mut self.hours, HOUR, HOURS, since.as_secs(), sum);
    }

    pub(super) fn snapshot(&self) -> History {
        History {
            minutes: self.minutes.iter().copied().collect(),
            hours: self.hours.iter().copied().collect(),
        }
    }
}

fn add(ring: &mut VecDeque<Period>, length: u64, most: usize, at: u64, sum: &Totals) {
    let begin = at - at % length;
    let start = UNIX_EPOCH + Duration::from_secs(begin);
    let span = Duration::from_secs(length * (most as u64 - 1));
    let newest = ring.back().map_or(start, |last| last.start.max(start));
    // Clocks are set back and long streams end late: what is older than the ring is left out.
    if newest.duration_since(start).is_ok_and(|age| age > span) {
        return;
    }
    while ring.front().is_some_and(|first| {
        newest
            .duration_since(first.start)
            .is_ok_and(|age| age > span)
    }) {
        ring.pop_front();
    }
    // Mostly it is the last one.
    let place = ring.iter().rposition(|period| period.start <= start);
    let period = match place {
        Some(at) if ring[at].start == start => &mut ring[at],
        place => {
            let at = place.map_or(0, |before| before + 1);
            ring.insert(at, Period::empty(start));
            &mut ring[at]
        }
    };
    period.add(sum);
}

impl Period {
    fn empty(start: SystemTime) -> Self {
        Self {
            start,
            calls: 0,
            errors: 0,
            input: 0,
            output: 0,
            total: 0,
            cost: Pico::ZERO,
        }
    }

    fn add(&mut self, sum: &Totals) {
        let add = |mine: &mut u64, theirs: u64| *mine = mine.saturating_add(theirs);
        add(&mut self.calls, sum.calls);
        add(&mut self.errors, sum.errors);
        add(&mut self.input, sum.input);
        add(&mut self.output, sum.output);
        add(&mut self.total, sum.total);
        self.cost = self.cost + sum.cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(second: u64) -> UsageRecord {
        UsageRecord {
            started: UNIX_EPOCH + Duration::from_secs(second - 1),
            duration: Duration::from_secs(1),
            ..UsageRecord::default()
        }
    }

    fn ring(seconds: &[u64]) -> History {
        let mut ring = Ring::default();
        for &second in seconds {
            let record = record(second);
            ring.add(&record, &Totals::of(&record));
        }
        ring.snapshot()
    }

    fn calls(periods: &[Period]) -> Vec<(u64, u64)> {
        let begin = |period: &Period| period.start.duration_since(UNIX_EPOCH).unwrap();
        let each = periods.iter();
        each.map(|period| (begin(period).as_secs(), period.calls))
            .collect()
    }

    // L10
    #[test]
    fn a_call_counts_in_the_minute_and_the_hour_in_which_it_ended() {
        let history = ring(&[3_600, 3_659, 3_660, 7_200]);
        let minutes = [(3_600, 2), (3_660, 1), (7_200, 1)];
        assert_eq!(calls(&history.minutes), minutes);
        assert_eq!(calls(&history.hours), [(3_600, 3), (7_200, 1)]);
    }

    #[test]
    fn what_ends_late_counts_in_its_own_minute_or_not_at_all() {
        let day = 86_400;
        let history = ring(&[day, day + 600, day + 60, day + 120, day - 179 * 60, 60]);
        let minutes = [(day, 1), (day + 60, 1), (day + 120, 1), (day + 600, 1)];
        assert_eq!(calls(&history.minutes), minutes, "three hours are kept");
    }

    #[test]
    fn the_rings_keep_three_hours_and_a_week() {
        let seconds: Vec<u64> = (1..1_000).map(|minute| minute * 600).collect();
        let history = ring(&seconds);
        assert_eq!((history.minutes.len(), history.hours.len()), (18, 167));
    }
}
