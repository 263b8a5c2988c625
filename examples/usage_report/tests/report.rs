//! The report of a demonstration, and of ledgers that no demonstration makes.
#![allow(clippy::unwrap_used)]
use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;
use tollgate::{
    UsageRecord,
    price::{Cost, Pico},
    usage::{Completion, Recorder},
    wire::{
        outcome::Outcome,
        usage::{Count, Finish},
    },
};
use tollgate_ledger::{Ledger, Reader, Select};
use tollgate_usage_report::{demo, figures::Report, page, text};

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("usage.sqlite");
    (directory, path)
}

/// The page and the tables of a ledger with these records.
fn report(records: &[UsageRecord]) -> (String, String) {
    let (_directory, path) = place();
    let ledger = Ledger::open(&path).unwrap();
    for record in records {
        ledger.record(record);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime
        .block_on(ledger.flush(Duration::from_secs(60)))
        .unwrap();
    let report = Report::read(&Reader::open(&path).unwrap(), None, None).unwrap();
    let page = page::html(&report).unwrap();
    well_formed(&page);
    (page, text::tables(&report))
}

/// Every element that is opened is closed, and nothing comes from elsewhere.
fn well_formed(page: &str) {
    let body = page.split_once("<body>").expect("a body").1;
    let mut open = Vec::new();
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("every tag ends");
        if tag.ends_with('/') {
            continue;
        }
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| c.is_alphanumeric())
            .collect();
        if tag.starts_with('/') {
            assert_eq!(
                open.pop().as_ref(),
                (name != "body" && name != "html").then_some(&name),
                "closing {name}"
            );
        } else {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?}");
    for elsewhere in ["<script", "<link", "<img", "url(", "src=", "href="] {
        assert!(!page.contains(elsewhere), "{elsewhere}");
    }
    assert!(
        !page.contains("NaN") && !page.contains("inf"),
        "a number that is none"
    );
}

fn served() -> UsageRecord {
    let mut record = UsageRecord::default();
    record.started = UNIX_EPOCH + Duration::from_secs(1_793_534_400);
    record.duration = Duration::from_millis(1_200);
    record.model_asked = Some("gpt-5".into());
    record.outcome = Some(Outcome::Ok);
    record.completion = Completion::Complete;
    record.usage.input = Count::Exact(1_000);
    record.usage.output = Count::Exact(234);
    record.cost = Cost::Exact(Pico::new(3_590_000_000));
    record.finish = Some(Finish::Stop);
    record
}

// L19
#[test]
fn the_evidence_has_peaks_percentiles_users_and_cost_an_hour() {
    let (_directory, path) = place();
    // From nine to twelve in the morning, with the batch at ten.
    demo::make(&path, UNIX_EPOCH + Duration::from_secs(1_793_523_600), 3).unwrap();
    let reader = Reader::open(&path).unwrap();
    let report = Report::read(&reader, None, None).unwrap();
    let table = &report.evidence[0];
    let at = |model: &str| {
        table
            .head
            .iter()
            .position(|name| name == model)
            .expect(model)
    };
    let cell = |line: usize, model: &str| -> f64 {
        let cell = &table.rows[line][at(model)];
        let digits: String = cell
            .chars()
            .filter(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        digits
            .parse()
            .unwrap_or_else(|_| panic!("{cell:?} in {:?}", table.rows[line][0]))
    };
    for (model, requests, tokens) in [("gpt-5-mini", 40.0, 40_000.0), ("gpt-5", 15.0, 20_000.0)] {
        let (peak, p95) = (cell(0, model), cell(1, model));
        assert!(0.0 < p95 && p95 <= peak, "{model}: {p95} of {peak}");
        assert_eq!(cell(2, model), requests, "the limit, from the headers");
        assert_eq!(cell(6, model), tokens);
        assert!(cell(4, model) >= cell(5, model) && cell(5, model) > 0.0);
        assert!(
            cell(15, model) >= cell(14, model) && cell(14, model) > 0.0,
            "cost an hour"
        );
    }
    assert!(cell(13, "all models") > 1.0, "users");
    let all = reader.sums(&Select::calls()).unwrap();
    assert_eq!(report.all, all);
    assert!(
        all.unpriced > 0 && all.failed > 0 || all.records < 50,
        "{all:?}"
    );
    let page = page::html(&report).unwrap();
    well_formed(&page);
    assert!(
        page.matches("<svg ").count() >= 7,
        "two plots a model, cost, latency, first token"
    );
    assert!(text::tables(&report).contains("requests a minute, 95th percentile"));
}

#[test]
fn an_empty_ledger_says_so() {
    let (page, text) = report(&[]);
    assert!(page.contains("no record") && text.contains("no record"));
}

#[test]
fn one_record_makes_a_whole_page() {
    let (page, text) = report(&[served()]);
    assert!(
        text.contains("1 calls for 0 principals, 1 requests"),
        "{text}"
    );
    assert!(text.contains("$0.0036"), "{text}");
    assert!(page.contains("no limit was stated"));
}

// U15
#[test]
fn an_unknown_cost_is_written_as_unknown() {
    let mut unknown = served();
    unknown.cost = Cost::Unknown;
    let (page, text) = report(&[unknown.clone()]);
    assert!(text.lines().any(|line| line == "unknown"), "{text}");
    assert!(page.contains("No call has a known cost"));
    let (page, text) = report(&[unknown, served()]);
    assert!(text.contains("at least $0.0036"), "{text}");
    assert!(page.contains("1 calls of unknown cost are not in it"));
}

#[test]
fn numbers_and_dates_without_bounds_make_a_page() {
    let mut huge = served();
    huge.usage.input = Count::Exact(u64::MAX);
    huge.usage.output = Count::AtLeast(u64::MAX);
    huge.cost = Cost::Exact(Pico::new(u128::MAX));
    huge.duration = Duration::MAX;
    huge.time_to_first_token = Some(Duration::MAX);
    let mut early = served();
    early.started = UNIX_EPOCH - Duration::from_secs(86_400 * 365 * 900);
    let mut late = served();
    late.started = SystemTime::UNIX_EPOCH + Duration::from_micros(i64::MAX as u64);
    late.duration = Duration::ZERO;
    report(&[huge, early, late, served()]);
}

#[test]
fn names_cannot_become_markup() {
    let mut evil = served();
    evil.model_asked = Some("</td><script>alert('x')</script>&\"'\u{1b}[2J\n".into());
    let (page, text) = report(&[evil]);
    assert!(!page.contains("<script"));
    assert!(page.contains("&lt;script&gt;"));
    assert!(!text.contains('\u{1b}'));
}

#[test]
fn many_models_are_summed_up_in_one_more_row() {
    let records: Vec<_> = (0..100)
        .map(|n| {
            let mut record = served();
            record.model_asked = Some(format!("model-{n}").into());
            record
        })
        .collect();
    let (_, text) = report(&records);
    assert!(text.contains("70 others"), "{text}");
}
