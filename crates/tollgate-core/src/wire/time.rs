//! The spellings of time that providers use, read exactly and without trust.
use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// No stated wait is taken for longer than this.
pub(crate) const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

/// Longest text that is looked at.
const LONGEST_TEXT: usize = 64;

/// A Go duration: `1ms`, `6m0s`, `23h47m36.648s`, `10.332999999s`. Exact to the nanosecond; finer digits are dropped.
pub(crate) fn go_duration(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > LONGEST_TEXT {
        return None;
    }
    let mut rest = text.as_bytes();
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, fraction, digits) = decimal(&mut rest)?;
        let unit: u128 = match rest {
            [b'n', b's', tail @ ..] => (rest = tail, 1).1,
            [b'u', b's', tail @ ..] | [0xc2, 0xb5, b's', tail @ ..] => (rest = tail, 1_000).1,
            [b'm', b's', tail @ ..] => (rest = tail, 1_000_000).1,
            [b's', tail @ ..] => (rest = tail, 1_000_000_000).1,
            [b'm', tail @ ..] => (rest = tail, 60_000_000_000).1,
            [b'h', tail @ ..] => (rest = tail, 3_600_000_000_000).1,
            [b'd', tail @ ..] => (rest = tail, 86_400_000_000_000).1,
            _ => return None,
        };
        nanos = nanos
            .checked_add(whole.checked_mul(unit)?)?
            .checked_add(fraction * unit / 10u128.pow(digits))?;
    }
    Some(bounded(nanos))
}

/// Seconds, perhaps with a fraction and an exponent; never negative, never "inf".
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    scaled(text, 1_000_000_000)
}

/// Milliseconds, likewise.
pub(crate) fn millis(text: &str) -> Option<Duration> {
    scaled(text, 1_000_000)
}

fn scaled(text: &str, unit: u32) -> Option<Duration> {
    let text = text.trim();
    if text.is_empty() || text.len() > LONGEST_TEXT || !text.as_bytes()[0].is_ascii_digit() {
        return None;
    }
    let mut rest = text.as_bytes();
    if let Some((whole, fraction, digits)) = decimal(&mut rest) {
        if rest.is_empty() {
            let unit = u128::from(unit);
            let nanos = whole.checked_mul(unit)? + fraction * unit / 10u128.pow(digits);
            return Some(bounded(nanos));
        }
    }
    // An exponent, or more digits than anybody needs.
    let value: f64 = text.parse().ok()?;
    if !value.is_finite() || value < 0.0 {
        return None;
    }
    let seconds = value * f64::from(unit) / 1e9;
    Some(Duration::try_from_secs_f64(seconds).map_or(LONGEST, |d| d.min(LONGEST)))
}

fn bounded(nanos: u128) -> Duration {
    u64::try_from(nanos / 1_000_000_000).map_or(LONGEST, |secs| {
        let below = (nanos % 1_000_000_000) as u32;
        Duration::new(secs, below).min(LONGEST)
    })
}

/// Takes digits with an optional fraction: the whole, the fraction's digits (nine at most) and their number.
fn decimal(rest: &mut &[u8]) -> Option<(u128, u128, u32)> {
    let digits = |from: &[u8]| from.iter().take_while(|b| b.is_ascii_digit()).count();
    let value = |of: &[u8]| of.iter().fold(0u128, |n, b| n * 10 + u128::from(b - b'0'));
    let n = digits(rest);
    if n == 0 || n > 20 {
        return None;
    }
    let whole = value(&rest[..n]);
    *rest = &rest[n..];
    if rest.first() != Some(&b'.') {
        return Some((whole, 0, 0));
    }
    let n = digits(&rest[1..]);
    if n == 0 {
        return None;
    }
    let kept = n.min(9);
    let fraction = value(&rest[1..=kept]);
    *rest = &rest[1 + n..];
    Some((whole, fraction, kept as u32))
}

/// An instant in the spelling of RFC 3339, as milliseconds since 1970.
pub(crate) fn rfc3339(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    if bytes.len() < 20 || bytes.len() > LONGEST_TEXT {
        return None;
    }
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = bytes.get(range)?;
        part.iter().try_fold(0, |n, b| {
            b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0'))
        })
    };
    let punctuation = bytes[4] == b'-'
        && bytes[7] == b'-'
        && matches!(bytes[10], b'T' | b't' | b' ')
        && bytes[13] == b':'
        && bytes[16] == b':';
    if !punctuation {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let sane = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !sane {
        return None;
    }
    let mut at = 19;
    let mut millis = 0;
    if bytes[at] == b'.' {
        let n = bytes[at + 1..]
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .count();
        for i in 0..3 {
            let digit = if i < n {
                i64::from(bytes[at + 1 + i] - b'0')
            } else {
                0
            };
            millis = millis * 10 + digit;
        }
        at += 1 + n;
    }
    let offset = match bytes.get(at..)? {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let minutes = number(at + 1..at + 3)? * 60 + number(at + 4..at + 6)?;
            if *sign == b'-' { -minutes } else { minutes }
        }
        _ => return None,
    };
    let days = days_from_civil(year, month, day);
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset * 60;
    Some(seconds * 1_000 + millis)
}

