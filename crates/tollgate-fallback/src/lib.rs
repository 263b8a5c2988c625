//! A tower layer that sends a failed LLM call to the next model of a chain.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod candidate;
mod chain;
mod cooling;
mod credential;
mod decide;
mod future;
mod health;
mod kept;
mod layer;
mod path;
mod policy;
mod rewrite;
mod run;
mod service;
mod target;

pub use self::{
    candidate::Candidate,
    chain::{InvalidChain, ModelChain},
    credential::Credential,
    future::ResponseFuture,
    health::{FallbackHealth, HealthSnapshot, TargetSnapshot, TargetState},
    layer::ModelFallbackLayer,
    policy::{FallbackPolicy, OnExhausted},
    service::ModelFallback,
    target::Target,
};
