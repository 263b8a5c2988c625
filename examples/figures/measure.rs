//! Runs one row of the table and reads what came of it.
use std::{
    fs,
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tollgate_examples::programs::{self, Program};

use crate::{case::Case, competitor};

/// The programs that are run.
pub(crate) struct Programs {
    client: PathBuf,
    provider: PathBuf,
}

impl Programs {
    /// Those of a directory.
    pub(crate) fn of(directory: &Path) -> Self {
        Self {
            client: directory.join("process_file"),
            provider: directory.join("tollgate-sim"),
        }
    }

    /// Has cargo build them.
    pub(crate) fn build() -> Result<Self, String> {
        Ok(Self {
            client: programs::build(Program::ProcessFile)?,
            provider: programs::build(Program::Sim)?,
        })
    }
}

/// One run.
pub(crate) struct Run<'a> {
    pub(crate) case: &'a Case,
    pub(crate) seed: u64,
    pub(crate) concurrency: u32,
    pub(crate) verbose: bool,
    pub(crate) account: Option<&'a Path>,
}

/// What it came to.
pub(crate) struct Figures {
    rows: usize,
    lost: usize,
    account: Value,
    used: Used,
}

/// What the client's process has used.
#[derive(Clone, Copy, Default)]
struct Used {
    wall: Duration,
    cpu: Option<Duration>,
    peak_kib: Option<u64>,
}

impl Run<'_> {
    /// Runs it.
    pub(crate) async fn measure(&self, programs: &Programs) -> Result<Figures, String> {
        let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
        let input = directory.path().join("in.jsonl");
        let output = directory.path().join("out.jsonl");
        let trouble = |error: io::Error| error.to_string();
        let mut file = BufWriter::new(fs::File::create(&input).map_err(trouble)?);
        let written = self.case.shape.write(self.case.rows, self.seed, &mut file);
        written.and_then(|()| file.flush()).map_err(trouble)?;

        let provider = Provider::start(&programs.provider, &self.provider_args())?;
        let url = &provider.url;
        ask(Method::POST, format!("{url}/sim/reset")).await?;
        let mut command = Command::new(&programs.client);
        command.args(["--base-url", url]).args(self.client_args());
        command
            .arg("--input")
            .arg(&input)
            .arg("--output")
            .arg(&output);
        let quiet = || {
            if self.verbose {
                Stdio::inherit()
            } else {
                Stdio::null()
            }
        };
        command.stdin(Stdio::null()).stdout(quiet()).stderr(quiet());
        let other = self
            .case
            .competitor
            .zip(self.case.limits)
            .map(|(other, limits)| tokio::spawn(competitor::run(url.clone(), other, limits)));
        let used = watch(command.spawn().map_err(trouble)?)
            .await
            .map_err(trouble)?;
        if let Some(other) = other {
            other.abort();
        }
        let account = ask(Method::GET, format!("{url}/sim/account")).await?;
        let mut account: Value =
            serde_json::from_slice(&account).map_err(|error| error.to_string())?;
        if self.case.competitor.is_some() {
            let all = ask(Method::GET, format!("{url}/sim/account?requests")).await?;
            competitor::leave_out(&mut account, &all)?;
        }
        if let Some(directory) = self.account {
            let all = ask(Method::GET, format!("{url}/sim/account?requests")).await?;
            let name = format!("{}-{}.json", self.case.name, self.seed);
            fs::create_dir_all(directory).map_err(trouble)?;
            fs::write(directory.join(name), all).map_err(trouble)?;
        }
        drop(provider);
        let answered = answered(&output).map_err(trouble)?;
        Ok(Figures {
            rows: self.case.rows,
            lost: self.case.rows.saturating_sub(answered),
            account,
            used,
        })
    }

    fn provider_args(&self) -> Vec<String> {
        let mut args: Vec<String> = ["--listen", "127.0.0.1:0", "--sigma", "0.4", "--seed"]
            .map(String::from)
            .into();
        args.push(self.seed.to_string());
        if let Some(limits) = self.case.limits {
            args.extend(["--requests".into(), limits.requests.to_string()]);
            args.extend(["--tokens".into(), limits.tokens.to_string()]);
            args.extend(["--window".into(), limits.window.to_string()]);
        }
        if !self.case.provider.contains(&"--latency-ms") {
            args.extend(["--latency-ms".into(), "250".into()]);
        }
        args.extend(self.case.provider.iter().map(ToString::to_string));
        args
    }

    #[allow(clippy::cast_precision_loss)]
    fn client_args(&self) -> Vec<String> {
        let mut args: Vec<String> = self.case.client.iter().map(ToString::to_string).collect();
        if !self.case.client.contains(&"--concurrency") {
            args.extend(["--concurrency".into(), self.concurrency.to_string()]);
        }
        if let Some(limits) = self.case.limits {
            args.extend(["--window-secs".into(), limits.window.to_string()]);
            if let Some(times) = self.case.told {
                let told = |amount: u64| format!("{:.0}", amount as f64 * times);
                args.extend(["--rpm".into(), told(limits.requests)]);
                args.extend(["--tpm".into(), told(limits.tokens)]);
            }
        }
        args
    }
}

