//! Sinks that take their time: on a thread of their own, behind a bounded queue.
use std::{
    error::Error,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout_at},
};

use crate::{Recorder, UsageRecord};

/// Most records in the queue, unless told otherwise.
const CAPACITY: usize = 10_000;
/// Most records that are handed to a sink at once.
const BATCH: usize = 1_000;

/// Why a sink could not write.
pub type SinkError = Box<dyn Error + Send + Sync>;

/// Writes records, taking as long as it takes.
///
/// A [`Recorder`] is called from within somebody's response and must not block. What writes to a
/// disk or a network implements this instead and stands behind a [`SinkQueue`], where it runs on a
/// thread of its own, one batch after the other.
pub trait Sink: Send {
    /// Writes up to 1,000 records, in the order in which they were made.
    ///
    /// Returning `Ok` acknowledges them: they are kept from here on, whatever "kept" means for this
    /// sink. After an error (or a panic) the whole batch counts as
    /// [failed](SinkSnapshot::failed) and is not handed over again; a sink that can try again does
    /// so itself.
    ///
    /// # Errors
    ///
    /// Whatever kept it from writing. The text is logged when a row of failures begins, so it must
    /// not hold what a record holds.
    fn write(&mut self, records: &[UsageRecord]) -> Result<(), SinkError>;
}

/// Hands records to a [`Sink`] on a thread of its own.
///
/// The call pays for a copy of the record and a place in the queue. If the sink is slow, fails or
/// panics, records are lost and counted, never calls.
///
/// A handle: clones share the queue and the sink, and several layers may use one. The thread ends
/// when the last clone is gone and the queue is empty. Nobody waits for it at the end of the
/// process, so [`flush`](Self::flush) before `main` returns.
///
/// ```
/// use std::{sync::{Arc, Mutex}, time::Duration};
/// use tollgate_usage::{Sink, SinkError, SinkQueue, UsageRecord, UsageRecorderLayer};
///
/// struct Memory(Arc<Mutex<Vec<u64>>>);
/// impl Sink for Memory {
///     fn write(&mut self, records: &[UsageRecord]) -> Result<(), SinkError> {
///         let mut calls = self.0.lock().map_err(|_| "poisoned")?;
///         calls.extend(records.iter().map(|record| record.call));
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let calls = Arc::default();
/// let queue = SinkQueue::new(Memory(Arc::clone(&calls)))?;
/// let layer = UsageRecorderLayer::new(queue.clone());
/// # drop(layer);
/// // … serve …
///
/// // At the end: wait for answers that are still being read, then for the sink.
/// queue.flush(Duration::from_secs(30)).await?;
/// assert_eq!(queue.snapshot().dropped, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SinkQueue {
    sender: mpsc::Sender<UsageRecord>,
    shared: Arc<Shared>,
}

/// Each of these only rises, and no record is counted in a later one before an earlier one.
#[derive(Default)]
struct Shared {
    /// Records that were announced.
    begun: AtomicU64,
    /// Records that came.
    taken: AtomicU64,
    /// Of those, what found the queue full.
    dropped: AtomicU64,
    /// What the sink has acknowledged.
    written: AtomicU64,
    /// What it has not.
    failed: AtomicU64,
    /// A batch is done, or a record was dropped.
    moved: Notify,
}

/// How a [`SinkQueue`] fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkSnapshot {
    /// Records still to come: calls under way, and answers that are still being read.
    pub under_way: u64,
    /// Records that wait for the sink, the batch that it has in hand included.
    pub queued: u64,
    /// Records that the sink has acknowledged.
    pub written: u64,
    /// Records that found the queue full. They are lost.
    pub dropped: u64,
    /// Records of batches that the sink could not write. They are lost.
    pub failed: u64,
}

