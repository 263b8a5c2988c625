//! Runs the gateway.
//!
//! ```sh
//! # With a simulated provider behind it, no key and no network needed:
//! cargo run --release --example gateway
//!
//! # Your own:
//! cargo run --release --example gateway -- --config gateway.toml
//! ```
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tollgate_gateway::cli::main().await
}
