//! Days, weeks and months as people count them.
use std::fmt;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Nanoseconds since 1970, by the wall clock. They reach to the year 2262.
pub(crate) type Wall = i64;

/// A calendar period that a cap holds for: each day, week or month of a time zone.
///
/// ```
/// use tollgate_budget::{Calendar, Limit, Weekday};
///
/// let daily = Limit::tokens(2_000_000).per_calendar(Calendar::day("Europe/Berlin").start_hour(6));
/// let weekly = Limit::requests(10_000).per_calendar(Calendar::week("UTC").first_weekday(Weekday::Sunday));
/// let monthly = Limit::tokens(40_000_000).per_calendar(Calendar::month("America/New_York").first_day(29));
/// # let _ = (daily, weekly, monthly);
/// ```
///
/// A period begins at its first day's start hour by the local clock. On days when clocks change there is one beginning
/// like on any other: an hour that the day leaves out begins with the hour after it, one that comes twice the first
/// time. A month that is too short for its first day begins with its last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    zone: Box<str>,
    every: Every,
    hour: u8,
    first_weekday: Option<Weekday>,
    first_day: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Every {
    Day,
    Week,
    Month,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Calendar {
    fn of(every: Every, zone: impl Into<Box<str>>) -> Self {
        Self {
            zone: zone.into(),
            every,
            hour: 0,
            first_weekday: None,
            first_day: None,
        }
    }

    /// Each day in a time zone, such as `"Europe/Berlin"` or `"UTC"`.
    #[must_use]
    pub fn day(zone: impl Into<Box<str>>) -> Self {
        Self::of(Every::Day, zone)
    }

    /// Each week, from Monday on.
    #[must_use]
    pub fn week(zone: impl Into<Box<str>>) -> Self {
        Self::of(Every::Week, zone)
    }

    /// Each month, from its first day on.
    #[must_use]
    pub fn month(zone: impl Into<Box<str>>) -> Self {
        Self::of(Every::Month, zone)
    }

    /// The hour at which a period begins, 0 to 23. Default 0: midnight.
    #[must_use]
    pub fn start_hour(mut self, hour: u8) -> Self {
        self.hour = hour;
        self
    }

    /// The day with which a week begins. Default: Monday.
    #[must_use]
    pub fn first_weekday(mut self, day: Weekday) -> Self {
        self.first_weekday = Some(day);
        self
    }

    /// The day with which a month begins, 1 to 31; the last one of a month that is shorter. Default 1.
    #[must_use]
    pub fn first_day(mut self, day: u8) -> Self {
        self.first_day = Some(day);
        self
    }

    pub(super) fn noun(&self) -> &'static str {
        match self.every {
            Every::Day => "calendar day",
            Every::Week => "calendar week",
            Every::Month => "calendar month",
        }
    }

    /// How long a period is, nearly.
    pub(super) fn days(&self) -> u64 {
        match self.every {
            Every::Day => 1,
            Every::Week => 7,
            Every::Month => 31,
        }
    }

    pub(crate) fn plan(&self) -> Result<Plan, String> {
        let wrong = |what: &str| Err(what.to_owned());
        let zone = match &*self.zone {
            "UTC" => TimeZone::UTC,
            name => match TimeZone::get(name) {
                Ok(zone) => zone,
                Err(_) => {
                    return Err(format!(
                        "there is no time zone {name:?}; names are those of the IANA database, such as \"Europe/Berlin\""
                    ));
                }
            },
        };
        if self.hour > 23 {
            return wrong("a start hour must be from 0 to 23");
        }
        if self.first_weekday.is_some() && self.every != Every::Week {
            return wrong("only a week has a first weekday");
        }
        if self.first_day.is_some() && self.every != Every::Month {
            return wrong("only a month has a first day");
        }
        let first = match self.every {
            Every::Day => First::Any,
            Every::Week => First::Weekday(self.first_weekday.unwrap_or(Weekday::Monday) as i8),
            Every::Month => match self.first_day.unwrap_or(1) {
                day @ 1..=31 => First::Day(day as i8),
                _ => return wrong("the first day of a month must be from 1 to 31"),
            },
        };
        Ok(Plan {
            zone,
            hour: self.hour as i8,
            first,
        })
    }
}