impl SinkQueue {
    /// Starts the sink's thread, with a queue of 10,000 records.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub fn new(sink: impl Sink + 'static) -> io::Result<Self> {
        Self::with_capacity(CAPACITY, sink)
    }

    /// The same with a queue of `capacity` records.
    ///
    /// # Errors
    ///
    /// If `capacity` is 0 or no thread can be started.
    pub fn with_capacity(capacity: usize, sink: impl Sink + 'static) -> io::Result<Self> {
        if capacity == 0 {
            let text = "the queue of a sink needs a capacity above zero";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let (sender, receiver) = mpsc::channel(capacity);
        let shared = Arc::new(Shared::default());
        let counts = Arc::clone(&shared);
        thread::Builder::new()
            .name("tollgate-sink".into())
            .spawn(move || work(sink, receiver, &counts))?;
        Ok(Self { sender, shared })
    }

    /// How it fares now.
    #[must_use]
    pub fn snapshot(&self) -> SinkSnapshot {
        self.shared.snapshot()
    }

    /// Waits until nothing is under way and all that was recorded has reached the sink, at most
    /// `timeout` long.
    ///
    /// Records of answers whose bodies are still being read are waited for, also those that begin
    /// in the meantime: stop taking requests first.
    ///
    /// The sink's thread lives in real time. Where tokio's clock is paused, the timeout passes before it
    /// has done anything.
    ///
    /// # Errors
    ///
    /// After `timeout`, with what is missing. It goes on being written.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with its timer enabled.
    pub async fn flush(&self, timeout: Duration) -> Result<(), Unflushed> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let mut moved = std::pin::pin!(self.shared.moved.notified());
            // From here on no notification is missed.
            moved.as_mut().enable();
            let now = self.snapshot();
            if now.under_way == 0 && now.queued == 0 {
                return Ok(());
            }
            match deadline {
                None => moved.await,
                Some(deadline) => {
                    if timeout_at(deadline, moved).await.is_err() {
                        let SinkSnapshot {
                            under_way, queued, ..
                        } = self.snapshot();
                        if under_way == 0 && queued == 0 {
                            return Ok(());
                        }
                        return Err(Unflushed { under_way, queued });
                    }
                }
            }
        }
    }
}

impl Recorder for SinkQueue {
    fn begun(&self) {
        self.shared.begun.fetch_add(1, SeqCst);
    }

    fn record(&self, record: &UsageRecord) {
        // In one step from "under way" to "queued", or a flush could miss it in between.
        self.shared.taken.fetch_add(1, SeqCst);
        // The place comes before the copy: a full queue costs no allocation.
        match self.sender.try_reserve() {
            Ok(place) => place.send(record.clone()),
            Err(_) => self.shared.add(&self.shared.dropped, 1),
        }
    }
}

impl fmt::Debug for SinkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SinkQueue").field(&self.snapshot()).finish()
    }
}

impl Shared {
    fn add(&self, count: &AtomicU64, n: u64) {
        count.fetch_add(n, SeqCst);
        self.moved.notify_waiters();
    }

    fn snapshot(&self) -> SinkSnapshot {
        // The last stage first: then "nothing left" was true when the first of them was read.
        let (written, failed) = (self.written.load(SeqCst), self.failed.load(SeqCst));
        let dropped = self.dropped.load(SeqCst);
        let taken = self.taken.load(SeqCst);
        let begun = self.begun.load(SeqCst);
        SinkSnapshot {
            under_way: begun.saturating_sub(taken),
            queued: taken.saturating_sub(written + failed + dropped),
            written,
            dropped,
            failed,
        }
    }
}

/// What the thread does.
fn work(mut sink: impl Sink, mut records: mpsc::Receiver<UsageRecord>, shared: &Shared) {
    let mut batch = Vec::with_capacity(BATCH.min(records.max_capacity()));
    let mut failing = false;
    loop {
        let count = records.blocking_recv_many(&mut batch, BATCH) as u64;
        if count == 0 {
            return;
        }
        let result = catch_unwind(AssertUnwindSafe(|| sink.write(&batch)))
            .unwrap_or_else(|_| Err("the sink panicked".into()));
        batch.clear();
        match result {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    let lost = shared.failed.load(Relaxed);
                    tracing::info!(target: "tollgate::usage", lost, "a usage sink works again");
                }
                shared.add(&shared.written, count);
            }
            Err(error) => {
                // Once for a row of failures: a full disk would fill the log as well.
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(target: "tollgate::usage", %error, "a usage sink fails");
                }
                shared.add(&shared.failed, count);
            }
        }
    }
}

/// What a [`flush`](SinkQueue::flush) has not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unflushed {
    /// Records still to come.
    pub under_way: u64,
    /// Records that wait for the sink.
    pub queued: u64,
}

impl fmt::Display for Unflushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls are under way and {} records wait for the sink",
            self.under_way, self.queued
        )
    }
}

impl Error for Unflushed {}
