//! One limit as headers state it, made safe and comparable with our own.
use tollgate_core::wire::limits::{Dimension, RateLimit, ResetKind};

use super::rate::{MILLI, Nanos, Rate, SECOND, narrow};
use crate::limit::Unit;

/// A statement that has been looked through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated {
    pub(crate) unit: Unit,
    /// Units in all, from 1 up.
    pub(crate) limit: f64,
    /// From 0 to the limit.
    pub(crate) remaining: f64,
    /// Time until it is full (or its window ends), and how sharp that is.
    pub(crate) reset: Option<(Nanos, Nanos)>,
    /// The window that the header's name states.
    pub(crate) window: Option<Nanos>,
    /// What stands here are parts of units, so many to one.
    pub(crate) parts: u64,
}

/// The periods that providers have.
pub(crate) const USUAL: [Nanos; 5] = [
    SECOND,
    10 * SECOND,
    60 * SECOND,
    3600 * SECOND,
    86_400 * SECOND,
];

impl Stated {
    /// Reads a statement; `None` if it is of no use (`-1` for "unknown", more left than there is, a strange unit).
    pub(crate) fn read(seen: &RateLimit) -> Option<Self> {
        let unit = match seen.dimension {
            Dimension::Requests => Unit::Requests,
            Dimension::Tokens => Unit::Tokens,
            Dimension::InputTokens => Unit::InputTokens,
            Dimension::OutputTokens => Unit::OutputTokens,
            _ => return None,
        };
        let limit = seen.limit.filter(|n| (1.0..9e18).contains(n))?.floor();
        let remaining = seen.remaining.filter(|&n| n <= limit)?.max(0.0);
        let reset = seen.reset.as_ref().and_then(|reset| {
            let time = narrow(reset.after()?.as_nanos());
            let grain = match reset.kind {
                ResetKind::AzureNumber => return None,
                ResetKind::GoDuration | ResetKind::EpochMillis => MILLI,
                _ if reset.raw.contains('.') => MILLI,
                _ => SECOND,
            };
            Some((time, grain))
        });
        Some(Self {
            unit,
            limit,
            remaining,
            reset,
            window: seen.window().map(|window| narrow(window.as_nanos())),
            parts: 1,
        })
    }

    /// The same in parts of units.
    pub(crate) fn in_parts(&self, parts: u64) -> Self {
        Self {
            limit: self.limit * parts as f64,
            remaining: self.remaining * parts as f64,
            parts,
            ..*self
        }
    }

    pub(crate) fn used(&self) -> f64 {
        self.limit - self.remaining
    }

    /// The limit in whole units.
    pub(crate) fn amount(&self) -> u64 {
        self.limit as u64
    }

    /// Units that are left; never less than were meant (Anthropic rounds to thousands).
    pub(crate) fn left(&self) -> u64 {
        let parts = self.parts as f64;
        let rounded = self.limit / parts >= 10_000.0 && (self.remaining / parts) % 1000.0 == 0.0;
        let up = if rounded {
            500u64.saturating_mul(self.parts)
        } else {
            0
        };
        (self.remaining as u64).saturating_add(up)
    }

    /// The period that a bucket has which shows this; `None` if it cannot be told.
    pub(crate) fn bucket_period(&self) -> Option<f64> {
        let (reset, grain) = self.reset?;
        (self.used() > 0.0 && reset >= 4 * grain).then(|| reset as f64 * self.limit / self.used())
    }

    /// Whether a bucket of this period shows this, as sharp as it is written.
    fn fits_bucket(&self, period: Nanos) -> bool {
        let Some((reset, grain)) = self.reset else {
            return false;
        };
        let unit = period as f64 / self.limit;
        let expected = self.used() * unit;
        let slack = grain as f64 + expected * 0.01;
        let reset = reset as f64;
        reset <= expected + slack && reset >= expected - unit - slack
    }

    /// Whether this is a statement about a limit of `told` units in this period, and not about one of another period.
    pub(crate) fn is_of(&self, told: u64, rate: Rate) -> bool {
        if let Some(window) = self.window {
            return window == rate.period;
        }
        // Two limits of the same size and unit are one, as far as anybody can tell.
        if self.amount().abs_diff(told) <= told / 100 {
            return true;
        }
        let Some((reset, grain)) = self.reset else {
            return false;
        };
        if self.fits_bucket(rate.period) {
            return true;
        }
        // A limit a day shows its period only in how long it takes to be full again.
        let looks_like = |period: Nanos| {
            let expected = self.used() * period as f64 / self.limit;
            let reset = reset as f64;
            reset >= 0.9 * expected && reset <= 1.01 * expected + grain as f64
        };
        let another = USUAL
            .iter()
            .any(|&period| period != rate.period && self.used() > 0.0 && looks_like(period));
        reset
            <= rate
                .period
                .saturating_add(grain)
                .saturating_add(rate.period / 50)
            && !another
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use tollgate_core::wire::limits;

    use super::*;

    fn stated(limit: &str, remaining: &str, reset: &str) -> Option<Stated> {
        let mut headers = HeaderMap::new();
        for (name, value) in [("limit", limit), ("remaining", remaining), ("reset", reset)] {
            let name: HeaderName = format!("x-ratelimit-{name}-requests").parse().unwrap();
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let read = limits::from_headers(&headers, SystemTime::UNIX_EPOCH);
        read.first().and_then(Stated::read)
    }

    const MINUTE: Rate = Rate {
        amount: 500,
        period: 60 * SECOND,
    };

    // T30
    #[test]
    fn a_limit_a_day_is_not_taken_for_one_a_minute() {
        let day = stated("10000", "9998", "17.28s").unwrap();
        assert!(!day.is_of(500, MINUTE));
    }

    #[test]
    fn a_lower_limit_of_the_same_period_is_recognised_under_every_enforcement() {
        assert!(
            stated("250", "150", "24s").unwrap().is_of(500, MINUTE),
            "bucket"
        );
        assert!(
            stated("250", "249", "1m0s").unwrap().is_of(500, MINUTE),
            "rolling"
        );
        assert!(
            stated("250", "150", "31s").unwrap().is_of(500, MINUTE),
            "fixed"
        );
    }

    #[test]
    fn no_statement_overflows_whatever_parts_it_is_read_in() {
        let most = stated("8000000000000000000", "8000000000000000000", "1s").unwrap();
        for parts in [1, 1000, 1 << 40, u64::MAX] {
            let stated = most.in_parts(parts);
            assert!(stated.left() >= most.left(), "{parts}");
        }
    }

    #[test]
    fn nonsense_is_no_statement() {
        for (limit, remaining) in [("-1", "-1"), ("0", "0"), ("30", "59"), ("nan", "1")] {
            assert!(
                stated(limit, remaining, "1s").is_none(),
                "{limit} {remaining}"
            );
        }
        assert_eq!(stated("100", "-27689", "1s").unwrap().remaining, 0.0);
    }
}