/// With which days a period begins.
#[derive(Clone, Copy, Debug)]
enum First {
    Any,
    /// Days after Monday.
    Weekday(i8),
    /// Of the month.
    Day(i8),
}

/// A calendar whose zone has been found.
#[derive(Clone)]
pub(crate) struct Plan {
    zone: TimeZone,
    hour: i8,
    first: First,
}

impl Plan {
    /// When the period ends that `wall` lies in, which is when the next begins. Always later than `wall`.
    pub(crate) fn next(&self, wall: Wall) -> Wall {
        let Ok(time) = Timestamp::from_nanosecond(wall.into()) else {
            return Wall::MAX;
        };
        // A day before, for the start hour of a date can lie beyond the date's own end where a zone leaps.
        let mut date = time.to_zoned(self.zone.clone()).date();
        date = date.yesterday().unwrap_or(date);
        loop {
            if self.begins_with(date) {
                let begin = self.beginning(date);
                if begin > wall {
                    return begin;
                }
            }
            match date.tomorrow() {
                Ok(tomorrow) => date = tomorrow,
                Err(_) => return Wall::MAX,
            }
        }
    }

    /// When the period began that `wall` lies in, which has so many days or one more.
    pub(crate) fn began(&self, wall: Wall, days: u64) -> Wall {
        const DAY: Wall = 86_400_000_000_000;
        let days = Wall::try_from(days).unwrap_or(Wall::MAX);
        let mut begin = wall.saturating_sub(DAY.saturating_mul(days.saturating_add(2)));
        loop {
            match self.next(begin) {
                // Beyond the last date there is none that is later.
                next if next > wall || next <= begin => return begin,
                next => begin = next,
            }
        }
    }

    fn begins_with(&self, date: Date) -> bool {
        match self.first {
            First::Any => true,
            First::Weekday(first) => date.weekday().to_monday_zero_offset() == first,
            First::Day(first) => date.day() == first.min(date.days_in_month()),
        }
    }

