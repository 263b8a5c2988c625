//! The layers over reqwest, as its services and as a middleware, on a real socket on loopback. X05.
// The same cases for both versions.
#![allow(clippy::duplicate_mod)]

mod upstream;
mod v0_12;
mod v0_13;
