//! What cannot be: one clear sentence and exit code 2, or an error row.
use std::fs;

use tollgate_sim::SimProvider;

use crate::common::{Job, Provider, bare_command, chat, said};

#[test]
fn what_cannot_begin_says_why_in_one_line_and_exits_with_2() {
    let job = Job::of([chat(0)]);
    let (input, output) = (job.input(), job.output());
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let files = ["--input", input, "--output", output];
    let local = ["--base-url", "http://127.0.0.1:9"];
    let cases: [(&[&[&str]], &str); 14] = [
        (
            &[
                &["--input", "/nowhere/at/all.jsonl", "--output", output],
                &local,
            ],
            "all.jsonl",
        ),
        (
            &[&["--input", "/", "--output", output], &local],
            "directory",
        ),
        (
            &[
                &["--input", input, "--output", "/nowhere/out.jsonl"],
                &local,
            ],
            "/nowhere/out.jsonl",
        ),
        (&[&["--input", input, "--output", input], &local], "both"),
        (&[&["--input", input], &local], "--output"),
        (&[&["--output", output], &local], "--input"),
        (&[&files], "OPENAI_API_KEY"),
        (
            &[&files, &["--base-url", "https://api.example.com/v1"]],
            "OPENAI_API_KEY",
        ),
        (&[&files, &["--base-url", "nonsense"]], "not a URL"),
        (&[&files, &local, &["--rpm", "0"]], "--rpm"),
        (&[&files, &local, &["--tpm", "-5"]], "--tpm"),
        (&[&files, &local, &["--window-secs", "0"]], "--window-secs"),
        (
            &[&files, &local, &["--rpm", "18446744073709551615"]],
            "requests",
        ),
        (
            &[
                &files,
                &local,
                &["--endpoint", "https://elsewhere.example/"],
            ],
            "--endpoint",
        ),
    ];
    for (args, hint) in cases {
        let args = args.concat();
        let result = bare_command().args(&args).output().unwrap();
        let said = String::from_utf8(result.stderr).unwrap();
        assert_eq!(result.status.code(), Some(2), "{args:?} said {said}");
        assert_eq!(
            said.lines().count(),
            1,
            "{args:?} says one sentence: {said}"
        );
        assert!(said.contains(hint), "{args:?} names {hint}: {said}");
    }
    assert_eq!(
        fs::read_to_string(input).unwrap(),
        chat(0) + "\n",
        "the input is as it was"
    );
}

#[test]
fn an_output_that_is_there_is_not_touched_unasked() {
    let provider = Provider::start(SimProvider::builder());
    let job = Job::of([chat(0)]);
    fs::write(job.output(), "precious\n").unwrap();
    let refused = job.run(&provider, &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(fs::read_to_string(job.output()).unwrap(), "precious\n");
    let foreign = job.run(&provider, &["--resume"]);
    assert_eq!(
        foreign.status.code(),
        Some(2),
        "resuming is for files of this program"
    );
    assert_eq!(fs::read_to_string(job.output()).unwrap(), "precious\n");
    assert!(job.run(&provider, &["--overwrite"]).status.success());
    assert_eq!(job.lines().len(), 1);
}

#[test]
fn a_broken_line_becomes_an_error_row_with_its_number() {
    let provider = Provider::start(SimProvider::builder());
    let job = Job::of([
        &chat(0),
        "",
        "{\"model\":",
        "   ",
        "[1, 2]",
        &chat(1),
        "{\"model\":\"m\"}",
    ]);
    let result = job.run(&provider, &[]);
    assert!(result.status.success());
    let lines = job.lines();
    assert_eq!(lines.len(), 5, "blank lines have no row");
    let mut broken: Vec<_> = lines
        .iter()
        .filter_map(|line| line["error"]["line"].as_u64())
        .collect();
    broken.sort_unstable();
    assert_eq!(broken, [3, 5, 7]);
    assert_eq!((said(&result, "rows"), said(&result, "errors")), (5, 3));
    assert_eq!(
        provider.sim.totals().requests,
        2,
        "a broken line is not sent"
    );
}
