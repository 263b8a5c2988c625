//! A number of units, on its way to become a limit.
use std::time::Duration;

use super::{Calendar, Enforcement, Exhausted, Limit, Scope, Unit, Unpriced, Weights};

/// A number of units; the period makes it a [`Limit`].
#[derive(Clone, Copy, Debug)]
#[must_use = "a limit needs a period: `.per_minute()`"]
pub struct Amount {
    unit: Unit,
    amount: u64,
}

impl Amount {
    pub(super) fn of(unit: Unit, amount: u64) -> Self {
        Self { unit, amount }
    }

    /// A second.
    pub fn per_second(self) -> Limit {
        self.per(Duration::from_secs(1))
    }

    /// A minute.
    pub fn per_minute(self) -> Limit {
        self.per(Duration::from_secs(60))
    }

    /// An hour.
    pub fn per_hour(self) -> Limit {
        self.per(Duration::from_secs(3600))
    }

    /// A day of 24 hours, as a rate: it refills all the time and knows no midnight.
    pub fn per_day(self) -> Limit {
        self.per(Duration::from_secs(86_400))
    }

    /// Any period from 1 ms to 366 days.
    pub fn per(self, period: Duration) -> Limit {
        let noun = self.unit.noun();
        let name = match period.as_secs() {
            1 if period.subsec_nanos() == 0 => format!("{noun} per second"),
            60 if period.subsec_nanos() == 0 => format!("{noun} per minute"),
            3600 if period.subsec_nanos() == 0 => format!("{noun} per hour"),
            86_400 if period.subsec_nanos() == 0 => format!("{noun} per day"),
            _ => format!("{noun} per {period:?}"),
        };
        self.named(period, name)
    }

    /// A day in a time zone, such as `"Europe/Berlin"`, from midnight to midnight. See [`per_calendar`](Self::per_calendar).
    pub fn per_calendar_day(self, zone: impl Into<Box<str>>) -> Limit {
        self.per_calendar(Calendar::day(zone))
    }

    /// A week from Monday to Sunday.
    pub fn per_calendar_week(self, zone: impl Into<Box<str>>) -> Limit {
        self.per_calendar(Calendar::week(zone))
    }

    /// A month from its first day on.
    pub fn per_calendar_month(self, zone: impl Into<Box<str>>) -> Limit {
        self.per_calendar(Calendar::month(zone))
    }

    /// A calendar period: a hard cap of our own.
    ///
    /// All of it may be used at once, and nothing more until the period ends. The most that a request can use is
    /// reserved, and its usage settles that, whatever the provider charges; headers do not change it. A request larger than the cap never
    /// runs, also not alone. Counts are in memory: [`Budget::spent`](crate::Budget::spent) and
    /// [`Budget::restore`](crate::Budget::restore) bring them through a restart.
    pub fn per_calendar(self, calendar: Calendar) -> Limit {
        let period = Duration::from_secs(86_400 * calendar.days());
        let name = format!("{} per {}", self.unit.noun(), calendar.noun());
        let limit = self.named(period, name);
        Limit {
            calendar: Some(calendar),
            ..limit
        }
    }

    fn named(self, period: Duration, name: String) -> Limit {
        Limit {
            unit: self.unit,
            amount: self.amount,
            period,
            calendar: None,
            name: name.into(),
            enforcement: Enforcement::default(),
            scope: Scope::default(),
            models: None,
            key: None,
            review: None,
            exhausted: Exhausted::default(),
            weights: Weights::even(),
            unpriced: Unpriced::default(),
        }
    }
}
