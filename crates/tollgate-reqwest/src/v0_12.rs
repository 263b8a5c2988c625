//! For reqwest 0.12 and reqwest-middleware 0.4.
use std::error::Error as StdError;

use ::reqwest_0_12 as reqwest;
#[cfg(feature = "middleware-0-4")]
use ::reqwest_middleware_0_4 as reqwest_middleware;
use tollgate_core::classify::{Classify, Fault};

use crate::Reqwest;

// The same files serve both versions, whose interfaces differ in nothing that is used here.
#[cfg(feature = "middleware-0-4")]
#[path = "bridge.rs"]
mod bridge;
#[path = "faults.rs"]
mod faults;
#[cfg(feature = "middleware-0-4")]
#[path = "middleware.rs"]
mod middleware;
#[path = "service.rs"]
mod service;

#[cfg(feature = "middleware-0-4")]
#[cfg_attr(docsrs, doc(cfg(feature = "middleware-0-4")))]
pub use bridge::{BridgedMiddleware, PostFuture, PostService};
#[cfg(feature = "middleware-0-4")]
#[cfg_attr(docsrs, doc(cfg(feature = "middleware-0-4")))]
pub use middleware::{MiddlewareClient, NextService, TollgateMiddleware};
pub use service::{HttpService, ResponseFuture, into_response};

/// What this very error says, if it is one of this version; its causes are the caller's to ask.
pub(crate) fn fault_of(error: &(dyn StdError + 'static)) -> Option<Fault> {
    // Before the other: it stands for the client's error in a chain, which does not name that again.
    #[cfg(feature = "middleware-0-4")]
    if let Some(error) = error.downcast_ref::<reqwest_middleware::Error>() {
        return Some(Reqwest.classify(error));
    }
    let error = error.downcast_ref::<reqwest::Error>()?;
    Some(Reqwest.classify(error))
}
