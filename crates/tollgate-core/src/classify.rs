//! What a transport error means, asked of the one who knows the transport.
//!
//! The layers are generic over the inner service's error and never look into it. Whether a failed
//! attempt may have reached the provider is asked of a [`Classify`].
use std::{error::Error as StdError, io};

use crate::{
    BoxError,
    wire::outcome::{TimeoutKind, Verdict},
};

/// What a transport error says about the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing was sent: connection refused, no route, no such host, TLS refused.
    NotSent,
    /// No connection in time; nothing was sent.
    ConnectTimeout,
    /// The request, or part of it, may have been received.
    MaybeSent,
    /// It was sent and no answer came in time.
    Timeout,
}

impl Fault {
    /// Whether the provider may have seen the request, and so may charge for it.
    #[must_use]
    pub fn maybe_sent(self) -> bool {
        matches!(self, Self::MaybeSent | Self::Timeout)
    }
}

/// What a transport error means for the call.
///
/// ```
/// use tollgate_core::{classify::Fault, wire::outcome::{Outcome, TimeoutKind, Verdict}};
///
/// let verdict = Verdict::from(Fault::ConnectTimeout);
/// assert_eq!(verdict.outcome, Outcome::Timeout { what: TimeoutKind::Connect });
/// ```
impl From<Fault> for Verdict {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotSent => Self::unreachable(false),
            Fault::ConnectTimeout => Self::timeout(TimeoutKind::Connect),
            Fault::MaybeSent => Self::unreachable(true),
            Fault::Timeout => Self::timeout(TimeoutKind::Client),
        }
    }
}

/// Tells what an error of type `E` means.
///
/// ```
/// use tollgate_core::classify::{By, Classify, Fault, Opaque};
///
/// #[derive(Debug)]
/// struct MyError { connected: bool }
///
/// let mine = By(|e: &MyError| if e.connected { Fault::MaybeSent } else { Fault::NotSent });
/// assert_eq!(mine.classify(&MyError { connected: false }), Fault::NotSent);
/// // Who knows nothing must assume that it was sent.
/// assert_eq!(Opaque.classify(&MyError { connected: false }), Fault::MaybeSent);
/// ```
pub trait Classify<E> {
    /// Looks at one error.
    fn classify(&self, error: &E) -> Fault;
}

/// Knows nothing: every error may have come after the request was sent. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Opaque;

impl<E> Classify<E> for Opaque {
    fn classify(&self, _: &E) -> Fault {
        Fault::MaybeSent
    }
}

/// A function as a classifier.
#[derive(Clone, Copy, Debug)]
pub struct By<F>(pub F);

impl<E, F: Fn(&E) -> Fault> Classify<E> for By<F> {
    fn classify(&self, error: &E) -> Fault {
        (self.0)(error)
    }
}

/// Reads the chain of causes: I/O errors and, with feature `hyper-util`, its client's errors.
///
/// Works for [`BoxError`] and, through [`Causes::of`], for every error that can be borrowed as
/// `dyn Error`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Causes;

impl Causes {
    /// Classifies by the first cause that tells.
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Fault {
        let mut cause = Some(error);
        while let Some(error) = cause {
            #[cfg(feature = "hyper-util")]
            if let Some(client) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
                if client.is_connect() {
                    return if timed_out(error) {
                        Fault::ConnectTimeout
                    } else {
                        Fault::NotSent
                    };
                }
            }
            if let Some(io) = error.downcast_ref::<io::Error>() {
                match io.kind() {
                    io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::AddrNotAvailable
                    | io::ErrorKind::NotFound => return Fault::NotSent,
                    io::ErrorKind::TimedOut => return Fault::Timeout,
                    _ => {}
                }
                // `source` of an I/O error skips the very error that it wraps.
                if let Some(inner) = io.get_ref() {
                    cause = Some(inner);
                    continue;
                }
            }
            cause = error.source();
        }
        Fault::MaybeSent
    }
}

#[cfg(feature = "hyper-util")]
fn timed_out(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|io| io.kind() == io::ErrorKind::TimedOut)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Classify<BoxError> for Causes {
    fn classify(&self, error: &BoxError) -> Fault {
        Self::of(&**error)
    }
}

/// [`Causes`] for the error of hyper-util's client.
#[cfg(feature = "hyper-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "hyper-util")))]
#[derive(Clone, Copy, Debug, Default)]
pub struct HyperUtil;

#[cfg(feature = "hyper-util")]
impl Classify<hyper_util::client::legacy::Error> for HyperUtil {
    fn classify(&self, error: &hyper_util::client::legacy::Error) -> Fault {
        Causes::of(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_was_not_sent_and_a_reset_may_have_been() {
        let refused: BoxError = Box::new(io::Error::from(io::ErrorKind::ConnectionRefused));
        let reset: BoxError = Box::new(io::Error::from(io::ErrorKind::ConnectionReset));
        assert_eq!(Causes.classify(&refused), Fault::NotSent);
        assert_eq!(Causes.classify(&reset), Fault::MaybeSent);
    }

    #[test]
    fn a_cause_is_found_behind_a_wrapper() {
        let inner = io::Error::from(io::ErrorKind::ConnectionRefused);
        let wrapped: BoxError = Box::new(io::Error::other(inner));
        assert_eq!(Causes.classify(&wrapped), Fault::NotSent);
    }
}
