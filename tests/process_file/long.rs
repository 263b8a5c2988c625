//! Long files.
#[cfg(target_os = "linux")]
#[test]
fn a_long_file_takes_no_more_memory_than_a_short_one() {
    use std::fs;

    use tollgate_sim::SimProvider;

    use crate::common::{Job, Provider};

    let provider = Provider::start(SimProvider::builder().keep_requests(0).reply_tokens(4));
    let padding = "word ".repeat(2_000);
    let row = |id: usize| {
        format!(
            "{{\"model\":\"text-embedding-3-small\",\"input\":\"{id}\",\"metadata\":\"{padding}\"}}"
        )
    };
    let job = Job::of((0..6_000).map(row));
    let size = fs::metadata(job.input()).unwrap().len();
    assert!(size > 60_000_000, "60 MB of input");
    let run = job
        .command(&provider, &["--concurrency", "64"])
        .spawn()
        .unwrap();
    let mut peak = 0;
    let status = format!("/proc/{}/status", run.id());
    let mut run = run;
    while run.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
        peak = peak.max(kib.unwrap_or(0));
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    assert_eq!(
        fs::read_to_string(job.output()).unwrap().lines().count(),
        6_000
    );
    assert!(peak > 0 && peak < 40 << 10, "the process held {peak} KiB");
}
