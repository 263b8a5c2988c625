//! Many processes on one limit: what the provider sees, what it costs, who gets what.
//!
//! `cargo bench -p tollgate-redis --bench processes -- [SCENARIO…]` starts a server and so many worker processes, merges
//! the logs of what they sent and replays them through the provider's own count. Without a scenario it runs all of them;
//! `--test` runs one, briefly.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
use std::{
    io::Write,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tollgate_budget::{Ask, BudgetStore, Cost, Enforcement, Limit};
use tollgate_redis::RedisBudget;

/// What a run is.
#[derive(Clone, Copy, Debug)]
struct Scenario {
    name: &'static str,
    processes: usize,
    /// Requests a second that the limit allows; a request has 100 tokens, of which it allows as many.
    rate: f64,
    bucket: bool,
    /// The window, or the time in which the bucket fills.
    period: f64,
    hold: f64,
    /// Of the limit; 0: as much as goes.
    load: f64,
    /// All but one of them send so much of the limit together.
    hungry: bool,
    seconds: f64,
    happens: Happens,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Happens {
    Nothing,
    HalfDie,
    Flush,
    FallsBack,
}

const SPREAD: f64 = 0.1;
const TOKENS: u64 = 100;
/// Trips and waits are counted from then on.
const SETTLES: Duration = Duration::from_secs(3);

fn scenarios() -> Vec<Scenario> {
    let base = Scenario {
        name: "",
        processes: 4,
        rate: 1000.0,
        bucket: true,
        period: 2.0,
        hold: 0.9,
        load: 0.0,
        hungry: false,
        seconds: 12.0,
        happens: Happens::Nothing,
    };
    let full = |name, processes| Scenario {
        name,
        processes,
        seconds: 24.0,
        ..base
    };
    let load = |name, processes| Scenario {
        load: 0.8,
        seconds: 15.0,
        ..full(name, processes)
    };
    let window = |name, processes| Scenario {
        bucket: false,
        period: 10.0,
        seconds: 31.0,
        ..full(name, processes)
    };
    let happens = |name, happens| Scenario {
        happens,
        seconds: 12.0,
        ..full(name, 8)
    };
    // For many processes units are held longer, and so the bucket must be larger.
    let long = |scenario| Scenario {
        hold: 2.0,
        period: 10.0,
        ..scenario
    };
    vec![
        full("saturated-1", 1),
        full("saturated-4", 4),
        full("saturated-16", 16),
        long(full("saturated-32", 32)),
        load("load-4", 4),
        load("load-16", 16),
        long(load("load-32", 32)),
        Scenario {
            hungry: true,
            ..full("hungry-16", 16)
        },
        window("window-4", 4),
        window("window-16", 16),
        Scenario {
            rate: 500.0 / 60.0,
            period: 60.0,
            hold: 5.0,
            seconds: 60.0,
            ..full("minute-500-8", 8)
        },
        happens("half-die-8", Happens::HalfDie),
        happens("flush-8", Happens::Flush),
        happens("falls-back-8", Happens::FallsBack),
        Scenario {
            seconds: 21.0,
            ..window("window-flush-8", 8)
        }
        .with(Happens::Flush),
        Scenario {
            seconds: 21.0,
            ..window("window-falls-back-8", 8)
        }
        .with(Happens::FallsBack),
    ]
}

impl Scenario {
    fn with(self, happens: Happens) -> Self {
        Self { happens, ..self }
    }
}

fn micros() -> u64 {
    let now = tollgate_core::clock::wall().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_micros() as u64
}

fn limits(scenario: &Scenario) -> [Limit; 2] {
    let amount = scenario.rate * scenario.period;
    let period = Duration::from_secs_f64(scenario.period);
    let enforcement = if scenario.bucket {
        Enforcement::Bucket { burst: None }
    } else {
        Enforcement::Rolling
    };
    [
        Limit::requests(amount as u64)
            .per(period)
            .enforcement(enforcement)
            .named("requests"),
        Limit::tokens(amount as u64 * TOKENS)
            .per(period)
            .enforcement(enforcement)
            .named("tokens"),
    ]
}

/// One process: sends, and prints when; then how often it went to the server and how long it waited to be admitted.
async fn work(scenario: Scenario, url: &str, begin: u64, index: usize) {
    let budget = RedisBudget::connect(url)
        .hold(Duration::from_secs_f64(scenario.hold))
        .horizon(Duration::from_secs_f64(scenario.hold.max(1.0) * 2.0))
        .timeout(Duration::from_secs(1))
        .limits(limits(&scenario))
        .build()
        .await
        .unwrap();
    sleep(Duration::from_micros(begin.saturating_sub(micros()))).await;
    let end = Instant::now() + Duration::from_secs_f64(scenario.seconds);
    let (tell, told) = std::sync::mpsc::channel();
    let mine = budget.clone();
    let one = move |waited: bool| {
        let (budget, tell) = (mine.clone(), tell.clone());
        async move {
            let asked = Instant::now();
            let ask = Ask::new(Cost::request().tokens(TOKENS, 0));
            let Ok(Ok(held)) = timeout_at(end, budget.acquire(ask)).await else {
                return false;
            };
            drop(held.send());
            let wait = if waited {
                asked.elapsed().as_micros() as u64
            } else {
                0
            };
            tell.send((micros(), wait)).is_ok()
        }
    };
    // In the first seconds the burst, of which nobody knows, counts as spent.
    let early = tokio::spawn({
        let budget = budget.clone();
        async move {
            sleep(SETTLES).await;
            budget.store().trips
        }
    });
    let idle = scenario.hungry && index > 0;
    let mut tasks = Vec::new();
    if scenario.load == 0.0 && !idle {
        for _ in 0..64 {
            let one = one.clone();
            tasks.push(tokio::spawn(async move { while one(false).await {} }));
        }
    } else {
        let load = if idle { 0.02 } else { scenario.load };
        let rate = scenario.rate * load / scenario.processes as f64;
        let mut at = Instant::now();
        while at < end {
            at += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / rate);
            sleep_until(at.min(end)).await;
            if at < end {
                tasks.push(tokio::spawn({
                    let one = one(true);
                    async move {
                        one.await;
                    }
                }));
            }
        }
    }
    // What is sent is told at once: half of them die.
    let writer = std::thread::spawn(move || {
        let mut out = std::io::stdout();
        for (at, wait) in told {
            writeln!(out, "{at} {wait}").unwrap();
        }
    });
    sleep_until(end + Duration::from_millis(100)).await;
    drop(tasks);
    drop(one);
    let store = budget.store();
    writer.join().unwrap();
    let early = early.await.unwrap();
    println!("trips {} {}", store.trips - early, store.failures);
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Ends with the run.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn happen(what: Happens, client: &redis::Client, workers: &mut [Ended]) {
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    match what {
        Happens::Nothing => {}
        Happens::HalfDie => workers
            .iter_mut()
            .step_by(2)
            .for_each(|worker| worker.0.kill().unwrap()),
        Happens::Flush => redis::cmd("FLUSHALL").exec_async(&mut link).await.unwrap(),
        Happens::FallsBack => {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("*")
                .query_async(&mut link)
                .await
                .unwrap();
            let mut all = redis::pipe();
            all.atomic().cmd("FLUSHALL").ignore();
            for key in keys {
                let dump: Vec<u8> = redis::cmd("DUMP")
                    .arg(&key)
                    .query_async(&mut link)
                    .await
                    .unwrap();
                all.cmd("RESTORE").arg(&key).arg(0).arg(dump).ignore();
            }
            sleep(Duration::from_secs(1)).await;
            all.exec_async(&mut link).await.unwrap();
        }
    }
}

/// How far the provider's count was overrun, in requests: a bucket whose burst was spent when the budget's state was
/// born, or a window.
fn overrun(log: &[u64], scenario: &Scenario, born: u64) -> f64 {
    let all = scenario.rate * scenario.period;
    if scenario.bucket {
        // What is set apart is there from the first.
        let (mut level, mut worst) = ((scenario.hold + SPREAD) * scenario.rate, 0.0_f64);
        let mut last = born;
        for &at in log {
            level = (level + at.saturating_sub(last) as f64 / 1e6 * scenario.rate).min(all) - 1.0;
            last = at;
            worst = worst.max(-level);
        }
        return worst;
    }
    let (mut from, mut most) = (0, 0);
    for (index, &at) in log.iter().enumerate() {
        while log[from] + (scenario.period * 1e6) as u64 <= at {
            from += 1;
        }
        most = most.max(index + 1 - from);
    }
    (most as f64 - all).max(0.0)
}

/// When the budget's state was born.
async fn born(client: &redis::Client) -> u64 {
    let mut link = client.get_multiplexed_async_connection().await.unwrap();
    let mut keys = redis::cmd("KEYS");
    let keys: Vec<String> = keys.arg("*}:m").query_async(&mut link).await.unwrap();
    let mut born = redis::cmd("HGET");
    let born = born.arg(&keys[0]).arg("born");
    born.query_async(&mut link).await.unwrap()
}

async fn run(scenario: Scenario) {
    let port = free_port();
    let server = std::env::var("TOLLGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into());
    let _server = Ended(
        Command::new(server)
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .stdout(Stdio::null())
            .spawn()
            .expect("no redis-server: run `bash tests/install.sh` first"),
    );
    let url = format!("redis://127.0.0.1:{port}");
    let client = redis::Client::open(&*url).unwrap();
    while client.get_multiplexed_async_connection().await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    // Nothing is granted of a new state until others have had the time to tell: `build` waits so long.
    let early = 1.7 + f64::max(3.0, 1.5 * scenario.hold);
    let begin = micros() + (early * 1e6) as u64;
    let settled = begin + SETTLES.as_micros() as u64;
    let mut workers: Vec<_> = (0..scenario.processes)
        .map(|index| {
            let program = std::env::current_exe().unwrap();
            let arguments = [
                "worker",
                scenario.name,
                &url,
                &begin.to_string(),
                &index.to_string(),
            ];
            let child = Command::new(program)
                .args(arguments)
                .stdout(Stdio::piped())
                .spawn();
            Ended(child.unwrap())
        })
        .collect();
    let readers: Vec<_> = workers
        .iter_mut()
        .map(|worker| {
            let out = worker.0.stdout.take().unwrap();
            std::thread::spawn(move || std::io::read_to_string(out).unwrap())
        })
        .collect();
    sleep(Duration::from_secs_f64(early + scenario.seconds / 2.0)).await;
    let born = born(&client).await;
    happen(scenario.happens, &client, &mut workers).await;
    let told: Vec<String> = readers
        .into_iter()
        .map(|reader| reader.join().unwrap())
        .collect();
    // Without the first second and, of a window, without the first window, which nobody remembers.
    let skip = if scenario.bucket {
        scenario.seconds / 6.0
    } else {
        scenario.period + scenario.hold + 0.1
    };
    let measured = if scenario.bucket {
        scenario.seconds - skip
    } else {
        20.0_f64.min(scenario.seconds - skip)
    };
    let (from, to) = ((skip * 1e6) as u64, ((skip + measured) * 1e6) as u64);
    let (mut log, mut waits, mut trips, mut failures) = (Vec::new(), Vec::new(), 0, 0);
    let mut each = Vec::new();
    for text in &told {
        let mut sent = 0.0;
        for line in text.lines() {
            let words: Vec<_> = line.split(' ').collect();
            if let ["trips", one, two] = words[..] {
                trips += one.parse::<u64>().unwrap();
                failures += two.parse::<u64>().unwrap();
            } else if let [at, wait] = words[..] {
                // The last line of one that was killed may be cut.
                if let (Ok(at), Ok(wait)) = (at.parse::<u64>(), wait.parse::<u64>()) {
                    if at >= begin {
                        log.push(at);
                        if at >= settled {
                            waits.push(wait);
                        }
                        // Whoever comes first takes what has gathered before.
                        if (begin + from..begin + to).contains(&at) {
                            sent += 1.0;
                        }
                    }
                }
            }
        }
        each.push(sent);
    }
    log.sort_unstable();
    waits.sort_unstable();
    let counted = log
        .iter()
        .filter(|&&at| (begin + from..begin + to).contains(&at))
        .count();
    let share = counted as f64 / (scenario.rate * measured) * 100.0;
    let equal = each.iter().sum::<f64>().powi(2)
        / (each.len() as f64 * each.iter().map(|x| x * x).sum::<f64>());
    let at = |part: f64| {
        waits
            .get((waits.len() as f64 * part) as usize)
            .map_or(0.0, |us| *us as f64 / 1000.0)
    };
    println!(
        "| {} | {} | {} | {:.2} % | {:.4} | {} | {} | {:.1} |",
        scenario.name,
        scenario.hold,
        log.len(),
        share,
        trips as f64 / waits.len() as f64,
        if scenario.hungry || scenario.happens == Happens::HalfDie {
            "".into()
        } else {
            format!("{equal:.4}")
        },
        if scenario.load > 0.0 {
            format!("{:.2} / {:.2}", at(0.5), at(0.99))
        } else {
            String::new()
        },
        overrun(&log, &scenario, born),
    );
    if failures > 0 {
        println!("({}: {failures} visits failed)", scenario.name);
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = scenarios();
    if let [word, name, url, begin, index] = &arguments[..] {
        if word == "worker" {
            let scenario = all.iter().find(|scenario| scenario.name == name).unwrap();
            return work(
                *scenario,
                url,
                begin.parse().unwrap(),
                index.parse().unwrap(),
            )
            .await;
        }
    }
    let brief = arguments.iter().any(|word| word == "--test");
    let named: Vec<_> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .collect();
    println!(
        "| run | hold, s | sent | of the limit | trips a request | Jain | wait p50 / p99, ms | overrun |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|");
    for scenario in all {
        let wanted =
            named.is_empty() || named.iter().any(|name| scenario.name.starts_with(&***name));
        if wanted && (!brief || scenario.name == "saturated-1") {
            run(scenario).await;
        }
    }
}
