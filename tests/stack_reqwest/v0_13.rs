//! reqwest 0.13 and reqwest-middleware 0.5.
use ::reqwest;
use ::reqwest_middleware;
use tollgate_reqwest::v0_13 as adapter;

#[path = "bodies.rs"]
mod bodies;
#[path = "bridged.rs"]
mod bridged;
#[path = "errors.rs"]
mod errors;
#[path = "extensions.rs"]
mod extensions;
// Of one version, for there are many stacks to compile.
#[path = "orders.rs"]
mod orders;
#[path = "stacks.rs"]
mod stacks;
#[path = "urls.rs"]
mod urls;
