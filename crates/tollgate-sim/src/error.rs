//! What can go wrong between a caller and the simulated provider.
use std::{error::Error, fmt};

use tollgate_core::classify::{Classify, Fault};

/// A transport error, as a client of a real provider would see it.
///
/// The simulated provider never makes one up: each is scripted by the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SimError {
    /// The connection was refused: nothing was sent.
    Refused,
    /// No connection in time: nothing was sent.
    ConnectTimeout,
    /// No answer in time.
    Timeout,
    /// The connection was reset after the request was sent and before an answer.
    Reset,
    /// The answer's body broke off.
    Broken,
    /// The request's body failed while it was read.
    RequestBody,
}

impl SimError {
    /// Whether the provider may have seen the request.
    #[must_use]
    pub fn sent(self) -> bool {
        !matches!(self, Self::Refused | Self::ConnectTimeout)
    }
}

impl fmt::Display for SimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::ConnectTimeout => "no connection in time",
            Self::Timeout => "no answer in time",
            Self::Reset => "connection reset by peer",
            Self::Broken => "connection closed before the message was complete",
            Self::RequestBody => "the request body failed while it was read",
        })
    }
}

impl Error for SimError {}

/// Tells the layers what a [`SimError`] means.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimClassify;

impl Classify<SimError> for SimClassify {
    fn classify(&self, error: &SimError) -> Fault {
        match error {
            SimError::Refused => Fault::NotSent,
            SimError::ConnectTimeout => Fault::ConnectTimeout,
            SimError::Timeout => Fault::Timeout,
            _ => Fault::MaybeSent,
        }
    }
}
