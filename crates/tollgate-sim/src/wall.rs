//! Dates and durations as providers write them.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As Go prints a duration, in whole milliseconds rounded up: `120ms`, `17.28s`, `6m0s`, `1h8m25.745s`.
pub(crate) fn go_duration(nanos: u64) -> String {
    let millis = nanos.div_ceil(1_000_000);
    if millis == 0 {
        return "0s".to_owned();
    }
    if millis < 1_000 {
        return format!("{millis}ms");
    }
    let (secs, millis) = (millis / 1_000, millis % 1_000);
    let mut text = String::new();
    if secs >= 3_600 {
        text.push_str(&format!("{}h", secs / 3_600));
    }
    if secs >= 60 {
        text.push_str(&format!("{}m", secs / 60 % 60));
    }
    text.push_str(&(secs % 60).to_string());
    if millis > 0 {
        text.push_str(format!(".{millis:03}").trim_end_matches('0'));
    }
    text.push('s');
    text
}

/// RFC 3339 in UTC and whole seconds, rounded up.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = since.as_secs() + u64::from(since.subsec_nanos() > 0);
    let (year, month, day) = civil(secs / 86_400);
    let (hour, minute, second) = (secs / 3_600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The date of a day since 1970 (Howard Hinnant's algorithm, for days from 1970 on).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

/// Whole seconds, rounded up.
pub(crate) fn whole_secs(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000)
}

/// 2026-01-01T00:00:00Z: where the provider's calendar starts unless told otherwise.
pub(crate) const EPOCH: Duration = Duration::from_secs(1_767_225_600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_like_those_of_go() {
        for (millis, text) in [
            (0, "0s"),
            (1, "1ms"),
            (120, "120ms"),
            (1_000, "1s"),
            (17_280, "17.28s"),
            (360_000, "6m0s"),
            (1_296_001, "21m36.001s"),
            (4_105_745, "1h8m25.745s"),
        ] {
            assert_eq!(go_duration(millis * 1_000_000), text);
        }
        assert_eq!(go_duration(1), "1ms", "rounded up");
    }

    #[test]
    fn dates_are_right_on_leap_days_and_round_up() {
        let at = |secs: u64| rfc3339(UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_709_164_800), "2024-02-29T00:00:00Z");
        assert_eq!(rfc3339(UNIX_EPOCH + EPOCH), "2026-01-01T00:00:00Z");
        let late = UNIX_EPOCH + EPOCH + Duration::from_nanos(1);
        assert_eq!(rfc3339(late), "2026-01-01T00:00:01Z");
    }
}
