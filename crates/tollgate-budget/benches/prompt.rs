//! What it takes to know how many tokens a prompt of 1 MB has.
//!
//! ```console
//! $ taskset -c 0 cargo bench -p tollgate-budget --bench prompt --features bpe-openai
//! ```
//!
//! CPU time of one thread, median of nine rounds. *Read* is the reading of the request's head, which counts the characters;
//! *estimate* is the provider's rule on what was read; *handed over* is what the exact count costs the thread of the call,
//! up to where it waits; *counted* is the count itself, done here inline.
#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

use std::{
    hint::black_box,
    task::{Context, Waker},
    time::Duration,
};

use bytes::Bytes;
use cpu_time::ThreadTime;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::Full;
use tollgate_budget::{Budget, ChargeProfile, Charging, Limit, TokenBudgetLayer, Tokenizer};
use tollgate_core::wire::prompt::RequestFacts;
use tower::{Layer, Service, service_fn};

fn median(mut work: impl FnMut() -> Duration) -> f64 {
    let mut rounds: Vec<_> = (0..9).map(|_| work()).collect();
    rounds.sort_unstable();
    rounds[4].as_secs_f64() * 1e6
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let start = ThreadTime::now();
    black_box(work());
    start.elapsed()
}

fn main() {
    let prose =
        "The quick brown fox jumps over the lazy dog, and nobody knows why. ".repeat(16_000);
    let size = 1_000_000;
    let uri = Uri::from_static("http://provider.test/v1/chat/completions");
    println!("| prompt of 1 MB | read µs | estimate µs | handed over µs | counted µs |");
    println!("|---|---|---|---|---|");
    for (name, text) in [
        ("prose", prose[..size].to_owned()),
        ("one letter", "a".repeat(size)),
        ("spaces", " ".repeat(size)),
    ] {
        let document = serde_json::json!({
            "model": "gpt-4o", "max_tokens": 10,
            "messages": [{"role": "user", "content": text}],
        });
        let body = Bytes::from(document.to_string());
        let read = || RequestFacts::read(&Method::POST, &uri, &HeaderMap::new(), &body);
        let facts = read();
        let read = median(|| timed(read));
        let estimate = median(|| timed(|| ChargeProfile::sum().estimate(&facts)));
        let count = || {
            let mut sum = 0;
            assert!(facts.each_text(|text| sum += bpe_openai::o200k_base().count(text)));
            sum
        };
        count(); // loads the table
        let counted = median(|| timed(count));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let handed = runtime.block_on(async {
            let budget = |exact: bool| {
                let charging = Charging::auto();
                let charging = if exact {
                    charging.exact(Tokenizer::ByModel)
                } else {
                    charging
                };
                let limit = Limit::tokens(1 << 40).per_minute();
                Budget::builder()
                    .limit(limit)
                    .charging(charging)
                    .build()
                    .unwrap()
            };
            let layer = TokenBudgetLayer::new(budget(true));
            let mut service = layer.layer(service_fn(|_: Request<Full<Bytes>>| async {
                Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
            }));
            median(|| {
                let request = Request::post(uri.clone())
                    .body(Full::from(body.clone()))
                    .unwrap();
                let mut call = Box::pin(service.call(request));
                timed(|| {
                    let mut cx = Context::from_waker(Waker::noop());
                    assert!(
                        call.as_mut().poll(&mut cx).is_pending(),
                        "it is counted elsewhere"
                    );
                })
            })
        });
        println!("| {name} | {read:.0} | {estimate:.2} | {handed:.0} | {counted:.0} |");
    }
}
