//! What a later run does with what an earlier one has left.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tollgate_sim::{Fault, SimProvider};

use crate::common::{Job, Provider, chat, id, said};

// L05
#[test]
fn a_job_of_ten_thousand_is_killed_and_resumed_without_losing_or_repeating_finished_work() {
    const ROWS: usize = 10_000;
    let window = Duration::from_millis(500);
    let provider = Provider::start(
        SimProvider::builder()
            .requests(1_000)
            .window(window)
            .latency(Duration::from_millis(40)),
    );
    let job = Job::of((0..ROWS).map(chat));
    let args = ["--rpm", "1000", "--window-secs", "0.5"];
    let first = job.start(&provider, &args);
    job.await_lines(3_500);
    first.kill();

    // What a kill in the middle of a write leaves.
    let finished: BTreeSet<usize> = job
        .lines()
        .iter()
        .filter(|l| l.is_object())
        .map(id)
        .collect();
    let mut file = OpenOptions::new().append(true).open(job.output()).unwrap();
    file.write_all(b"{\"metadata\":{\"id\":9999},\"requ")
        .unwrap();
    provider.asked();

    let mut args = args.to_vec();
    args.push("--resume");
    let result = job.run(&provider, &args);
    assert!(result.status.success());

    let mut lines = BTreeMap::<usize, usize>::new();
    for line in job.lines() {
        assert!(line["response"].is_object(), "no row is lost: {line}");
        *lines.entry(id(&line)).or_default() += 1;
    }
    assert_eq!(lines.len(), ROWS, "every row has its answer");
    assert!(lines.values().all(|&count| count == 1), "and has it once");

    let again = provider.asked();
    let body =
        |row: usize| Bytes::from(chat(row).replace(&format!("\"metadata\":{{\"id\":{row}}},"), ""));
    assert!(
        finished.iter().all(|&row| !again.contains_key(&body(row))),
        "no finished work is sent again"
    );
    assert_eq!(
        again.len(),
        ROWS - finished.len(),
        "and all that was not finished is sent"
    );
    assert_eq!(said(&result, "results"), (ROWS - finished.len()) as u64);
}

#[test]
fn rows_that_failed_run_again_and_their_lines_are_replaced() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let provider = Provider::with_faults(SimProvider::builder(), move |body| {
        let ill = body["messages"][0]["content"]
            .as_str()
            .is_some_and(|text| text.ends_with('3'));
        match ill && !is_well.load(Ordering::Relaxed) {
            true => Fault::Status(400),
            false => Fault::None,
        }
    });
    let job = Job::of((0..50).map(chat));
    assert!(job.run(&provider, &[]).status.success());
    let errors = |job: &Job| {
        job.lines()
            .iter()
            .filter(|line| line["error"].is_object())
            .count()
    };
    assert_eq!((job.lines().len(), errors(&job)), (50, 5));

    assert!(job.run(&provider, &["--resume"]).status.success());
    assert_eq!(
        (job.lines().len(), errors(&job)),
        (50, 5),
        "still ill, still one line each"
    );

    provider.asked();
    well.store(true, Ordering::Relaxed);
    assert!(job.run(&provider, &["--resume"]).status.success());
    assert_eq!((job.lines().len(), errors(&job)), (50, 0));
    assert_eq!(provider.asked().len(), 5, "only those were sent");

    assert!(job.run(&provider, &["--resume"]).status.success());
    assert!(provider.asked().is_empty(), "nothing is left to do");
}

#[test]
fn equal_rows_are_as_many_rows() {
    let provider = Provider::start(SimProvider::builder());
    let same = r#"{"model":"gpt-test","messages":[]}"#;
    let laid_out = r#"{"model": "gpt-test", "messages": [] }"#;
    let job = Job::of([same, same, laid_out]);
    assert!(job.run(&provider, &[]).status.success());
    assert_eq!(job.lines().len(), 3);

    let mut input = OpenOptions::new().append(true).open(job.input()).unwrap();
    writeln!(input, "{same}").unwrap();
    let result = job.run(&provider, &["--resume"]);
    assert_eq!(job.lines().len(), 4);
    assert_eq!(
        said(&result, "results"),
        1,
        "three of the four were answered"
    );
}
