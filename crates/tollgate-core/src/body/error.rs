//! How a body that is handed on may fail.
use std::{error::Error as StdError, fmt};

use crate::{BoxError, wire::outcome::TimeoutKind};

/// The error of a body that a layer may time out: the body's own, or that its next frame did not come.
///
/// ```
/// use tollgate_core::{body::BodyError, wire::outcome::TimeoutKind};
///
/// let own: BodyError<std::io::Error> = BodyError::Inner(std::io::Error::other("reset"));
/// assert_eq!(own.to_string(), "reset");
/// assert_eq!(own.into_inner().unwrap().to_string(), "reset");
/// let stalled = BodyError::<std::io::Error>::IdleTimeout;
/// assert_eq!(stalled.timed_out(), Some(TimeoutKind::Idle));
/// ```
///
/// It turns into a [`BoxError`], and so goes wherever a body's error goes (hyper, axum, reqwest, `?`): the body's own
/// error comes out unchanged, with all its causes, and a timeout as [`TimedOutBody`]. It is no `Error`
/// itself, for then it could not hold a boxed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BodyError<E> {
    /// The body's own.
    Inner(E),
    /// No frame came for longer than the idle timeout.
    IdleTimeout,
    /// The call's deadline, or its total timeout, has passed.
    TotalTimeout,
}

impl<E> BodyError<E> {
    /// The body's own error; `None` for a timeout of ours.
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            _ => None,
        }
    }

    /// What was waited for in vain; `None` for the body's own error.
    pub fn timed_out(&self) -> Option<TimeoutKind> {
        match self {
            Self::Inner(_) => None,
            Self::IdleTimeout => Some(TimeoutKind::Idle),
            Self::TotalTimeout => Some(TimeoutKind::Total),
        }
    }
}

impl<E: fmt::Display> fmt::Display for BodyError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inner(error) => error.fmt(f),
            Self::IdleTimeout => f.write_str(sentence(TimeoutKind::Idle)),
            Self::TotalTimeout => f.write_str(sentence(TimeoutKind::Total)),
        }
    }
}

impl<E: Into<Self>> From<BodyError<E>> for BoxError {
    fn from(error: BodyError<E>) -> Self {
        match error.timed_out() {
            Some(what) => Box::new(TimedOutBody { what }),
            None => error.into_inner().expect("no timeout").into(),
        }
    }
}

impl<E: Into<BoxError>> From<BodyError<E>> for Box<dyn StdError> {
    fn from(error: BodyError<E>) -> Self {
        BoxError::from(error)
    }
}

/// A body that was given up waiting for: what a timeout of [`BodyError`] is when it is boxed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimedOutBody {
    /// What was waited for in vain.
    pub what: TimeoutKind,
}

impl fmt::Display for TimedOutBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(sentence(self.what))
    }
}

impl StdError for TimedOutBody {}

fn sentence(what: TimeoutKind) -> &'static str {
    match what {
        TimeoutKind::Idle => "the answer stalled for longer than the idle timeout",
        _ => "the call's time was over before its answer was",
    }
}
