//! Numbers, money and dates as people read them.
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use tollgate::price::Pico;
use tollgate_ledger::Sums;

/// With commas: `1,234,567`.
pub fn count(n: impl Into<u128>) -> String {
    let digits = n.into().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// In four figures: `999`, `1.234 k`, `12.34 M`. For axes.
pub fn short(value: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    let (value, unit) = match units.iter().find(|(size, _)| value.abs() >= *size) {
        Some((size, unit)) => (value / size, *unit),
        None => (value, ""),
    };
    let text = if value.abs() >= 10.0 || value == value.trunc() {
        format!("{value:.0}")
    } else if value.abs() >= 0.1 {
        format!("{value:.2}").trim_end_matches('0').to_owned()
    } else {
        format!("{value:.4}").trim_end_matches('0').to_owned()
    };
    format!("{}{unit}", text.trim_end_matches('.'))
}

/// Dollars, rounded half to even at a hundredth of a cent.
pub fn dollars(amount: Pico) -> String {
    const UNIT: u128 = Pico::PER_DOLLAR / 10_000;
    let (mut units, rest) = (amount.get() / UNIT, amount.get() % UNIT);
    if rest * 2 > UNIT || (rest * 2 == UNIT && units % 2 == 1) {
        units += 1;
    }
    format!("${}.{:04}", count(units / 10_000), units % 10_000)
}

/// What is known of a cost, and what is not.
pub fn cost(sums: &Sums) -> String {
    let known = sums.records - sums.unpriced.min(sums.records);
    match (known, sums.unpriced, sums.cost_at_least) {
        (0, 0, _) => dollars(Pico::ZERO),
        (0, _, _) => "unknown".to_owned(),
        (_, 0, 0) => dollars(sums.cost),
        _ => format!("at least {}", dollars(sums.cost)),
    }
}

/// A length of time: `840 ms`, `12.3 s`, `4 min 5 s`.
pub fn length(time: Duration) -> String {
    let (ms, secs) = (time.as_millis(), time.as_secs());
    match secs {
        0..1 => format!("{ms} ms"),
        1..60 => format!("{:.1} s", time.as_secs_f64()),
        60..6_000 if secs % 60 == 0 => format!("{} min", secs / 60),
        60..6_000 => format!("{} min {} s", secs / 60, secs % 60),
        _ if secs % 3_600 == 0 => format!("{} h", count(secs / 3_600)),
        _ => format!("{} h {} min", count(secs / 3_600), secs / 60 % 60),
    }
}

/// A share in per cent.
pub fn share(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

/// A time in UTC by a pattern of `strftime`. What no calendar has is `?`.
pub fn date(at: SystemTime, pattern: &str) -> String {
    Timestamp::try_from(at).map_or_else(|_| "?".to_owned(), |at| at.strftime(pattern).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(count(0_u64), "0");
        assert_eq!(count(1_234_567_u64), "1,234,567");
        assert_eq!(short(200_000.0), "200k");
        assert_eq!(short(1_500_000.0), "1.5M");
        assert_eq!(short(0.0025), "0.0025");
        assert_eq!(short(0.0), "0");
    }

    #[test]
    fn money_is_rounded_half_to_even() {
        let text = |pico| dollars(Pico::new(pico));
        assert_eq!(text(50_000_000), "$0.0000");
        assert_eq!(text(150_000_000), "$0.0002");
        assert_eq!(text(150_000_001), "$0.0002");
        assert_eq!(text(1_234_567_890_000_000_000), "$1,234,567.8900");
        assert_eq!(
            text(u128::from(u64::MAX) * 1_000_000),
            "$18,446,744,073,709.5516"
        );
    }

    #[test]
    fn lengths_and_dates_that_no_calendar_has_are_no_panic() {
        assert_eq!(length(Duration::from_millis(840)), "840 ms");
        assert_eq!(length(Duration::from_secs(245)), "4 min 5 s");
        assert_eq!(length(Duration::from_secs(600)), "10 min");
        assert_eq!(length(Duration::from_secs(60)), "1 min");
        let _ = length(Duration::MAX);
        let far = SystemTime::UNIX_EPOCH + Duration::from_micros(i64::MAX as u64);
        assert_eq!(date(far, "%F"), "?");
        assert_eq!(date(SystemTime::UNIX_EPOCH, "%F"), "1970-01-01");
    }
}
