//! What an error of reqwest says about the request.
use std::error::Error as StdError;

use tollgate_core::{
    BoxError,
    classify::{Causes, Classify, Fault},
};

/// Classifies the errors of reqwest and of reqwest-middleware, of every version that is switched on.
///
/// A connection that failed has sent nothing; a timeout of reqwest's own is one, and it was sent. Behind a boxed error, and behind
/// one of a foreign middleware, the chain of causes is searched for the client's error; without one it is read like
/// [`Causes`] reads it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reqwest;

impl Reqwest {
    /// Classifies by the first cause that tells.
    #[must_use]
    pub fn of(error: &(dyn StdError + 'static)) -> Fault {
        let mut cause = Some(error);
        while let Some(error) = cause {
            #[cfg(feature = "v0-13")]
            if let Some(fault) = crate::v0_13::fault_of(error) {
                return fault;
            }
            #[cfg(feature = "v0-12")]
            if let Some(fault) = crate::v0_12::fault_of(error) {
                return fault;
            }
            cause = error.source();
        }
        Causes::of(error)
    }
}

impl Classify<BoxError> for Reqwest {
    fn classify(&self, error: &BoxError) -> Fault {
        Self::of(&**error)
    }
}
