//! Where records go.
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::mpsc;

use crate::UsageRecord;

/// Takes records.
///
/// [`UsageTotals`](crate::UsageTotals) is one, [`channel`] makes another, and every
/// `Fn(&UsageRecord)` is one. It is called from within `poll` or `Drop` of somebody's response, so
/// it **must not block**: what takes time is a [`Sink`](crate::Sink) behind a
/// [`SinkQueue`](crate::SinkQueue), or reads a [`channel`]. One that panics harms
/// neither the response nor the other recorders; the panic is logged.
pub trait Recorder: Send + Sync {
    /// A call has begun that ends in one [`record`](Self::record), however it ends. Who flushes
    /// needs to know; everybody else ignores it, as this does unless it is written anew.
    fn begun(&self) {}

    /// Takes one record.
    fn record(&self, record: &UsageRecord);
}

impl<F: Fn(&UsageRecord) + Send + Sync> Recorder for F {
    fn record(&self, record: &UsageRecord) {
        self(record);
    }
}

impl<R: Recorder + ?Sized> Recorder for Arc<R> {
    fn begun(&self) {
        (**self).begun();
    }

    fn record(&self, record: &UsageRecord) {
        (**self).record(record);
    }
}

/// Tells each of several recorders that a record will come.
pub(crate) fn announce(recorders: &[Arc<dyn Recorder>]) {
    for recorder in recorders {
        if catch_unwind(AssertUnwindSafe(|| recorder.begun())).is_err() {
            tracing::error!(target: "tollgate::usage", "a usage recorder panicked");
        }
    }
}

/// Hands a record to each of several recorders.
pub(crate) fn record_all(recorders: &[Arc<dyn Recorder>], record: &UsageRecord) {
    for recorder in recorders {
        // We may be inside somebody's Drop, where a second panic would abort the process.
        if catch_unwind(AssertUnwindSafe(|| recorder.record(record))).is_err() {
            tracing::error!(target: "tollgate::usage", "a usage recorder panicked");
        }
    }
}

/// A recorder that puts records into a queue of at most `capacity`, and the queue's other end.
///
/// A record that finds the queue full is dropped and [counted](Records::dropped): a slow reader
/// never makes a response wait. For a sink that writes to a disk or a network, 10,000 is a good
/// capacity.
///
/// # Panics
///
/// If `capacity` is 0.
///
/// # Examples
///
/// ```
/// use tollgate_usage::{UsageRecorderLayer, channel};
///
/// let (recorder, mut records) = channel(10_000);
/// let layer = UsageRecorderLayer::new(recorder);
/// # drop(layer);
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// while let Some(record) = records.recv().await {
///     println!("{:?} {:?}", record.model(), record.cost);
/// }
/// # });
/// ```
#[must_use]
pub fn channel(capacity: usize) -> (ChannelRecorder, Records) {
    let (sender, receiver) = mpsc::channel(capacity);
    let dropped = Arc::new(AtomicU64::new(0));
    let recorder = ChannelRecorder {
        sender,
        dropped: Arc::clone(&dropped),
    };
    (recorder, Records { receiver, dropped })
}

/// Puts records into a bounded queue; see [`channel`]. Clones share the queue.
#[derive(Clone)]
pub struct ChannelRecorder {
    sender: mpsc::Sender<UsageRecord>,
    dropped: Arc<AtomicU64>,
}

impl ChannelRecorder {
    /// Records that found the queue full, or its reader gone.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Recorder for ChannelRecorder {
    fn record(&self, record: &UsageRecord) {
        // The place comes before the copy: a full queue costs no allocation.
        match self.sender.try_reserve() {
            Ok(place) => place.send(record.clone()),
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl fmt::Debug for ChannelRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelRecorder")
            .field("capacity", &self.sender.capacity())
            .field("dropped", &self.dropped())
            .finish()
    }
}

/// The records that a [`channel`] carries.
#[derive(Debug)]
pub struct Records {
    receiver: mpsc::Receiver<UsageRecord>,
    dropped: Arc<AtomicU64>,
}

impl Records {
    /// The next record; `None` when every recorder is gone and the queue is empty.
    ///
    /// # Cancel safety
    ///
    /// No record is lost when the future is dropped.
    pub async fn recv(&mut self) -> Option<UsageRecord> {
        self.receiver.recv().await
    }

    /// The same for hand-written futures.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<UsageRecord>> {
        self.receiver.poll_recv(cx)
    }

    /// A record that is there already.
    pub fn try_recv(&mut self) -> Option<UsageRecord> {
        self.receiver.try_recv().ok()
    }

    /// Records that found the queue full.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
