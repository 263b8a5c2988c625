//! What is kept, what comes back, and what happens when the disk has other plans.
#![allow(clippy::unwrap_used)]
use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, StatusCode};
use rusqlite::Connection;
use tempfile::TempDir;
use tollgate_core::{
    extensions::ServedBy,
    price::{Cost, Pico},
    principal::Principal,
    wire::{
        limits,
        outcome::Outcome,
        prompt::Endpoint,
        usage::{Count, Finish},
    },
};
use tollgate_ledger::{By, Ledger, LedgerErrorKind, Measure, Reader, Select};
use tollgate_usage::{Completion, RecordKind, Recorder, UsageRecord};

const MINUTE: Duration = Duration::from_secs(60);

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("usage.sqlite");
    (directory, path)
}

/// A call that was served, `seconds` after noon of a day.
fn served(call: u64, seconds: u64) -> UsageRecord {
    let mut record = UsageRecord::default();
    record.call = call;
    record.started = noon() + Duration::from_secs(seconds);
    record.duration = Duration::from_millis(1_500);
    record.time_to_first_token = Some(Duration::from_millis(300));
    record.endpoint = Endpoint::ChatCompletions;
    record.model_asked = Some("gpt-5".into());
    record.status = Some(StatusCode::OK);
    record.outcome = Some(Outcome::Ok);
    record.completion = Completion::Complete;
    record.has_usage = true;
    record.usage.input = Count::Exact(100);
    record.usage.output = Count::Exact(20);
    record.cost = Cost::Exact(Pico::new(7));
    record.finish = Some(Finish::Stop);
    record
}

fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_793_534_400)
}

async fn flushed(ledger: &Ledger) {
    ledger.flush(Duration::from_secs(60)).await.unwrap();
}

/// Until the ledger's thread has come so far.
#[track_caller]
fn until(what: &str, come: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if come() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    panic!("it never came so far: {what}");
}

#[tokio::test]
async fn a_record_is_kept_with_all_that_it_holds() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    let mut record = served(u64::MAX, 0);
    record.principal = Some(Principal::from_digest(u64::MAX - 1));
    record.model_served = Some("gpt-5-2025-08-07".into());
    record.usage.cached_input = Count::AtLeast(64);
    record.finish_reason = Some("stop".into());
    record.response_id = Some("chatcmpl-1".into());
    record.service_tier = Some("flex".into());
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-ratelimit-limit-requests",
        HeaderValue::from_static("500"),
    );
    headers.insert(
        "x-ratelimit-remaining-requests",
        HeaderValue::from_static("499"),
    );
    record.rate_limits = limits::from_headers(&headers, record.started);
    ledger.record(&record);
    headers.insert(
        "x-ratelimit-remaining-requests",
        HeaderValue::from_static("17"),
    );
    record.rate_limits = limits::from_headers(&headers, record.started);
    ledger.record(&record);
    flushed(&ledger).await;

    let db = Connection::open(&path).unwrap();
    let row: String = db
        .query_row(
            "SELECT concat_ws(' ', printf('%016x', call), kind, datetime(started_us / 1000000, 'unixepoch'), duration_us,
                first_token_us, printf('%016x', principal), endpoint, model_asked, model_served, model, status, outcome,
                completion, input, cached_input, output, coalesce(reasoning, 'unknown'), cost_pico, bounds, finish,
                finish_reason, service_tier, response_id) FROM record WHERE id = 1",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(
        row,
        "ffffffffffffffff call 2026-11-01 12:00:00 1500000 300000 fffffffffffffffe chat_completions gpt-5 \
         gpt-5-2025-08-07 gpt-5-2025-08-07 200 ok complete 100 64 20 unknown 7 2 stop stop flex chatcmpl-1"
    );
    let limits = ledger
        .reader()
        .unwrap()
        .limits(noon(), noon() + MINUTE)
        .unwrap();
    assert_eq!(limits.len(), 1, "one row a minute: {limits:?}");
    assert_eq!(
        (
            limits[0].dimension.as_str(),
            limits[0].units,
            limits[0].remaining
        ),
        ("requests", Some(500.0), Some(17.0))
    );
}

// U15
#[tokio::test]
async fn an_unknown_cost_is_counted_and_is_not_zero() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    let mut unknown = served(1, 0);
    unknown.cost = Cost::Unknown;
    unknown.usage.output = Count::Unknown;
    unknown.estimated_output = Count::AtLeast(9);
    let mut bound = served(2, 0);
    bound.cost = Cost::AtLeast(Pico::new(5));
    for record in [unknown, bound, served(3, 0)] {
        ledger.record(&record);
    }
    flushed(&ledger).await;
    let sums = ledger.reader().unwrap().sums(&Select::calls()).unwrap();
    assert_eq!((sums.records, sums.unpriced, sums.cost_at_least), (3, 1, 1));
    assert_eq!((sums.cost, sums.output), (Pico::new(12), 49));
}

