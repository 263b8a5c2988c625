//! Spans of time as people write them: `500ms`, `30s`, `5m`, `1h`.
use std::time::Duration;

/// A number and a unit, above zero.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    match parse_any(text) {
        Ok(Duration::ZERO) => Err(format!("{text:?} must be above zero")),
        parsed => parsed,
    }
}

/// A number and a unit; the number may be zero.
pub(super) fn parse_any(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time such as \"500ms\", \"30s\", \"5m\" or \"1h\"");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let millis = number.checked_mul(millis);
    millis
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} must be below a million years"))
}

/// The period of a limit: a time, or `second`, `minute`, `hour`, `day`.
pub(super) fn period(text: &str) -> Result<Duration, String> {
    let seconds = match text {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => {
            return parse(text).map_err(|_| {
                format!(
                    "{text:?} is no period: second, minute, hour, day, or a time such as \"10s\""
                )
            });
        }
    };
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nonsense_is_not() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1 h", 3_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "0s",
            "1.5s",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_any("0ms"), Ok(Duration::ZERO));
        assert_eq!(period("minute"), Ok(Duration::from_secs(60)));
        assert!(period("fortnight").is_err());
    }
}
