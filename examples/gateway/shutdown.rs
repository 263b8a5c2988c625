//! What ends the process: a signal or a time in order, one more signal at once.
use std::time::Duration;

/// Resolves at SIGINT or SIGTERM, or after a time; a signal from then on ends the process.
pub async fn wanted(after: Option<Duration>) {
    // Whoever has once listened to a signal has taken it from the system: it is listened to until the end.
    let mut signals = Signals::new();
    match after {
        Some(time) => tokio::select! {
            () = signals.next() => {}
            () = tokio::time::sleep(time) => {}
        },
        None => signals.next().await,
    }
    tracing::info!("stopping: answers under way may end; a signal stops at once");
    tokio::spawn(async move {
        signals.next().await;
        std::process::exit(130);
    });
}

#[cfg(unix)]
struct Signals(Option<[tokio::signal::unix::Signal; 2]>);

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let both = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Self(match both {
            [Ok(interrupt), Ok(terminate)] => Some([interrupt, terminate]),
            _ => None,
        })
    }

    async fn next(&mut self) {
        let Some([interrupt, terminate]) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