// T40
#[tokio::test]
async fn numbers_that_do_not_fit_are_lower_bounds_and_sums_never_wrap() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    let mut huge = served(1, 0);
    huge.usage.input = Count::Exact(u64::MAX);
    huge.usage.output = Count::Exact(i64::MAX as u64);
    huge.cost = Cost::Exact(Pico::new(u128::MAX));
    huge.duration = Duration::MAX;
    huge.time_to_first_token = Some(Duration::MAX);
    huge.bytes_received = u64::MAX;
    huge.attempt = u32::MAX;
    huge.model_asked = Some("m".repeat(100_000).into());
    for _ in 0..5 {
        ledger.record(&huge);
    }
    let mut early = served(2, 0);
    early.started = UNIX_EPOCH - Duration::from_secs(1);
    ledger.record(&early);
    flushed(&ledger).await;

    let reader = ledger.reader().unwrap();
    let most = i64::MAX as u128;
    let sums = reader.sums(&Select::calls()).unwrap();
    assert_eq!(sums.input, 5 * most + 100);
    assert_eq!(sums.cost, Pico::new(5 * most + 7));
    assert_eq!(sums.cost_at_least, 5);
    let by_model = reader.sums_by(By::Model, &Select::calls()).unwrap();
    assert!(by_model[0].0.as_ref().unwrap().len() < 300, "names are cut");
    // Dates that overflow are somewhere, and no error.
    reader.sums_per(MINUTE, &Select::sent()).unwrap();
    let minutes = reader.sums_per(MINUTE, &Select::calls()).unwrap();
    assert_eq!(
        minutes[0].0,
        UNIX_EPOCH - MINUTE,
        "rounded down before 1970 as well"
    );
}

#[tokio::test]
async fn models_are_told_apart_as_requests_named_them_or_as_a_fallback_moved_them() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    let by = |position| ServedBy::new(position, Some("small".into()), None);
    for (call, by) in [(1, None), (2, Some(by(0))), (3, Some(by(1)))] {
        let mut record = served(call, 0);
        record.model_served = Some("small-2026-01-01".into());
        record.served_by = by;
        ledger.record(&record);
    }
    flushed(&ledger).await;
    let reader = ledger.reader().unwrap();
    let asked = reader.sums_by(By::Asked, &Select::calls()).unwrap();
    let asked = asked
        .iter()
        .map(|(model, sums)| (model.as_deref(), sums.records));
    assert_eq!(
        asked.collect::<Vec<_>>(),
        [(Some("gpt-5"), 2), (Some("small-2026-01-01"), 1)]
    );
}

#[tokio::test]
async fn a_call_that_two_recorders_saw_is_summed_up_once_and_was_sent_when_the_inner_one_says() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    // A call that waited for two minutes, between two attempts.
    for (number, seconds, outcome) in [(1, 0, Outcome::Overloaded), (2, 120, Outcome::Ok)] {
        let mut attempt = served(1, seconds);
        attempt.kind = RecordKind::Attempt;
        attempt.nested = true;
        attempt.attempt = number;
        attempt.outcome = Some(outcome);
        ledger.record(&attempt);
    }
    let mut call = served(1, 0);
    call.attempt = 2;
    call.duration = Duration::from_secs(122);
    ledger.record(&call);
    // Another that only the outer one saw, and one that was never sent.
    let mut other = served(2, 0);
    other.time_to_head = Some(Duration::from_secs(61));
    ledger.record(&other);
    let mut refused = served(3, 0);
    refused.refused = Some(tollgate_core::extensions::Reason::QueueFull);
    refused.outcome = Some(Outcome::RateLimited {
        what: None,
        retry_after: None,
        never_fits: false,
    });
    ledger.record(&refused);
    flushed(&ledger).await;

    let reader = ledger.reader().unwrap();
    let calls = reader.sums(&Select::calls()).unwrap();
    assert_eq!(
        (
            calls.records,
            calls.requests,
            calls.failed,
            calls.rate_limited
        ),
        (3, 3, 1, 0)
    );
    let sent = reader.sums_per(MINUTE, &Select::sent()).unwrap();
    let sent: Vec<_> = sent
        .iter()
        .map(|(at, sums)| (at.duration_since(noon()).unwrap().as_secs(), sums.requests))
        .collect();
    assert_eq!(sent, [(0, 1), (60, 1), (120, 1)]);
    let outcomes = reader.sums_by(By::Outcome, &Select::calls()).unwrap();
    let outcomes: Vec<_> = outcomes.iter().map(|(name, _)| name.as_deref()).collect();
    assert_eq!(outcomes, [Some("ok"), Some("queue_full")]);
}

