//! How a body that is handed on may fail.
use std::{error::Error as StdError, fmt};

use crate::wire::outcome::TimeoutKind;

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
/// It is an [`Error`](StdError) whatever the inner error is, a boxed one included; a boxed error is no `Error`
/// itself, which is why no [`source`](StdError::source) is given. [`into_inner`](Self::into_inner) has the cause.
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
            Self::IdleTimeout => f.write_str("the answer stalled for longer than the idle timeout"),
            Self::TotalTimeout => f.write_str("the call's time was over before its answer was"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> StdError for BodyError<E> {}
