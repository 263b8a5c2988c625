//! A process that records is killed again and again, at any moment.
//!
//! `TOLLGATE_KILLS` sets how often; 8 times unless told.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use rusqlite::Connection;
use tollgate_core::{
    price::{Cost, Pico},
    wire::{outcome::Outcome, usage::Count},
};
use tollgate_ledger::{Ledger, Reader, Select};
use tollgate_usage::{AttemptRecord, Recorder, UsageRecord};

const FILE: &str = "TOLLGATE_KILLED_LEDGER";
const ROUND: &str = "TOLLGATE_KILLED_ROUND";

/// The record with this number in a round. All that it holds follows from the number.
fn record(round: u64, n: u64) -> UsageRecord {
    let mut record = UsageRecord::default();
    record.call = (round << 32) | n;
    record.attempt = 1 + (n % 3) as u32;
    record.failed_attempts = (1..record.attempt)
        .map(|_| attempt(record.attempt))
        .enumerate()
        .map(|(at, mut attempt)| {
            attempt.number = at as u32 + 1;
            attempt
        })
        .collect();
    record.outcome = Some(Outcome::Ok);
    record.usage.input = Count::Exact(n);
    record.cost = Cost::Exact(Pico::new(u128::from(n) * 1_000));
    record
}

fn attempt(number: u32) -> AttemptRecord {
    let call = tollgate_core::call::Call::new(Default::default());
    call.begin_sent();
    let mut attempt = AttemptRecord::from(call.attempts().remove(0));
    attempt.number = number;
    attempt
}

/// Not a test: what is killed. Run by itself it does nothing.
#[test]
fn child() {
    let (Ok(file), Ok(round)) = (std::env::var(FILE), std::env::var(ROUND)) else {
        return;
    };
    let round = round.parse().unwrap();
    let ledger = Ledger::open(file).unwrap();
    let mut said = 0;
    for n in 0.. {
        // A full queue would leave gaps.
        while ledger.snapshot().queued > 9_000 {
            std::thread::yield_now();
        }
        ledger.record(&record(round, n));
        let written = ledger.snapshot().written;
        if written > said {
            said = written;
            // The acknowledgement.
            println!("written {written}");
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill_and_nothing_is_half_there() {
    let kills: u64 = std::env::var("TOLLGATE_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("usage.sqlite");
    let mut all = 0;
    for round in 1..=kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(FILE, &path)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0_u64;
        let mut hear = |acknowledged: &mut u64| {
            let line = lines.next()?.unwrap();
            // The first one shares its line with the harness.
            if let Some((_, count)) = line.split_once("written ") {
                *acknowledged = count.parse().unwrap();
            }
            Some(())
        };
        // Any moment: after some acknowledgements, and then anywhere within the next commits.
        let commits = 1 + round * 7 % 13;
        while acknowledged == 0 || commits > acknowledged.div_ceil(1_000) {
            hear(&mut acknowledged).expect("it runs until it is killed");
        }
        std::thread::park_timeout(Duration::from_micros(round * 7_919 % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        while hear(&mut acknowledged).is_some() {}

        // The file is as the dead process left it.
        drop(Ledger::open(&path).unwrap());
        let db = Connection::open(&path).unwrap();
        let (rows, last, whole): (u64, u64, u64) = db
            .query_row(
                "SELECT count(*), max(call & 0xffffffff), count(*) FILTER (WHERE
                    input = call & 0xffffffff AND cost_pico = input * 1000 AND
                    (SELECT count(*) FROM attempt WHERE record = id) = input % 3)
                 FROM record WHERE call >> 32 = ?",
                [round as i64],
                |row| {
                    let count = |at| row.get::<_, i64>(at).map(i64::unsigned_abs);
                    Ok((count(0)?, count(1)?, count(2)?))
                },
            )
            .unwrap();
        assert!(
            rows >= acknowledged,
            "round {round}: {rows} of {acknowledged} that were acknowledged"
        );
        assert_eq!(rows, last + 1, "round {round}: a beginning without gaps");
        assert_eq!(rows, whole, "round {round}: none is half there");
        all += rows;
        let sound: String = db
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(sound, "ok", "round {round}");
    }
    let sums = Reader::open(&path).unwrap().sums(&Select::calls()).unwrap();
    assert_eq!(sums.records, all);
    assert_eq!(sums.cost, Pico::new(sums.input * 1_000));
    println!("{kills} kills, {all} records");
}
