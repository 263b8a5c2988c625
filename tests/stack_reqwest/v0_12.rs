//! reqwest 0.12 and reqwest-middleware 0.4.
use reqwest_0_12 as reqwest;
use reqwest_middleware_0_4 as reqwest_middleware;
use tollgate_reqwest::v0_12 as adapter;

#[path = "bodies.rs"]
mod bodies;
#[path = "bridged.rs"]
mod bridged;
#[path = "errors.rs"]
mod errors;
#[path = "extensions.rs"]
mod extensions;
#[path = "stacks.rs"]
mod stacks;
#[path = "urls.rs"]
mod urls;