#[tokio::test]
async fn what_had_no_answer_is_left_out_where_answers_are_counted() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    ledger.record(&served(1, 0));
    // It never got there, or its caller left before it was sent.
    let mut lost = served(2, 0);
    lost.status = None;
    ledger.record(&lost);
    // We refused it.
    let mut refused = served(3, 0);
    refused.refused = Some(tollgate_core::extensions::Reason::QueueFull);
    ledger.record(&refused);
    flushed(&ledger).await;
    let reader = ledger.reader().unwrap();
    for (select, requests) in [
        (Select::calls(), 2),
        (Select::calls().answered(), 1),
        (Select::sent().answered(), 1),
    ] {
        assert_eq!(
            reader.sums(&select).unwrap().requests,
            requests,
            "{select:?}"
        );
    }
    let whole = reader.sums(&Select::calls()).unwrap().input;
    let answered = reader.sums(&Select::calls().answered()).unwrap().input;
    assert_eq!(whole, answered, "what was used is another matter");
}

#[tokio::test]
async fn a_selection_is_by_time_model_and_principal() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    for n in 0..10 {
        let mut record = served(n, n * 60);
        record.principal = Some(Principal::from_digest(n % 2));
        record.key = Some(Principal::from_digest(u64::MAX - n % 3));
        record.stream = n == 7;
        record.model_served = (n < 4).then(|| "other".into());
        record.duration = Duration::from_millis(n + 1);
        ledger.record(&record);
    }
    let mut nobody = served(10, 0);
    nobody.time_to_first_token = None;
    ledger.record(&nobody);
    flushed(&ledger).await;
    let reader = ledger.reader().unwrap();
    let records = |select: &Select| reader.sums(select).unwrap().records;
    assert_eq!(records(&Select::calls().since(noon() + 9 * MINUTE)), 1);
    assert_eq!(
        records(
            &Select::calls()
                .since(noon() + MINUTE)
                .until(noon() + 3 * MINUTE)
        ),
        2
    );
    assert_eq!(records(&Select::calls().model("other")), 4);
    assert_eq!(
        records(
            &Select::calls()
                .principal(Principal::from_digest(1))
                .model("other")
        ),
        2
    );
    assert_eq!(
        records(&Select::calls().key(Principal::from_digest(u64::MAX))),
        4
    );
    assert_eq!(records(&Select::calls().streams()), 1);
    let keys = reader.sums_by(By::Key, &Select::calls()).unwrap();
    assert_eq!(
        (keys[0].0.as_deref(), keys.len()),
        (Some("ffffffffffffffff"), 4)
    );
    assert_eq!(reader.principals(&Select::calls()).unwrap(), 2);
    let by = reader.sums_by(By::Principal, &Select::calls()).unwrap();
    let names: Vec<_> = by
        .iter()
        .map(|(name, sums)| (name.as_deref(), sums.records))
        .collect();
    assert_eq!(
        names,
        [
            (Some("0000000000000000"), 5),
            (Some("0000000000000001"), 5),
            (None, 1)
        ]
    );
    let spread = reader
        .spread_per(
            Duration::from_secs(3_600),
            Measure::Duration,
            &Select::calls(),
        )
        .unwrap();
    assert_eq!((spread.len(), spread[0].1.count), (1, 11));
    assert_eq!(spread[0].1.p50, Duration::from_millis(6));
    assert_eq!(
        (spread[0].1.p95, spread[0].1.max),
        (Duration::from_millis(1_500), Duration::from_millis(1_500))
    );
    let first = reader
        .spread_per(
            Duration::from_secs(3_600),
            Measure::FirstToken,
            &Select::calls(),
        )
        .unwrap();
    assert_eq!(first[0].1.count, 10);
}

#[tokio::test]
async fn what_is_old_can_be_removed_and_gives_its_room_back() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    for n in 0..6_000 {
        ledger.record(&served(n, u64::from(n >= 5_900) * 86_400));
    }
    flushed(&ledger).await;
    assert_eq!(ledger.snapshot().dropped, 0);
    let pages = || -> i64 {
        let db = Connection::open(&path).unwrap();
        db.query_row("PRAGMA page_count", [], |row| row.get(0))
            .unwrap()
    };
    let before = pages();
    assert_eq!(ledger.prune(noon() + MINUTE).unwrap(), 5_900);
    assert_eq!(ledger.prune(noon() + MINUTE).unwrap(), 0);
    assert!(pages() * 4 < before, "{} pages of {before}", pages());
    assert_eq!(
        ledger
            .reader()
            .unwrap()
            .sums(&Select::calls())
            .unwrap()
            .records,
        100
    );
    ledger.record(&served(1, 0));
    flushed(&ledger).await;
}

