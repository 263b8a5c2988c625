//! The structured fields of the IETF draft: `RateLimit` and `RateLimit-Policy`.
use super::{
    Dimension, RateLimit, Reset, ResetKind,
    read::{MOST, finite},
};

/// Reads one header; policies and what is left of them meet by name.
///
/// Lenient: some servers put several bare strings before the parameters, or none at all.
pub(super) fn read(found: &mut Vec<RateLimit>, policy: bool, text: &str) {
    if text.len() > 4096 {
        return;
    }
    for item in split(text, ',') {
        let mut name = "";
        let (mut first, mut second, mut unit) = (None, None, None);
        for piece in split(item, ';') {
            let piece = piece.trim();
            match piece.split_once('=') {
                Some(("q", value)) if policy => first = finite(value),
                Some(("w", value)) if policy => second = finite(value),
                Some(("r", value)) if !policy => first = finite(value),
                Some(("t", value)) if !policy => second = finite(value),
                Some(("qu", value)) => unit = Some(value.trim_matches('"')),
                Some(_) => {}
                None => name = piece.trim_matches('"'),
            }
        }
        if first.is_none() && second.is_none() {
            continue;
        }
        if policy {
            merge(found, name, unit, |limit| {
                limit.limit = first;
                limit.window = second.map(window_name);
            });
        } else {
            merge(found, name, unit, |limit| {
                limit.remaining = first;
                limit.reset = second.map(reset);
            });
        }
    }
}

/// Sets one half of the limit that belongs to `name`; the first that lacks this half takes it.
fn merge(
    found: &mut Vec<RateLimit>,
    name: &str,
    unit: Option<&str>,
    set: impl FnOnce(&mut RateLimit),
) {
    let dimension = match unit {
        Some("requests") => Dimension::Requests,
        Some(unit) => Dimension::named(unit),
        None if name.contains("token") => Dimension::Tokens,
        None => Dimension::Requests,
    };
    let mut fresh = RateLimit {
        dimension,
        window: None,
        limit: None,
        remaining: None,
        reset: None,
    };
    set(&mut fresh);
    let is_policy = fresh.limit.is_some();
    let room = found.len() < MOST;
    let other_half = found.iter_mut().find(|l| {
        l.dimension == fresh.dimension
            && if is_policy {
                l.limit.is_none() && l.window.is_none()
            } else {
                l.remaining.is_none() && l.reset.is_none()
            }
    });
    match other_half {
        Some(half) if is_policy => {
            half.limit = fresh.limit;
            half.window = fresh.window;
        }
        Some(half) => {
            half.remaining = fresh.remaining;
            half.reset = fresh.reset;
        }
        None if room => found.push(fresh),
        None => {}
    }
}

fn window_name(seconds: f64) -> Box<str> {
    match seconds {
        60.0 => "minute".into(),
        3_600.0 => "hour".into(),
        86_400.0 => "day".into(),
        other => format!("{other}-second").into(),
    }
}

fn reset(seconds: f64) -> Reset {
    Reset {
        raw: seconds
            .to_string()
            .chars()
            .take(64)
            .collect::<String>()
            .into(),
        kind: ResetKind::Seconds,
        millis: Some((seconds * 1e3).round() as i64),
    }
}

/// Splits outside quotes.
fn split(text: &str, at: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == at && !quoted
    })
}
