//! Reading the headers of all families.
use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::{Dimension, RateLimit, Reset, ResetKind, fields};
use crate::wire::time;

/// Which number of a limit a header states.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Limit,
    Remaining,
    Reset,
}

/// A header's name, taken apart.
struct Name<'h> {
    part: Part,
    dimension: &'h str,
    window: Option<&'h str>,
    /// Prefix of the dimension for tiers with limits of their own.
    tier: Option<&'static str>,
}

/// Most limits that one answer may state; more are not looked at.
pub(super) const MOST: usize = 32;

/// Reads every rate limit that the headers state; empty (and nothing allocated) if they state none.
///
/// `now` is used for resets that are dates when the answer has no `Date` of its own.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::{HeaderMap, HeaderValue};
/// use tollgate_core::wire::limits::{self, Dimension};
///
/// let mut headers = HeaderMap::new();
/// headers.insert("x-ratelimit-limit-requests", HeaderValue::from_static("500"));
/// headers.insert("x-ratelimit-remaining-requests", HeaderValue::from_static("499"));
/// headers.insert("x-ratelimit-reset-requests", HeaderValue::from_static("120ms"));
///
/// let limits = limits::from_headers(&headers, SystemTime::UNIX_EPOCH);
/// assert_eq!(limits[0].dimension, Dimension::Requests);
/// assert_eq!(limits[0].remaining, Some(499.0));
/// assert_eq!(limits[0].window_inferred(), Some(Duration::from_secs(60)));
/// ```
#[must_use]
pub fn from_headers(headers: &HeaderMap, now: SystemTime) -> Vec<RateLimit> {
    let mut found: Vec<RateLimit> = Vec::new();
    let mut draft: Vec<(bool, &str)> = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        // Nearly all headers end here.
        if !matches!(name.as_bytes().first(), Some(b'x' | b'r' | b'a')) {
            continue;
        }
        if matches!(name, "ratelimit" | "ratelimit-policy") {
            if let Ok(text) = value.to_str() {
                draft.push((name == "ratelimit-policy", text));
            }
            continue;
        }
        let Some(parts) = take_apart(name) else {
            continue;
        };
        let Ok(text) = value.to_str() else { continue };
        let text = text.trim();
        let dimension = match parts.tier {
            Some(tier) => Dimension::named(&format!("{tier}-{}", parts.dimension)),
            None => Dimension::named(parts.dimension),
        };
        let known = found
            .iter()
            .position(|l| l.dimension == dimension && l.window.as_deref() == parts.window);
        let number = match parts.part {
            Part::Reset => None,
            _ => finite(text),
        };
        if number.is_none() && (parts.part != Part::Reset || text.is_empty()) {
            continue;
        }
        let Some(index) = known.or_else(|| {
            (found.len() < MOST).then(|| {
                found.push(RateLimit {
                    dimension,
                    window: parts.window.map(Into::into),
                    limit: None,
                    remaining: None,
                    reset: None,
                });
                found.len() - 1
            })
        }) else {
            continue;
        };
        let limit = &mut found[index];
        match parts.part {
            Part::Limit => limit.limit = limit.limit.or(number),
            Part::Remaining => limit.remaining = limit.remaining.or(number),
            Part::Reset => {
                if limit.reset.is_none() {
                    limit.reset = reset(text, headers, now);
                }
            }
        }
    }
    if !draft.is_empty() {
        fields::read(&mut found, &draft);
    }
    found.retain(|l| l.limit.is_some() || l.remaining.is_some() || l.reset.is_some());
    found
}

