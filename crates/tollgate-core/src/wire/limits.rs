//! The rate-limit headers of all providers, as one list.
use std::{
    borrow::Cow,
    time::{Duration, SystemTime},
};

use http::HeaderMap;

use super::time;

mod fields;

/// What a limit counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dimension {
    /// Requests.
    Requests,
    /// Input and output tokens together.
    Tokens,
    /// Input tokens.
    InputTokens,
    /// Output tokens.
    OutputTokens,
    /// Images in the input.
    InputImages,
    /// Tokens of the whole project (OpenAI).
    ProjectTokens,
    /// Any other that a header names, lower-case with underscores.
    Other(Box<str>),
}

impl Dimension {
    /// The name, lower-case with underscores.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::InputImages => "input_images",
            Self::ProjectTokens => "project_tokens",
            Self::Other(name) => name,
        }
    }

    /// The dimension of that name, with hyphens or underscores.
    pub(crate) fn named(name: &str) -> Self {
        let name = if name.contains('-') {
            Cow::Owned(name.replace('-', "_"))
        } else {
            Cow::Borrowed(name)
        };
        match &*name {
            "requests" | "request" | "req" => Self::Requests,
            "tokens" | "token" => Self::Tokens,
            "input_tokens" | "tokens_prompt" | "prompt_tokens" => Self::InputTokens,
            "output_tokens" | "tokens_generated" | "generated_tokens" => Self::OutputTokens,
            "input_images" => Self::InputImages,
            "project_tokens" => Self::ProjectTokens,
            other => Self::Other(other.into()),
        }
    }
}

/// One limit as the headers of one answer state it.
///
/// Numbers come from the wire: `remaining` may be negative or more than `limit`, either may be fractional.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct RateLimit {
    /// What it counts.
    pub dimension: Dimension,
    /// The window that the header's name states, if it does ("minute", "day", "10-second").
    pub window: Option<Box<str>>,
    /// Units in all; always finite.
    pub limit: Option<f64>,
    /// Units left; always finite.
    pub remaining: Option<f64>,
    /// When it is full again.
    pub reset: Option<Reset>,
}

impl RateLimit {
    /// The length of the window that the header's name states.
    #[must_use]
    pub fn window(&self) -> Option<Duration> {
        let name = self.window.as_deref()?;
        let (count, unit) = match name.split_once('-') {
            Some((count, unit)) => (count.parse::<u32>().ok()?, unit),
            None => (1, name),
        };
        let unit = match unit {
            "second" => 1,
            "minute" => 60,
            "hour" => 3_600,
            "day" => 86_400,
            "week" => 7 * 86_400,
            "month" => 30 * 86_400,
            _ => return None,
        };
        Some(Duration::from_secs(unit) * count)
    }

    /// The window that follows from how full the limit is and how long it takes to be full again:
    /// `limit × reset / (limit − remaining)`.
    ///
    /// It holds for the providers whose buckets refill continuously and who spell the reset as a Go duration (OpenAI, Groq). With a low tier
    /// `limit-requests` counts requests a day, and only this tells so. `None` if the limit is full, or if the reset is
    /// too short to say anything (below 1 ms).
    #[must_use]
    pub fn window_inferred(&self) -> Option<Duration> {
        let reset = self.reset.as_ref()?;
        let (limit, remaining) = (self.limit?, self.remaining?);
        let used = limit - remaining;
        if reset.kind != ResetKind::GoDuration || used <= 0.0 || limit <= 0.0 {
            return None;
        }
        let reset = time::go_duration(&reset.raw)?;
        if reset < Duration::from_millis(1) {
            return None;
        }
        Duration::try_from_secs_f64(reset.as_secs_f64() * limit / used)
            .ok()
            .map(|window| window.min(time::LONGEST))
    }
}

/// The reset of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reset {
    /// As sent, cut at 64 bytes.
    pub raw: Box<str>,
    /// Its syntax.
    pub kind: ResetKind,
    /// Milliseconds from the answer's own `Date` until the reset; negative: it lies in the past.
    /// `None`: it cannot be known.
    pub millis: Option<i64>,
}

impl Reset {
    /// Time until the reset; zero if it lies in the past, `None` if it cannot be known.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        self.millis
            .map(|ms| Duration::from_millis(ms.max(0).unsigned_abs()))
    }
}

/// The syntax of a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResetKind {
    /// `6m0s`, `12ms`.
    GoDuration,
    /// `2026-09-11T06:27:29Z`.
    Rfc3339,
    /// Seconds from now, perhaps with a fraction.
    Seconds,
    /// Seconds since 1970.
    EpochSeconds,
    /// Milliseconds since 1970.
    EpochMillis,
    /// Azure's bare number, whose unit has changed over time.
    AzureNumber,
}

impl ResetKind {
    /// A short name: `go-duration`, `rfc3339`, `seconds`, `epoch-s`, `epoch-ms`, `azure-number`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::GoDuration => "go-duration",
            Self::Rfc3339 => "rfc3339",
            Self::Seconds => "seconds",
            Self::EpochSeconds => "epoch-s",
            Self::EpochMillis => "epoch-ms",
            Self::AzureNumber => "azure-number",
        }
    }
}

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
const MOST: usize = 32;

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
    for (name, value) in headers {
        let name = name.as_str();
        // Nearly all headers end here.
        if !matches!(name.as_bytes().first(), Some(b'x' | b'r' | b'a')) {
            continue;
        }
        if matches!(name, "ratelimit" | "ratelimit-policy") {
            if let Ok(text) = value.to_str() {
                fields::read(&mut found, name == "ratelimit-policy", text);
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
fn finite(text: &str) -> Option<f64> {
    let text = text.split([',', ';']).next()?.trim();
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite())
}

fn reset(text: &str, headers: &HeaderMap, now: SystemTime) -> Option<Reset> {
    let from = || time::since_epoch(time::date(headers).unwrap_or(now));
    let raw: Box<str> = text.chars().take(64).collect::<String>().into();
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
#[expect(clippy::cast_possible_truncation)]
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

#[cfg(test)]
mod tests;