/// The provider's process; ends with this value.
struct Provider {
    process: Child,
    url: String,
}

impl Provider {
    fn start(program: &Path, args: &[String]) -> Result<Self, String> {
        let mut process = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut line = String::new();
        if let Some(out) = process.stdout.take() {
            let _ = BufReader::new(out).read_line(&mut line);
        }
        match line.trim().strip_prefix("listening on ") {
            Some(url) => {
                let url = url.to_owned();
                Ok(Self { process, url })
            }
            None => {
                let _ = process.kill();
                let _ = process.wait();
                Err(format!("the provider does not start with {args:?}"))
            }
        }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) async fn ask(method: Method, url: String) -> Result<Bytes, String> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::new(Full::default());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|_| format!("{url} is no address"))?;
    let response = client
        .request(request)
        .await
        .map_err(|error| error.to_string())?;
    let body = response.into_body().collect().await;
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

/// Waits for a process to end, and reads what it has used before it is gone.
async fn watch(mut child: Child) -> io::Result<Used> {
    let began = Instant::now();
    let proc = PathBuf::from(format!("/proc/{}", child.id()));
    let mut used = Used::default();
    loop {
        // The peak is gone when the process has ended, its times stay until it is waited for.
        if let Ok(status) = fs::read_to_string(proc.join("status")) {
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let peak = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok());
            used.peak_kib = peak.or(used.peak_kib);
        }
        if let Ok(stat) = fs::read_to_string(proc.join("stat")) {
            let (cpu, ended) = times(&stat);
            used.cpu = cpu.or(used.cpu);
            if ended {
                break;
            }
        } else if child.try_wait()?.is_some() {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    used.wall = began.elapsed();
    child.wait()?;
    Ok(used)
}

/// User and system time from `/proc/PID/stat`, and whether the process has ended.
fn times(stat: &str) -> (Option<Duration>, bool) {
    // The name, in parentheses, may hold anything.
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return (None, false);
    };
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok());
    // A tick is a hundredth of a second on every Linux that is in use.
    let cpu = ticks(11)
        .zip(ticks(12))
        .map(|(user, system)| Duration::from_millis((user + system) * 10));
    (cpu, fields.first() == Some(&"Z"))
}

/// Lines with an answer.
fn answered(output: &Path) -> io::Result<usize> {
    let mut answered = 0;
    for line in BufReader::new(fs::File::open(output)?).lines() {
        let line: Value = serde_json::from_str(&line?).unwrap_or_default();
        answered += usize::from(line["response"].is_object());
    }
    Ok(answered)
}

impl Figures {
    /// The table's head.
    pub(crate) const HEAD: &'static str = "\
| row | seed | rows | lost | sent | 429 | least s | makespan s | ratio | adm. | wall s | CPU s | RSS MiB |\n\
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

    /// A line of the table.
    pub(crate) fn line(&self, name: &str, seed: u64) -> String {
        let seconds = |key: &str| self.account[key].as_f64();
        let total = |key: &str| self.account["totals"][key].as_u64().unwrap_or(0);
        let makespan = seconds("last_end")
            .zip(seconds("first_arrival"))
            .map(|(end, begin)| end - begin);
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let cpu = self.used.cpu.map(|cpu| cpu.as_secs_f64());
        #[allow(clippy::cast_precision_loss)]
        let peak = self.used.peak_kib.map(|kib| kib as f64 / 1024.0);
        format!(
            "| {name} | {seed} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.rows,
            self.lost,
            total("requests"),
            total("status_429"),
            number(seconds("least_span"), 1),
            number(makespan, 1),
            number(seconds("makespan_ratio"), 3),
            number(seconds("admission_ratio"), 3),
            number(Some(self.used.wall.as_secs_f64()), 1),
            number(cpu, 2),
            number(peak, 1),
        )
    }
}
