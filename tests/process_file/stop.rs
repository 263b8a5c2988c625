//! Ctrl-C.
use std::time::Duration;

use tollgate_sim::SimProvider;

use crate::common::{Job, Provider, chat, id};

#[test]
fn ctrl_c_finishes_what_is_at_the_provider_and_exits_with_130() {
    for signal in ["INT", "TERM"] {
        let latency = Duration::from_millis(300);
        let provider = Provider::start(SimProvider::builder().latency(latency));
        let job = Job::of((0..400).map(chat));
        let run = job.start(&provider, &["--concurrency", "20"]);
        job.await_lines(20);
        run.signal(signal);
        assert_eq!(run.end(), Some(130));
        let lines = job.lines();
        assert!(lines.len() < 400, "it stopped before the end");
        let sent = provider.sim.totals().requests;
        assert_eq!(lines.len() as u64, sent, "what was sent is written down");
        assert!(lines.iter().all(|line| line["response"].is_object()));

        assert!(job.run(&provider, &["--resume"]).status.success());
        let mut ids: Vec<_> = job.lines().iter().map(id).collect();
        ids.sort_unstable();
        assert!(ids.iter().copied().eq(0..400));
        assert_eq!(
            provider.sim.totals().requests,
            400,
            "nothing was sent twice"
        );
    }
}

#[test]
fn a_second_ctrl_c_waits_for_nothing() {
    let provider = Provider::start(SimProvider::builder().latency(Duration::from_secs(60)));
    let job = Job::of((0..10).map(chat));
    let run = job.start(&provider, &[]);
    while provider.sim.totals().requests < 10 {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    run.signal("INT");
    std::thread::park_timeout(Duration::from_millis(100));
    run.signal("INT");
    assert_eq!(run.end(), Some(130));
}

#[test]
fn rows_that_wait_for_their_turn_do_not_hold_up_the_end() {
    let limits = SimProvider::builder()
        .requests(10)
        .window(Duration::from_secs(60));
    let provider = Provider::start(limits);
    let job = Job::of((0..100).map(chat));
    let run = job.start(&provider, &["--rpm", "10", "--window-secs", "60"]);
    job.await_lines(10);
    let began = tokio::time::Instant::now();
    run.signal("INT");
    assert_eq!(run.end(), Some(130));
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it does not wait for the next window"
    );
    assert_eq!(job.lines().len(), 10);
}
