//! Signals that end the process: the first one in order, the second one at once.

/// Resolves at SIGINT or SIGTERM; another one ends the process.
pub async fn signal() {
    one().await;
    tracing::info!("stopping: answers under way may end; once more to stop at once");
    tokio::spawn(async {
        one().await;
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn one() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn one() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
