//! The handle: records go in, and it tells how they fare.
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tollgate_usage::{Recorder, SinkQueue, UsageRecord};

use crate::{
    Reader,
    error::{LedgerError, LedgerErrorKind},
    schema,
    writer::{self, State, Writer},
};

/// Keeps records in an SQLite file: a handle, made first and passed to the layer.
///
/// Clones share the file, the queue of 10,000 records and the thread that writes. A call pays for a copy of its record and a
/// place in the queue, never for the disk. If the disk fails (full, locked, read-only, damaged) the records stay in the queue and are
/// tried again, until it works or the last handle is gone; what finds the queue full is dropped and counted. See
/// [`snapshot`](Self::snapshot).
///
/// What was [`written`](LedgerSnapshot::written) is kept: through a panic, `kill -9` and a power cut.
#[derive(Clone)]
pub struct Ledger {
    queue: SinkQueue,
    state: Arc<State>,
    path: Arc<PathBuf>,
}

impl Ledger {
    /// Opens the ledger, or makes it if there is none, and starts its thread.
    ///
    /// Several processes may write to one. An older version of the file is brought to this one's.
    ///
    /// Blocks for some milliseconds: it reads the disk.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened or written, is none of ours, or was written by a later version.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, LedgerError> {
        Self::with_capacity(10_000, path)
    }

    /// The same with a queue of `capacity` records.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), and if `capacity` is 0.
    pub fn with_capacity(capacity: usize, path: impl Into<PathBuf>) -> Result<Self, LedgerError> {
        let path = path.into();
        let db = schema::open(&path)?;
        let state = Arc::new(State::default());
        let writer = Writer::new(path.clone(), db, Arc::downgrade(&state));
        let queue = SinkQueue::with_capacity(capacity, writer)
            .map_err(|error| LedgerError::new(LedgerErrorKind::Other, error.to_string()))?;
        let path = Arc::new(path);
        Ok(Self { queue, state, path })
    }

    /// Where the file is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it fares now.
    #[must_use]
    pub fn snapshot(&self) -> LedgerSnapshot {
        let queue = self.queue.snapshot();
        LedgerSnapshot {
            under_way: queue.under_way,
            queued: queue.queued,
            written: queue.written,
            dropped: queue.dropped,
            failures: self.state.failures(),
            error: self.state.error(),
        }
    }

    /// Waits until no call is under way and every record that was taken is on the disk, at most `timeout` long. For the
    /// end of the process, which waits for nobody.
    ///
    /// # Errors
    ///
    /// After `timeout`, with what is missing and why. It goes on being written.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its timer enabled.
    pub async fn flush(&self, timeout: Duration) -> Result<(), LedgerError> {
        let Err(missing) = self.queue.flush(timeout).await else {
            return Ok(());
        };
        let detail = match self.state.error() {
            Some(error) => format!("{missing}; {error}"),
            None => missing.to_string(),
        };
        Err(LedgerError::new(LedgerErrorKind::Unflushed, detail))
    }

    /// Removes the records that began before `from`, and gives their room back to the disk. Returns how many went.
    ///
    /// Blocks, perhaps for seconds: call it on a thread that may. Records that come in the meantime are written in between.
    ///
    /// # Errors
    ///
    /// If the file cannot be written. What was removed until then is gone.
    pub fn prune(&self, from: SystemTime) -> Result<u64, LedgerError> {
        writer::prune(&mut schema::open(&self.path)?, from)
    }

    /// Opens it for reading, beside the writer and in nobody's way. What is queued is not seen yet.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened.
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        Reader::open(&*self.path)
    }
}

impl Recorder for Ledger {
    fn begun(&self) {
        self.queue.begun();
    }

    fn record(&self, record: &UsageRecord) {
        self.queue.record(record);
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.snapshot()).finish()
    }
}

/// How a [`Ledger`] fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LedgerSnapshot {
    /// Records still to come: calls under way, and answers that are still being read.
    pub under_way: u64,
    /// Records that wait for the disk.
    pub queued: u64,
    /// Records that are on the disk for good, in the order in which they came.
    pub written: u64,
    /// Records that found the queue full. They are lost.
    pub dropped: u64,
    /// How often writing has failed. Nothing is lost by that alone.
    pub failures: u64,
    /// Why it fails at present; `None`: it works.
    pub error: Option<LedgerError>,
}
