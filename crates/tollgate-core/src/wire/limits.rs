//! The rate-limit headers of all providers, as one list.
use std::{borrow::Cow, time::Duration};

use super::time;

mod fields;
mod read;

pub use read::from_headers;

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

#[cfg(test)]
mod tests;
