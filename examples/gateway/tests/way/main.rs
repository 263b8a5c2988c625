//! Calls through a gateway on sockets, against the simulated provider.
mod basics;
mod common;