    /// The instant of a date's start hour: of a time that is left out, the one as much later; of one that comes twice,
    /// the first.
    fn beginning(&self, date: Date) -> Wall {
        let local = date.at(self.hour, 0, 0, 0);
        match self.zone.to_timestamp(local) {
            Ok(time) => Wall::try_from(time.as_nanosecond()).unwrap_or(Wall::MAX),
            Err(_) => Wall::MAX,
        }
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("zone", &self.zone.iana_name())
            .field("hour", &self.hour)
            .field("first", &self.first)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> Wall {
        let time: Timestamp = time.parse().unwrap();
        time.as_nanosecond().try_into().unwrap()
    }

    /// All beginnings from one instant to another, in UTC.
    fn beginnings(calendar: &Calendar, from: &str, to: &str) -> Vec<String> {
        let plan = calendar.plan().unwrap();
        let mut wall = at(from);
        let mut found = Vec::new();
        loop {
            wall = plan.next(wall);
            if wall >= at(to) {
                return found;
            }
            found.push(Timestamp::from_nanosecond(wall.into()).unwrap().to_string());
        }
    }

    // T38
    #[test]
    fn on_the_days_when_clocks_change_there_is_one_midnight_each() {
        let berlin = Calendar::day("Europe/Berlin");
        assert_eq!(
            beginnings(&berlin, "2026-03-27T23:30:00Z", "2026-03-31T00:00:00Z"),
            [
                "2026-03-28T23:00:00Z",
                "2026-03-29T22:00:00Z",
                "2026-03-30T22:00:00Z"
            ],
            "the day of 29 March has 23 hours"
        );
        assert_eq!(
            beginnings(&berlin, "2026-10-24T12:00:00Z", "2026-10-27T00:00:00Z"),
            [
                "2026-10-24T22:00:00Z",
                "2026-10-25T23:00:00Z",
                "2026-10-26T23:00:00Z"
            ],
            "the day of 25 October has 25"
        );
    }

    // T38
    #[test]
    fn a_midnight_that_is_left_out_or_comes_twice_is_one() {
        // In Beirut the clock goes from 0:00 to 1:00, in Havana from 1:00 back to 0:00.
        assert_eq!(
            beginnings(
                &Calendar::day("Asia/Beirut"),
                "2026-03-28T12:00:00Z",
                "2026-03-30T12:00:00Z"
            ),
            ["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"]
        );
        assert_eq!(
            beginnings(
                &Calendar::day("America/Havana"),
                "2026-10-31T12:00:00Z",
                "2026-11-02T12:00:00Z"
            ),
            ["2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z"]
        );
        // Samoa left out the whole of 30 December 2011.
        assert_eq!(
            beginnings(
                &Calendar::day("Pacific/Apia"),
                "2011-12-29T12:00:00Z",
                "2012-01-01T00:00:00Z"
            ),
            ["2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]
        );
        // A start hour that the change leaves out.
        assert_eq!(
            beginnings(
                &Calendar::day("Europe/Berlin").start_hour(2),
                "2026-03-28T12:00:00Z",
                "2026-03-31T00:00:00Z"
            ),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"]
        );
    }

    // T38
    #[test]
    fn a_month_begins_on_its_day_or_on_its_last() {
        for (day, begins) in [
            (28, ["01-28", "02-28", "03-28", "04-28"]),
            (29, ["01-29", "02-28", "03-29", "04-29"]),
            (30, ["01-30", "02-28", "03-30", "04-30"]),
            (31, ["01-31", "02-28", "03-31", "04-30"]),
        ] {
            let month = Calendar::month("UTC").first_day(day);
            assert_eq!(
                beginnings(&month, "2026-01-10T00:00:00Z", "2026-05-10T00:00:00Z"),
                begins.map(|date| format!("2026-{date}T00:00:00Z")),
                "{day}"
            );
        }
        let leap = Calendar::month("UTC").first_day(31);
        assert_eq!(
            beginnings(&leap, "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z"),
            ["2028-02-29T00:00:00Z"]
        );
    }

    // T38
    #[test]
    fn a_week_begins_on_its_weekday_at_its_hour() {
        let monday = Calendar::week("UTC");
        assert_eq!(
            beginnings(&monday, "2026-11-22T19:00:00Z", "2026-12-01T00:00:00Z"),
            ["2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"]
        );
        let sunday = Calendar::week("UTC")
            .first_weekday(Weekday::Sunday)
            .start_hour(6);
        assert_eq!(
            beginnings(&sunday, "2026-11-22T05:59:59Z", "2026-11-29T06:00:00Z"),
            ["2026-11-22T06:00:00Z"]
        );
    }

    #[test]
    fn the_beginning_of_a_period_is_the_one_before_its_end() {
        for calendar in [
            Calendar::day("Europe/Berlin").start_hour(2),
            Calendar::week("Pacific/Apia").first_weekday(Weekday::Sunday),
            Calendar::month("UTC").first_day(31),
        ] {
            let plan = calendar.plan().unwrap();
            let mut begin = plan.next(at("2011-01-01T00:00:00Z"));
            while begin < at("2012-03-01T00:00:00Z") {
                let end = plan.next(begin);
                for wall in [begin, begin + 1, end - 1] {
                    assert_eq!(plan.began(wall, calendar.days()), begin, "{calendar:?}");
                }
                begin = end;
            }
        }
    }

    #[test]
    fn no_time_of_the_wall_clock_is_too_strange() {
        for calendar in [Calendar::day("UTC"), Calendar::month("Europe/Berlin")] {
            let plan = calendar.plan().unwrap();
            for wall in [Wall::MIN, -1, 0, Wall::MAX - 1] {
                assert!(plan.next(wall) > wall, "{wall}");
            }
            for wall in [Wall::MIN, -1, 0, Wall::MAX - 1, Wall::MAX] {
                assert!(plan.began(wall, calendar.days()) <= wall, "{wall}");
            }
        }
    }
}
