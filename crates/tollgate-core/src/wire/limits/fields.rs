//! The structured fields of the IETF draft: `RateLimit` and `RateLimit-Policy`.
use super::{
    Dimension, RateLimit, Reset, ResetKind,
    read::{MOST, finite},
};

/// One item of either header.
struct Item<'h> {
    name: &'h str,
    half: RateLimit,
}

/// Reads both headers: `(policy, text)` for each that came. A policy and what is left of it meet by name; those that no
/// name brings together meet in their order.
///
/// Lenient: some servers put several bare strings before the parameters, or none at all, and some give the two headers
/// different names.
pub(super) fn read(found: &mut Vec<RateLimit>, headers: &[(bool, &str)]) {
    let (mut policies, mut remainders) = (Vec::new(), Vec::new());
    for &(policy, text) in headers {
        items(
            if policy {
                &mut policies
            } else {
                &mut remainders
            },
            policy,
            text,
        );
    }
    let mut pair = |meet: &dyn Fn(&Item<'_>, &Item<'_>) -> bool| {
        remainders.retain(|rest| {
            let Some(at) = policies.iter().position(|policy| {
                policy.half.remaining.is_none() && policy.half.reset.is_none() && meet(policy, rest)
            }) else {
                return true;
            };
            let policy = &mut policies[at].half;
            policy.remaining = rest.half.remaining;
            policy.reset = rest.half.reset.clone();
            false
        });
    };
    pair(&|policy, rest| !rest.name.is_empty() && policy.name == rest.name);
    pair(&|policy, rest| policy.half.dimension == rest.half.dimension);
    for Item { half, .. } in policies {
        add(found, half, |other| {
            other.limit.is_none() && other.window.is_none()
        });
    }
    for Item { half, .. } in remainders {
        add(found, half, |other| {
            other.remaining.is_none() && other.reset.is_none()
        });
    }
}

fn items<'h>(list: &mut Vec<Item<'h>>, policy: bool, text: &'h str) {
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
        if (first.is_none() && second.is_none()) || list.len() >= MOST {
            continue;
        }
        let dimension = match unit {
            Some("requests") => Dimension::Requests,
            Some(unit) => Dimension::named(unit),
            None if name.contains("token") => Dimension::Tokens,
            None => Dimension::Requests,
        };
        let half = if policy {
            RateLimit {
                dimension,
                window: second.map(window_name),
                limit: first,
                remaining: None,
                reset: None,
            }
        } else {
            RateLimit {
                dimension,
                window: None,
                limit: None,
                remaining: first,
                reset: second.map(reset),
            }
        };
        list.push(Item { name, half });
    }
}

/// Adds what was read to a limit that other headers state and that lacks it, or else as a limit of its own.
fn add(found: &mut Vec<RateLimit>, half: RateLimit, lacks: impl Fn(&RateLimit) -> bool) {
    let other = found
        .iter_mut()
        .find(|other| other.dimension == half.dimension && lacks(other));
    if let Some(other) = other {
        other.limit = other.limit.or(half.limit);
        other.window = other.window.take().or(half.window);
        other.remaining = other.remaining.or(half.remaining);
        other.reset = other.reset.take().or(half.reset);
    } else if found.len() < MOST {
        found.push(half);
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
