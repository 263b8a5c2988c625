//! What a ledger adds to a call, and how many records a second it keeps.
//!
//! ```console
//! $ cargo bench -p tollgate-ledger --bench ledger
//! ```
//!
//! One thread records at a steady rate, the ledger's own thread writes. What a call pays is the time within `record`, wall clock
//! and CPU; it is compared with a recorder that only copies the record. The rate holds if nothing is dropped and what is queued at
//! the end is no more than what comes in between two commits.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::{
    hint::black_box,
    time::{Duration, SystemTime},
};

use cpu_time::{ProcessTime, ThreadTime};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::time::Instant;
use tollgate_core::{
    price::{Cost, Pico},
    principal::Principal,
    wire::{
        limits,
        outcome::Outcome,
        prompt::Endpoint,
        usage::{Count, Finish},
    },
};
use tollgate_ledger::{Ledger, Select};
use tollgate_usage::{Completion, Recorder, UsageRecord};

/// As a chat call leaves it, with the four limits of its headers.
fn record(call: u64, at: SystemTime) -> UsageRecord {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-limit-tokens", "30000000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-remaining-tokens", "29999000"),
        ("x-ratelimit-reset-requests", "6ms"),
        ("x-ratelimit-reset-tokens", "2ms"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut record = UsageRecord::default();
    record.call = call;
    record.started = at;
    record.duration = Duration::from_millis(900 + call % 700);
    record.time_to_first_token = Some(Duration::from_millis(200 + call % 100));
    record.principal = Some(Principal::from_digest(call % 50));
    record.endpoint = Endpoint::ChatCompletions;
    record.model_asked = Some("gpt-5".into());
    record.model_served = Some("gpt-5-2025-08-07".into());
    record.status = Some(StatusCode::OK);
    record.outcome = Some(Outcome::Ok);
    record.completion = Completion::Complete;
    record.bytes_received = 700;
    record.has_usage = true;
    record.usage.input = Count::Exact(1_000);
    record.usage.cached_input = Count::Exact(256);
    record.usage.output = Count::Exact(call % 500);
    record.usage.total = Count::Exact(1_000 + call % 500);
    record.cost = Cost::Exact(Pico::new(1_250_000_000));
    record.finish = Some(Finish::Stop);
    record.finish_reason = Some("stop".into());
    record.response_id = Some("chatcmpl-CvXw9zPzQKk3oVb7cX1Qn0aYyLmJt".into());
    record.rate_limits = limits::from_headers(&headers, at);
    record
}

fn main() {
    // `cargo bench -- --test` only looks whether it runs.
    let seconds = if std::env::args().any(|arg| arg == "--test") {
        1
    } else {
        10
    };
    let start = tollgate_core::clock::wall();
    let some: Vec<_> = (0..1_000)
        .map(|n| record(n, start + Duration::from_millis(n * 60)))
        .collect();
    let copy = |record: &UsageRecord| drop(black_box(record.clone()));

    println!("a recorder that only copies, at 10,000 records a second:");
    paced(&copy, &some, 10_000, seconds);

    let directory = tempfile::tempdir().unwrap();
    for rate in [1_000, 10_000, 20_000] {
        let ledger = Ledger::open(directory.path().join(format!("{rate}.sqlite"))).unwrap();
        println!("the ledger, at {rate} records a second:");
        let cpu = ProcessTime::now();
        paced(&ledger, &some, rate, seconds);
        let queued = ledger.snapshot();
        finish(&ledger);
        println!(
            "  queued at the end {}, dropped {}; CPU of the whole process {:.1} µs a record",
            queued.queued,
            queued.dropped,
            cpu.elapsed().as_secs_f64() * 1e6 / (rate * seconds) as f64
        );
    }

    let ledger = Ledger::with_capacity(1_000_000, directory.path().join("all.sqlite")).unwrap();
    let count = 20_000 * seconds;
    let begun = Instant::now();
    for n in 0..count {
        ledger.record(&some[n as usize % some.len()]);
    }
    finish(&ledger);
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    println!("as fast as the disk takes them: {rate:.0} records a second");

    let size = std::fs::metadata(ledger.path()).unwrap().len() as f64 / count as f64;
    let reader = ledger.reader().unwrap();
    let begun = Instant::now();
    let minutes = reader
        .sums_per(Duration::from_secs(60), &Select::sent())
        .unwrap();
    println!(
        "{size:.0} bytes a record; {count} records summed up for {} minutes in {:.0} ms",
        minutes.len(),
        begun.elapsed().as_secs_f64() * 1e3
    );
}

/// Records at a rate and says what each cost the caller.
fn paced(recorder: &dyn Recorder, some: &[UsageRecord], rate: u64, seconds: u64) {
    let mut took = Vec::with_capacity((rate * seconds) as usize);
    let mut cpu = Duration::ZERO;
    let begun = Instant::now();
    for n in 0..rate * seconds {
        // Calls do not come evenly: ten at a time.
        if n % 10 == 0 {
            let due = begun + Duration::from_secs(1) * n as u32 / rate as u32;
            let early = due.saturating_duration_since(Instant::now());
            std::thread::park_timeout(early);
        }
        let record = &some[n as usize % some.len()];
        let (at, thread) = (Instant::now(), ThreadTime::now());
        recorder.record(record);
        cpu += thread.elapsed();
        took.push(at.elapsed());
    }
    let wall = begun.elapsed().as_secs_f64();
    took.sort_unstable();
    let micros = |at: usize| took[at.min(took.len() - 1)].as_secs_f64() * 1e6;
    println!(
        "  {:.0} records a second; a call pays: median {:.1} µs, 99 of 100 {:.1} µs, 999 of 1,000 {:.1} µs; CPU {:.2} µs",
        took.len() as f64 / wall,
        micros(took.len() / 2),
        micros(took.len() * 99 / 100),
        micros(took.len() * 999 / 1_000),
        cpu.as_secs_f64() * 1e6 / took.len() as f64,
    );
}

fn finish(ledger: &Ledger) {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(ledger.flush(Duration::from_secs(60)))
        .unwrap();
}
