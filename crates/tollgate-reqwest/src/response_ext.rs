//! What the layers have left on a response, read from reqwest's own type.
use http::Extensions;
use tollgate_core::{
    call::{Attempt, Call},
    extensions::{GaveUp, Refused, ServedBy, TimedOut},
};

/// Reads from a `reqwest::Response` what the layers have left on it.
///
/// Of an `http::Response` the same is asked by `Attempts::of`, `Refused::of` and so on.
pub trait ResponseExt {
    /// The extensions of the response.
    fn left(&self) -> &Extensions;

    /// The attempts that led to it, in the order in which they were begun; empty if no layer has seen it.
    fn attempts(&self) -> Vec<Attempt> {
        self.left()
            .get::<Call>()
            .map(Call::attempts)
            .unwrap_or_default()
    }

    /// The refusal, if it is one of ours and not the provider's.
    fn refused(&self) -> Option<&Refused> {
        self.left().get()
    }

    /// Which model and target served it, if a fallback layer has seen it.
    fn served_by(&self) -> Option<&ServedBy> {
        self.left().get()
    }

    /// Why it was not tried again; `None` if it was served or is a refusal of ours.
    fn gave_up(&self) -> Option<&GaveUp> {
        self.left().get()
    }

    /// What a layer of ours has waited for in vain.
    fn timed_out(&self) -> Option<&TimedOut> {
        self.left().get()
    }
}