/// Days since 1970 of a date of the Gregorian calendar (Howard Hinnant's algorithm).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

/// Milliseconds since 1970.
pub(crate) fn since_epoch(at: SystemTime) -> i64 {
    let whole = |d: Duration| i64::try_from(d.as_millis()).unwrap_or(i64::MAX);
    match at.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => whole(after),
        Err(before) => -whole(before.duration()),
    }
}

/// The answer's own `Date`, if it has one.
pub(crate) fn date(headers: &HeaderMap) -> Option<SystemTime> {
    http_date(headers.get(header::DATE)?.to_str().ok()?)
}

/// A date of HTTP.
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    if text.len() > LONGEST_TEXT {
        return None;
    }
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // R09
    #[test]
    fn go_durations_parse_exactly() {
        for (text, nanos) in [
            ("17ms", 17_000_000u128),
            ("1m30s", 90_000_000_000),
            ("23h47m36.648s", 85_656_648_000_000),
            ("2m59.56s", 179_560_000_000),
            ("7.66s", 7_660_000_000),
            ("1s", 1_000_000_000),
            ("0s", 0),
            ("7.2ms", 7_200_000),
            ("290.979975ms", 290_979_975),
            ("10.332999999s", 10_332_999_999),
            ("156h14m36.75s", 562_476_750_000_000),
            ("1µs", 1_000),
            ("1ns", 1),
        ] {
            assert_eq!(
                go_duration(text).map(|d| d.as_nanos()),
                Some(nanos),
                "{text}"
            );
        }
        for text in [
            "", "1", "s", "-1s", "1.s", "1x", ".5s", "1s ", "NaN", "1e3s",
        ] {
            assert_eq!(go_duration(text), None, "{text}");
        }
        assert_eq!(go_duration("99999999999999999999h"), Some(LONGEST));
    }

    // R10
    #[test]
    fn rfc3339_parses_as_a_date() {
        for (text, millis) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-09-11T06:27:29Z", 1_789_108_049_000),
            ("2026-09-11T06:27:29.5Z", 1_789_108_049_500),
            ("2026-09-11T08:27:29+02:00", 1_789_108_049_000),
            ("2024-02-29T12:00:00.123456Z", 1_709_208_000_123),
            ("1969-12-31T23:59:59Z", -1_000),
        ] {
            assert_eq!(rfc3339(text), Some(millis), "{text}");
        }
        for text in [
            "2026",
            "2026-09-11",
            "2026-13-11T06:27:29Z",
            "2026-09-11T06:27:29",
            "2026-09-11T06:27:29.Zx",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn seconds_are_exact_and_bounded() {
        for (text, nanos) in [
            ("2", Some(2_000_000_000u128)),
            ("0", Some(0)),
            ("37.26258873939514", Some(37_262_588_739)),
            ("1e1", Some(10_000_000_000)),
            ("-1", None),
            ("-0.5", None),
            ("NaN", None),
            ("inf", None),
            ("1e400", None),
            ("soon", None),
            ("", None),
            ("+1", None),
            ("1e30", Some(LONGEST.as_nanos())),
            ("99999999999999999999", Some(LONGEST.as_nanos())),
        ] {
            assert_eq!(seconds(text).map(|d| d.as_nanos()), nanos, "{text}");
        }
        assert_eq!(millis("350"), Some(Duration::from_millis(350)));
    }

    proptest! {
        #[test]
        fn any_duration_survives_go_spelling(h in 0u64..9_000, m in 0u64..60, nanos in 0u64..60_000_000_000) {
            let text = format!("{h}h{m}m{}.{:09}s", nanos / 1_000_000_000, nanos % 1_000_000_000);
            let want = Duration::from_secs(h * 3_600 + m * 60) + Duration::from_nanos(nanos);
            prop_assert_eq!(go_duration(&text), Some(want));
        }

        #[test]
        fn arbitrary_text_never_panics(text: String) {
            let _ = (go_duration(&text), seconds(&text), millis(&text), rfc3339(&text), http_date(&text));
        }

        #[test]
        fn almost_dates_never_panic(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,9})?(Z|[+-][0-9]{2}:[0-9]{2}|)") {
            let _ = rfc3339(&text);
        }
    }
}
