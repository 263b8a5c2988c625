//! What the errors of one version say, and what the layers have left on its responses.
use http::Extensions;
use tollgate_core::classify::{Causes, Classify, Fault};

use super::reqwest;
use crate::{Reqwest, ResponseExt};

impl Classify<reqwest::Error> for Reqwest {
    fn classify(&self, error: &reqwest::Error) -> Fault {
        match (error.is_connect(), error.is_timeout()) {
            (true, true) => Fault::ConnectTimeout,
            // Also at the second hop of a redirect, whose first one has answered without serving it.
            (true, false) => Fault::NotSent,
            (false, true) => Fault::Timeout,
            // The request itself could not be made: no URL that can be sent to.
            (false, false) if error.is_builder() => Fault::NotSent,
            (false, false) => Causes::of(error),
        }
    }
}

impl ResponseExt for reqwest::Response {
    fn left(&self) -> &Extensions {
        self.extensions()
    }
}
