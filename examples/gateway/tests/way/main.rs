//! Calls through a gateway on sockets, against the simulated provider.
mod basics;
mod chains;
mod common;
mod pages;
mod paths;
#[cfg(target_os = "linux")]
mod process;
mod shared;
mod upstream;
