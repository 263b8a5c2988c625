//! Ctrl-C, in two steps: the first one ends the run in order, the second one at once.
use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
};

use tokio::sync::Notify;

use crate::{progress::Progress, tally::Trip};

/// The exit code of a run that was stopped.
pub const STOPPED: u8 = 130;

/// Whether the run has been told to stop. Cloning shares it.
#[derive(Clone, Default)]
pub struct Stop(Arc<State>);

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    told: Notify,
}

impl Stop {
    /// Whether no more rows are to be begun.
    pub fn stopped(&self) -> bool {
        self.0.stopped.load(Relaxed)
    }

    /// Resolves when the run is told to stop; at once if it has been.
    pub async fn told(&self) {
        let told = self.0.told.notified();
        if !self.stopped() {
            told.await;
        }
    }

    /// Follows SIGINT and SIGTERM until the program ends. The second signal ends it.
    pub async fn follow_signals(&self, progress: &Progress) -> io::Result<Infallible> {
        let mut signals = Signals::new()?;
        signals.recv().await;
        progress.say("stopping: no more rows are sent, those at the provider are awaited; once more to stop at once");
        self.0.stopped.store(true, Relaxed);
        self.0.told.notify_waiters();
        signals.recv().await;
        process::exit(STOPPED.into());
    }

    /// Runs a row's call to its end; `None` if the run is stopped while the provider is not at work on it.
    ///
    /// A row that waits for its turn, or to try again, has nothing to lose: it runs when the job is resumed.
    pub async fn guard<F: Future>(&self, trip: &Trip, mut call: Pin<&mut F>) -> Option<F::Output> {
        let mut told = pin!(self.told());
        let mut heard = false;
        std::future::poll_fn(move |cx| {
            if let Poll::Ready(output) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if !heard {
                heard = told.as_mut().poll(cx).is_ready();
            }
            if heard && !trip.at_provider() {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn recv(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
