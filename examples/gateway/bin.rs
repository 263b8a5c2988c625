//! The same program under a name of its own, for `cargo install --path examples/gateway`, and for the tests.
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    tollgate_gateway::cli::main().await
}
