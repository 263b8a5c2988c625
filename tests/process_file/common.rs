//! A provider on a socket, the program, and its files.
use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use tollgate_examples::programs::{self, Program};
use tollgate_sim::{Fault, SimBuilder, SimProvider, server::Server};

/// The program, built once.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| programs::build(Program::ProcessFile).unwrap())
}

/// A provider that listens until it is dropped, and remembers what it was asked.
pub(crate) struct Provider {
    pub(crate) sim: SimProvider,
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Bytes>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Provider {
    pub(crate) fn start(builder: SimBuilder) -> Self {
        Self::with_faults(builder, |_| Fault::None)
    }

    /// `fault` sees the request's document.
    pub(crate) fn with_faults(
        builder: SimBuilder,
        fault: impl Fn(&Value) -> Fault + Send + Sync + 'static,
    ) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let sim = builder.on(move |incoming| {
            log.lock().unwrap().push(incoming.body.clone());
            fault(&serde_json::from_slice(incoming.body).unwrap_or_default())
        });
        let sim = sim.build();
        let provider = sim.clone();
        let (ready, url) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let server = Server::bind("127.0.0.1:0", provider).await.unwrap();
                ready.send(server.url()).unwrap();
                let _ = stopped.await;
            });
        });
        Self {
            sim,
            url: url.recv().unwrap(),
            asked,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The documents that were asked since this was last called, each with how often.
    pub(crate) fn asked(&self) -> HashMap<Bytes, usize> {
        let mut counts = HashMap::new();
        for body in self.asked.lock().unwrap().drain(..) {
            *counts.entry(body).or_default() += 1;
        }
        counts
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.stop.take());
        let _ = self.thread.take().map(thread::JoinHandle::join);
    }
}

/// A job: two files in a directory of their own.
pub(crate) struct Job {
    directory: TempDir,
}

impl Job {
    /// Of this input.
    pub(crate) fn of(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let job = Self { directory };
        let mut file = std::io::BufWriter::new(fs::File::create(job.input()).unwrap());
        for line in lines {
            writeln!(file, "{}", line.as_ref()).unwrap();
        }
        file.flush().unwrap();
        job
    }

    pub(crate) fn input(&self) -> PathBuf {
        self.directory.path().join("in.jsonl")
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.directory.path().join("out.jsonl")
    }

    /// The program on this job.
    pub(crate) fn command(&self, provider: &Provider, args: &[&str]) -> Command {
        self.command_to(&provider.url, args)
    }

    /// The same with another address.
    pub(crate) fn command_to(&self, url: &str, args: &[&str]) -> Command {
        let mut command = bare_command();
        command.args(["--base-url", url]);
        command.arg("--input").arg(self.input());
        command.arg("--output").arg(self.output());
        command.args(args);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, provider: &Provider, args: &[&str]) -> Output {
        self.command(provider, args).output().unwrap()
    }

    /// Starts it.
    pub(crate) fn start(&self, provider: &Provider, args: &[&str]) -> Running {
        Running(self.command(provider, args).spawn().unwrap())
    }

    /// The output's lines; a torn one is `null`.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.output()).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_default())
            .collect()
    }

    /// Waits until the output has so many lines.
    pub(crate) fn await_lines(&self, count: usize) {
        for _ in 0..6_000 {
            let text = fs::read(self.output()).unwrap_or_default();
            if text.iter().filter(|&&byte| byte == b'\n').count() >= count {
                return;
            }
            thread::park_timeout(Duration::from_millis(5));
        }
        panic!("the output never has {count} lines");
    }
}

/// The program without any job.
pub(crate) fn bare_command() -> Command {
    let mut command = Command::new(program());
    command.env_remove("OPENAI_API_KEY");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A run under way; killed when it is dropped.
pub(crate) struct Running(Child);

impl Running {
    /// As `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for the end; its exit code.
    pub(crate) fn end(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A chat row whose prompt and metadata hold its number.
pub(crate) fn chat(id: usize) -> String {
    format!(
        "{{\"metadata\":{{\"id\":{id}}},\"model\":\"gpt-test\",\"max_tokens\":8,\
         \"messages\":[{{\"role\":\"user\",\"content\":\"row {id}\"}}]}}"
    )
}

/// The number of a chat row in its output line.
pub(crate) fn id(line: &Value) -> usize {
    usize::try_from(line["metadata"]["id"].as_u64().expect("the line has an id")).unwrap()
}

/// The number in the summary's line of this name.
pub(crate) fn said(output: &Output, name: &str) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("the summary says {name}:\n{text}"))
}
