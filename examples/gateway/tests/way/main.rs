//! Calls through a gateway on sockets, against the simulated provider.
mod basics;
mod caps;
mod chains;
mod common;
mod end;
mod pages;
mod paths;
#[cfg(target_os = "linux")]
mod process;
mod shared;
mod silence;
mod upstream;
