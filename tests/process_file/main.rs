//! The main job as its user sees it: the program in a process of its own, a provider on a socket, files.
#![allow(clippy::unwrap_used)] // what cannot be unwrapped fails the test
mod bad_input;
mod common;
mod long;
mod output;
mod resume;
mod stall;
mod stop;
