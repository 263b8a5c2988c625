//! Sinks behind their queue: what they lose, and what a flush waits for.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use common::{Kept, asked, chat, send, stream};
use http_body_util::BodyExt;
use serde_json::json;
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{Sink, SinkError, SinkQueue, UsageRecord, UsageRecorderLayer};
use tower::Layer;

/// Far beyond what the sink's thread needs, and only waited for when a test fails.
const LONG: Duration = Duration::from_secs(60);

/// A sink that stands still until it is let go, fails when told, and keeps the rest.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Inside>, Condvar)>);

#[derive(Default)]
struct Inside {
    open: bool,
    entered: bool,
    fail: usize,
    panic: usize,
    kept: Vec<UsageRecord>,
}

impl Gate {
    fn open() -> Self {
        let gate = Self::default();
        gate.let_go();
        gate
    }

    fn let_go(&self) {
        self.with(|inside| inside.open = true);
    }

    fn with<R>(&self, change: impl FnOnce(&mut Inside) -> R) -> R {
        let result = change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
        result
    }

    /// Waits until the sink has a batch in hand.
    fn entered(&self) {
        let mut inside = self.0.0.lock().unwrap();
        while !inside.entered {
            inside = self.0.1.wait(inside).unwrap();
        }
    }

    fn kept(&self) -> Vec<UsageRecord> {
        self.with(|inside| inside.kept.clone())
    }
}

impl Sink for Gate {
    fn write(&mut self, records: &[UsageRecord]) -> Result<(), SinkError> {
        let mut inside = self.0.0.lock().unwrap();
        inside.entered = true;
        self.0.1.notify_all();
        while !inside.open {
            inside = self.0.1.wait(inside).unwrap();
        }
        if inside.panic > 0 {
            inside.panic -= 1;
            drop(inside);
            panic!("on purpose");
        }
        if inside.fail > 0 {
            inside.fail -= 1;
            return Err("on purpose".into());
        }
        inside.kept.extend_from_slice(records);
        Ok(())
    }
}

fn answers() -> Scripted {
    Scripted::new([Reply::chat("gpt-test", 1, 1)])
}

async fn call(layer: &UsageRecorderLayer, upstream: &Scripted) {
    let answer = send(&layer.layer(upstream.clone()), chat(json!({}))).await;
    answer.into_body().collect().await.unwrap();
}

// U16
#[tokio::test]
async fn a_sink_that_stands_still_costs_records_and_no_call() {
    let gate = Gate::default();
    let queue = SinkQueue::with_capacity(4, gate.clone()).unwrap();
    let layer = UsageRecorderLayer::new(queue.clone());
    let upstream = answers();
    call(&layer, &upstream).await;
    gate.entered();
    // The sink holds one record and four find room; these calls would never end if they waited.
    for _ in 0..10 {
        call(&layer, &upstream).await;
    }
    let now = queue.snapshot();
    assert_eq!((now.under_way, now.queued, now.dropped), (0, 5, 6));
    gate.let_go();
    queue.flush(LONG).await.unwrap();
    assert_eq!((queue.snapshot().written, gate.kept().len()), (5, 5));
}

// U16
#[tokio::test]
async fn a_sink_that_fails_or_panics_goes_on_and_its_losses_are_counted() {
    let gate = Gate::open();
    let queue = SinkQueue::new(gate.clone()).unwrap();
    let layer = UsageRecorderLayer::new(queue.clone());
    let upstream = answers();
    for (fail, panic) in [(1, 0), (0, 1), (0, 0)] {
        gate.with(|inside| (inside.fail, inside.panic) = (fail, panic));
        call(&layer, &upstream).await;
        queue.flush(LONG).await.unwrap();
    }
    let now = queue.snapshot();
    assert_eq!((now.written, now.failed, now.dropped), (1, 2, 0));
}

// U16
#[tokio::test]
async fn a_flush_waits_for_a_stream_that_is_still_being_read() {
    let gate = Gate::open();
    let queue = SinkQueue::new(gate.clone()).unwrap();
    let kept = Kept::default();
    let layer = kept.layer().and(queue.clone());
    let upstream = Scripted::new([Reply::stream(stream())]);
    let answer = send(&layer.layer(upstream), asked()).await;
    let mut body = answer.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(queue.snapshot().under_way, 1);
    let missing = queue.flush(Duration::ZERO).await.unwrap_err();
    assert_eq!((missing.under_way, missing.queued), (1, 0));

    let flushing = tokio::spawn({
        let queue = queue.clone();
        async move { queue.flush(LONG).await }
    });
    tokio::task::yield_now().await;
    assert!(!flushing.is_finished(), "the stream is not at its end");
    body.collect().await.unwrap();
    flushing.await.unwrap().unwrap();
    assert_eq!(gate.kept().len(), 1);
    assert_eq!(gate.kept()[0].call, kept.one().call);
}

// U16
#[tokio::test]
async fn a_call_that_is_dropped_is_no_longer_waited_for() {
    let gate = Gate::open();
    let queue = SinkQueue::new(gate.clone()).unwrap();
    let layer = UsageRecorderLayer::new(queue.clone());
    let upstream = Scripted::new([Reply::stream(stream())]);
    let answer = send(&layer.layer(upstream.clone()), asked()).await;
    drop(answer);
    let mut service = layer.layer(upstream);
    drop(tower::Service::call(&mut service, asked()));
    queue.flush(LONG).await.unwrap();
    assert_eq!((queue.snapshot().written, gate.kept().len()), (2, 2));
}

#[tokio::test]
async fn a_queue_without_room_is_refused_where_it_is_made() {
    let refused = SinkQueue::with_capacity(0, Gate::open()).unwrap_err();
    assert!(refused.to_string().contains("above zero"), "{refused}");
}

// U16
#[tokio::test]
async fn what_is_queued_is_written_after_the_last_handle_is_gone() {
    let gate = Gate::default();
    let queue = SinkQueue::new(gate.clone()).unwrap();
    let layer = UsageRecorderLayer::new(queue.clone());
    let upstream = answers();
    call(&layer, &upstream).await;
    gate.entered();
    call(&layer, &upstream).await;
    drop((queue, layer));
    gate.let_go();
    let (lock, changed) = &*gate.0;
    let inside = lock.lock().unwrap();
    let (inside, waited) = changed
        .wait_timeout_while(inside, LONG, |inside| inside.kept.len() < 2)
        .unwrap();
    assert!(!waited.timed_out(), "{} came", inside.kept.len());
}
