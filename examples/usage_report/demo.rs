//! A ledger to look at: a team of twelve and its traffic of some days, through all the real layers, on simulated time.
use std::{
    error::Error,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fastrand::Rng;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::json;
use tokio::{task::JoinSet, time::Instant};
use tollgate::{
    UsageRecord, UsageRecorderLayer, call::CallOptions, clock, prelude::*, price::PriceTable,
    principal::Principal, usage::Recorder,
};
use tollgate_ledger::Ledger;
use tollgate_sim::{Enforcement, Fault, Latency, SimLimit, SimProvider, Unit};
use tower::{ServiceBuilder, ServiceExt};

use crate::figures::DAY;

/// A model, its limits by the minute, its share of the calls in per cent, and whether it has a price.
const MODELS: [(&str, u64, u64, u32); 3] = [
    ("gpt-5-mini", 40, 40_000, 70),
    ("gpt-5", 15, 20_000, 26),
    // Of its own making, so no table has its price.
    ("support-tuned", 10, 10_000, 4),
];

const USERS: u64 = 12;

/// The last full hour, so many hours ago.
#[must_use]
pub fn ago(hours: u64) -> SystemTime {
    let now = clock::wall()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    UNIX_EPOCH + Duration::from_secs((now - now % 3_600).saturating_sub(hours * 3_600))
}

/// Makes a ledger with the traffic of so many hours.
///
/// # Errors
///
/// If it cannot be written.
pub fn make(path: &Path, origin: SystemTime, hours: u64) -> Result<(), Box<dyn Error>> {
    // Simulated time runs ahead of the disk.
    let ledger = Ledger::with_capacity(1_000_000, path)?;
    let provider = provider(origin);
    let simulated = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()?;
    simulated.block_on(async {
        let begun = Instant::now();
        let traffic = MODELS.iter().map(|(model, requests, tokens, share)| {
            let day = Schedule {
                origin,
                hours,
                share: f64::from(*share) / 100.0,
            };
            run(
                model,
                *requests,
                *tokens,
                day,
                &provider,
                dated(&ledger, origin, begun),
            )
        });
        let done = futures_util::future::join_all(traffic).await;
        done.into_iter().collect::<Result<Vec<_>, _>>()
    })?;
    // The disk knows no simulated time.
    let real = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    real.block_on(ledger.flush(Duration::from_secs(60)))?;
    Ok(())
}

fn provider(origin: SystemTime) -> SimProvider {
    let asked = AtomicU64::new(0);
    let mut provider = SimProvider::builder()
        .enforcement(Enforcement::Bucket { burst: None })
        .latency(Latency::LogNormal {
            median: Duration::from_millis(450),
            sigma: 0.5,
        })
        .pace(Duration::from_millis(9))
        .cached_share(0.3)
        .epoch(origin)
        .seed(7)
        .keep_requests(0)
        .on(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
            n if n % 97 == 0 => Fault::Status(503),
            n if n % 181 == 0 => Fault::RateLimited {
                unit: Unit::Tokens,
                retry_after: Some(Duration::from_secs(3)),
            },
            n if n % 331 == 0 => Fault::Reset,
            _ => Fault::None,
        });
    for (model, requests, tokens, _) in MODELS {
        provider = provider
            .limit(SimLimit::requests(requests).for_model(model))
            .limit(SimLimit::tokens(tokens).for_model(model));
    }
    provider.build()
}

/// The recorder of the stack: a record's date is that of the simulation.
fn dated(
    ledger: &Ledger,
    origin: SystemTime,
    begun: Instant,
) -> impl Fn(&UsageRecord) + Clone + Send + Sync + use<> {
    let ledger = ledger.clone();
    move |record: &UsageRecord| {
        let mut record = record.clone();
        record.started = origin + (begun.elapsed().saturating_sub(record.duration));
        ledger.record(&record);
    }
}

/// When the calls of a model come.
struct Schedule {
    origin: SystemTime,
    hours: u64,
    share: f64,
}

impl Schedule {
    /// Calls in a minute: a long hill by day, a batch at ten in the morning, little at night.
    fn calls(&self, minute: u64) -> f64 {
        let at = self.origin + Duration::from_secs(minute * 60);
        let day = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() % DAY.as_secs();
        let hour = day as f64 / 3_600.0;
        let hill = (-((hour - 14.0) / 3.5).powi(2)).exp();
        let batch = if (10.0..10.25).contains(&hour) {
            60.0
        } else {
            0.0
        };
        (0.4 + 7.0 * hill + batch) * self.share
    }
}

/// Runs the traffic of one model.
async fn run(
    model: &'static str,
    requests: u64,
    tokens: u64,
    schedule: Schedule,
    provider: &SimProvider,
    recorder: impl Recorder + Clone + 'static,
) -> Result<(), Box<dyn Error>> {
    let prices = PriceTable::shipped();
    let budget = Budget::in_memory([
        Limit::requests(requests).per_minute(),
        Limit::tokens(tokens).per_minute(),
    ])?;
    let client = ServiceBuilder::new()
        .layer(UsageRecorderLayer::new(recorder.clone()).prices(prices.clone()))
        .retry_on_rate_limit(RateLimitPolicy::default())
        .token_budget(budget)
        // What is sent, and when.
        .layer(UsageRecorderLayer::new(recorder).prices(prices))
        .service(provider.clone());
    let mut rng = Rng::with_seed(model.len() as u64);
    let mut calls = JoinSet::new();
    let begun = Instant::now();
    for minute in 0..schedule.hours * 60 {
        let mean = schedule.calls(minute);
        let count = (mean * (0.5 + rng.f64()) + rng.f64()) as u64;
        let mut seconds: Vec<_> = (0..count).map(|_| rng.f64() * 60.0).collect();
        seconds.sort_unstable_by(f64::total_cmp);
        for second in seconds {
            let at = Duration::from_secs(minute * 60) + Duration::from_secs_f64(second);
            tokio::time::sleep_until(begun + at).await;
            let (request, patience) = request(model, &mut rng)?;
            let client = client.clone();
            calls.spawn(async move {
                if let Ok(answer) = client.oneshot(request).await {
                    // Some callers leave before the end.
                    let read = answer.into_body().collect();
                    let _ = tokio::time::timeout(patience, read).await;
                }
            });
            while calls.try_join_next().is_some() {}
        }
    }
    while calls.join_next().await.is_some() {}
    Ok(())
}

/// A request, and how long its caller waits for the answer.
fn request(model: &str, rng: &mut Rng) -> Result<(Request<Full<Bytes>>, Duration), http::Error> {
    let words = 20 + (rng.f64().powi(3) * 900.0) as usize;
    let prompt = "lorem ".repeat(words);
    let cap = [128, 256, 512, 1_024][rng.usize(..4)];
    let body = json!({
        "model": model,
        "stream": rng.u32(..10) < 6,
        "max_tokens": cap,
        "messages": [{"role": "user", "content": prompt}],
    });
    // A few users ask most.
    let user = (rng.f64().powi(2) * USERS as f64) as u64;
    let patience = Duration::from_secs(if rng.u32(..50) == 0 { 1 } else { 600 });
    let request = Request::post("https://provider.example/v1/chat/completions")
        .header("content-type", "application/json")
        .header("authorization", "Bearer sk-demonstration")
        .extension(CallOptions::new().principal_digest(Principal::from_digest(
            user.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )))
        .body(Full::from(body.to_string()))?;
    Ok((request, patience))
}
