//! Whose requests a limit counts: models, keys, and the functions that find a key in a request.
use std::{fmt, sync::Arc};

use http::{Extensions, HeaderMap, Method, Uri};
use tollgate_core::{call::Call, principal::Principal, wire::prompt::RequestFacts};

use crate::{
    engine::{core::Asked, rule::Rule},
    review::{Decision, ReviewFn},
};

/// Keys of a request beside its model and principal, for limits of those scopes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Keys {
    /// The tenant.
    pub tenant: Option<Principal>,
    /// The tag.
    pub tag: Option<Principal>,
    /// The API key that it is sent with.
    pub api_key: Option<Principal>,
    /// One for each limit with a function of its own ([`Limit::keyed_by`](crate::Limit::keyed_by)), in the order in
    /// which the limits were told.
    pub custom: Vec<Option<Principal>>,
}

/// A request as a key function sees it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Asking<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its address.
    pub uri: &'a Uri,
    /// Its headers, with whatever secrets they hold: return a digest of what you read.
    pub headers: &'a HeaderMap,
    /// Its extensions.
    pub extensions: &'a Extensions,
    /// What its document says; `None` if it is not read.
    pub facts: Option<&'a RequestFacts>,
    /// The call that it belongs to.
    pub call: &'a Call,
}

impl Asking<'_> {
    /// A digest of a header's value, keyed with a secret of this process; `None` if there is no such header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Principal> {
        let value = self.headers.get(name)?;
        Some(Principal::of_bytes(value.as_bytes()))
    }
}

type FindKey = dyn Fn(&Asking<'_>) -> Option<Principal> + Send + Sync;

/// A key function.
#[derive(Clone)]
pub(crate) struct KeyFn(pub(crate) Arc<FindKey>);

impl fmt::Debug for KeyFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyFn")
    }
}

/// What the limits of a budget look at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    api_key: bool,
    custom: Vec<KeyFn>,
    /// By limit; empty where none is reviewed.
    reviews: Vec<Option<ReviewFn>>,
}

impl Look {
    pub(crate) fn new(rules: &[Rule], custom: Vec<KeyFn>, reviews: Vec<Option<ReviewFn>>) -> Self {
        let reviewed = reviews.iter().any(Option::is_some);
        let api_key = |rule: &Rule| rule.scope == crate::Scope::ApiKey;
        Self {
            api_key: rules.iter().any(api_key),
            custom,
            reviews: if reviewed { reviews } else { Vec::new() },
        }
    }

    pub(crate) fn reviews(&self) -> bool {
        !self.reviews.is_empty()
    }

    /// Runs a review function, which is foreign code: no lock is held.
    pub(crate) fn decide(&self, asked: &Asked) -> Decision {
        match self.reviews.get(asked.rule as usize) {
            Some(Some(decide)) => (decide.0)(&asked.review),
            _ => Decision::Refuse,
        }
    }

    /// Runs the key functions, which are foreign code: no lock is held.
    pub(crate) fn fill(&self, keys: &mut Keys, asking: &Asking<'_>) {
        if self.api_key {
            keys.api_key = Principal::of_credential(asking.headers);
        }
        if !self.custom.is_empty() {
            keys.custom = self.custom.iter().map(|key| (key.0)(asking)).collect();
        }
    }
}

/// The models that a limit concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Models(pub(crate) Box<[Box<str>]>);

impl Models {
    pub(crate) fn contain(&self, model: Option<&str>) -> bool {
        let Some(model) = model else { return false };
        self.0.iter().any(|name| match name.strip_suffix('*') {
            Some(start) => model.starts_with(start),
            None => model == &**name,
        })
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            return Err("a family of models needs at least one");
        }
        if self.0.iter().any(|name| name.is_empty()) {
            return Err("a model's name must not be empty");
        }
        let inner = |name: &str| name.strip_suffix('*').unwrap_or(name).contains('*');
        if self.0.iter().any(|name| inner(name)) {
            return Err("a star may stand at the end of a model's name only");
        }
        Ok(())
    }
}