fn take_apart(name: &str) -> Option<Name<'_>> {
    if let Some(rest) = name.strip_prefix("anthropic-") {
        let (tier, rest) = match rest.split_once('-')? {
            ("ratelimit", rest) => (None, rest),
            ("priority", rest) => (Some("priority"), rest),
            ("fast", rest) => (Some("fast"), rest),
            _ => return None,
        };
        // The limits of subscriptions are fractions of windows, not counts.
        if rest.starts_with("unified") {
            return None;
        }
        let (dimension, part) = rest.rsplit_once('-')?;
        return Some(Name {
            part: part_named(part)?,
            dimension,
            window: None,
            tier,
        });
    }
    let rest = name.strip_prefix("x-").unwrap_or(name);
    if let Some(rest) = rest.strip_prefix("ratelimitbysize-") {
        let (part, window) = rest.split_once('-').unwrap_or((rest, "bysize"));
        return Some(Name {
            part: part_named(part)?,
            dimension: "tokens",
            window: Some(window),
            tier: None,
        });
    }
    let rest = rest
        .strip_prefix("ratelimit-")
        .or_else(|| rest.strip_prefix("rate-limit-"))?;
    let (part, dimension) = rest.split_once('-').unwrap_or((rest, "requests"));
    let (dimension, window) = split_window(dimension);
    Some(Name {
        part: part_named(part)?,
        dimension,
        window,
        tier: None,
    })
}

fn part_named(name: &str) -> Option<Part> {
    match name {
        "limit" => Some(Part::Limit),
        "remaining" => Some(Part::Remaining),
        "reset" => Some(Part::Reset),
        _ => None,
    }
}

/// "req-10-second" is requests in a window of ten seconds.
fn split_window(name: &str) -> (&str, Option<&str>) {
    const UNITS: [&str; 6] = ["second", "minute", "hour", "day", "week", "month"];
    let Some((rest, last)) = name.rsplit_once('-') else {
        return if UNITS.contains(&name) {
            ("requests", Some(name))
        } else {
            (name, None)
        };
    };
    if !UNITS.contains(&last) {
        return (name, None);
    }
    match rest.rsplit_once('-') {
        Some((dimension, count)) if count.bytes().all(|b| b.is_ascii_digit()) => {
            (dimension, Some(&name[dimension.len() + 1..]))
        }
        _ => (rest, Some(last)),
    }
}

/// A number of the wire: finite, perhaps followed by parameters ("100, 100;w=60").
pub(super) fn finite(text: &str) -> Option<f64> {
    let text = text.split([',', ';']).next()?.trim();
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

fn reset(text: &str, headers: &HeaderMap, now: SystemTime) -> Option<Reset> {
    let from = || time::since_epoch(time::date(headers).unwrap_or(now));
    let raw: Box<str> = match text.char_indices().nth(64) {
        Some((end, _)) => text[..end].into(),
        None => text.into(),
    };
    let (kind, millis) = if let Some(number) = finite(text) {
        if is_azure(headers) {
            (ResetKind::AzureNumber, None)
        } else if number >= 1e11 {
            (ResetKind::EpochMillis, ms(number).checked_sub(from()))
        } else if number >= 1e9 {
            (
                ResetKind::EpochSeconds,
                ms(number * 1e3).checked_sub(from()),
            )
        } else {
            (ResetKind::Seconds, Some(ms(number * 1e3)))
        }
    } else if let Some(wait) = time::go_duration(text) {
        // To the nearest millisecond, as `limit / used × window` is only that sharp.
        let rounded = (wait + Duration::from_micros(500)).as_millis();
        (ResetKind::GoDuration, i64::try_from(rounded).ok())
    } else {
        let at = time::rfc3339(text)?;
        (ResetKind::Rfc3339, at.checked_sub(from()))
    };
    Some(Reset { raw, kind, millis })
}

/// Saturates, so that a hostile number is a far one.
fn ms(number: f64) -> i64 {
    number.round() as i64
}

/// Azure sends bare numbers whose unit differs by region and month; its answers are known by their other headers.
fn is_azure(headers: &HeaderMap) -> bool {
    headers.contains_key("apim-request-id")
        || headers.contains_key("x-ms-region")
        || headers.contains_key("x-ratelimit-renewalperiod-requests")
        || headers.contains_key("x-ratelimit-renewalperiod-tokens")
        || headers.contains_key("azureml-model-session")
}
