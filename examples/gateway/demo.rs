//! The simulated provider behind a gateway without arguments.
use std::{io, time::Duration};

use tollgate_sim::{Latency, SimProvider, server::Server};

use crate::config::{Config, ConfigError};

/// Starts one in this process, behind a real socket.
///
/// # Errors
///
/// If no port is free.
pub async fn provider() -> io::Result<Server> {
    let provider = SimProvider::builder()
        .requests(600)
        .tokens(60_000)
        .latency(Latency::LogNormal {
            median: Duration::from_millis(150),
            sigma: 0.4,
        })
        .pace(Duration::from_millis(20))
        .keep_requests(1_000)
        .epoch(tollgate::clock::wall())
        .build();
    Server::bind("127.0.0.1:0", provider).await
}

/// A configuration with that provider behind it, in both dialects.
///
/// # Errors
///
/// If `listen` is no address.
pub fn config(listen: &str, provider: &str) -> Result<Config, ConfigError> {
    let text = format!(
        r#"
        listen = "{listen}"
        [[target]]
        name = "simulator"
        origin = "{provider}"
        limits = [{{ requests = 600, per = "minute" }}, {{ tokens = 60_000, per = "minute" }}]
        [[target]]
        name = "simulator-anthropic"
        origin = "{provider}"
        dialect = "anthropic"
        limits = [{{ requests = 600, per = "minute" }}, {{ tokens = 60_000, per = "minute" }}]
        [prices]
        shipped = true
        "#
    );
    Config::parse(&text, &|_| None)
}