#[tokio::test]
async fn an_empty_ledger_has_sums_of_nothing() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    let reader = Reader::open(&path).unwrap();
    assert_eq!(reader.sums(&Select::calls()).unwrap(), Default::default());
    assert!(reader.sums_per(MINUTE, &Select::sent()).unwrap().is_empty());
    assert!(
        reader
            .sums_by(By::Finish, &Select::calls())
            .unwrap()
            .is_empty()
    );
    flushed(&ledger).await;
}

#[test]
fn a_file_of_another_application_is_refused_and_left_as_it_is() {
    let (_directory, path) = place();
    let db = Connection::open(&path).unwrap();
    db.execute_batch("CREATE TABLE theirs (x)").unwrap();
    drop(db);
    let before = fs::read(&path).unwrap();
    let refused = |path: &PathBuf| Ledger::open(path).unwrap_err().kind();
    assert_eq!(refused(&path), LedgerErrorKind::NotALedger);
    assert_eq!(fs::read(&path).unwrap(), before);
    let text = path.with_file_name("notes.txt");
    fs::write(&text, "dear diary, ".repeat(100)).unwrap();
    assert_eq!(refused(&text), LedgerErrorKind::NotALedger);
    assert_eq!(
        Reader::open(&text).unwrap_err().kind(),
        LedgerErrorKind::NotALedger
    );
}

#[test]
fn what_cannot_be_opened_says_so() {
    let (directory, path) = place();
    let missing = directory.path().join("nowhere/usage.sqlite");
    assert_eq!(
        Ledger::open(missing).unwrap_err().kind(),
        LedgerErrorKind::CannotOpen
    );
    assert_eq!(
        Reader::open(&path).unwrap_err().kind(),
        LedgerErrorKind::CannotOpen
    );
    assert!(!path.exists(), "a reader makes no file");
    // A directory that takes no files, whoever asks.
    #[cfg(target_os = "linux")]
    assert_eq!(
        Ledger::open("/proc/usage.sqlite").unwrap_err().kind(),
        LedgerErrorKind::CannotOpen
    );
    assert!(Ledger::with_capacity(0, &path).is_err());
}

// U16
#[tokio::test]
async fn a_lock_that_another_process_holds_delays_records_and_no_call() {
    let (_directory, path) = place();
    let ledger = Ledger::with_capacity(50, &path).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for n in 0..500 {
        ledger.record(&served(n, 0));
    }
    until("a failure", || ledger.snapshot().failures > 0);
    let stuck = ledger.snapshot();
    assert_eq!(
        stuck.error.as_ref().map(|error| error.kind()),
        Some(LedgerErrorKind::Locked)
    );
    assert_eq!(stuck.dropped + stuck.queued, 500);
    assert!(stuck.dropped >= 400 && stuck.written == 0, "{stuck:?}");
    let error = ledger.flush(Duration::from_millis(1)).await.unwrap_err();
    assert_eq!(error.kind(), LedgerErrorKind::Unflushed);
    assert!(
        error
            .to_string()
            .contains("another process holds the ledger's lock"),
        "{error}"
    );

    other.execute_batch("COMMIT").unwrap();
    flushed(&ledger).await;
    let after = ledger.snapshot();
    assert_eq!((after.written, after.error), (500 - after.dropped, None));
    let sums = ledger.reader().unwrap().sums(&Select::calls()).unwrap();
    assert_eq!(sums.records, after.written, "each once");
}

#[tokio::test]
async fn two_ledgers_on_one_file_lose_nothing_of_each_other() {
    let (_directory, path) = place();
    let ledgers = [Ledger::open(&path).unwrap(), Ledger::open(&path).unwrap()];
    for n in 0..2_000 {
        ledgers[n % 2].record(&served(n as u64, 0));
    }
    for ledger in &ledgers {
        flushed(ledger).await;
    }
    let sums = Reader::open(&path).unwrap().sums(&Select::calls()).unwrap();
    assert_eq!((sums.records, sums.cost), (2_000, Pico::new(14_000)));
}

// U19
#[test]
fn debug_shows_counts_and_no_record() {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    let mut record = served(1, 0);
    record.model_asked = Some("canary-4711".into());
    ledger.record(&record);
    let shown = format!("{ledger:?} {:?}", ledger.reader().unwrap());
    assert!(!shown.contains("canary"), "{shown}");
}
