//! The simulated provider for runs without arguments, in this very process but behind a real socket.
use std::{io, time::Duration};

use tollgate_sim::{Enforcement, FaultMix, Latency, SimProvider, server::Server};

/// Requests in each window.
pub const REQUESTS: u64 = 560;
/// Tokens in each window.
pub const TOKENS: u64 = 50_000;
/// The window: short, so that a look at it does not take long.
pub const WINDOW: Duration = Duration::from_secs(5);

/// Starts a provider whose limits are tight for the sample, and that now and then fails.
pub async fn start() -> io::Result<Server> {
    let provider = SimProvider::builder()
        .requests(REQUESTS)
        .tokens(TOKENS)
        .window(WINDOW)
        .enforcement(Enforcement::Bucket { burst: None })
        .latency(Latency::LogNormal {
            median: Duration::from_millis(250),
            sigma: 0.4,
        })
        .mix(FaultMix::standard().scaled_to(2.0))
        .build();
    Server::bind("127.0.0.1:0", provider).await
}
