//! A tower layer that makes one exact record of every LLM call and attempt, also from streams.
//!
//! [`UsageRecorder`] looks at requests and answers while they pass and hands one [`UsageRecord`]
//! per call to a [`Recorder`]: model, tokens, money, finish reason, timings, limits seen. It delays
//! no byte and buffers no stream.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tollgate_usage::{UsageRecorderLayer, UsageTotals};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let totals = UsageTotals::new();
//! let client = ServiceBuilder::new()
//!     .layer(UsageRecorderLayer::new(totals.clone()))
//!     // Any HTTP client: hyper-util, reqwest, a mock.
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         let answer = r#"{"model":"gpt-5-2025-08-07","choices":[],"usage":
//!             {"prompt_tokens":12,"completion_tokens":30,"total_tokens":42}}"#;
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(answer)))
//!     }));
//!
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::from(r#"{"model":"gpt-5","messages":[]}"#))?;
//! let answer = client.oneshot(request).await?;
//! // The record is made when the answer's body has ended.
//! answer.into_body().collect().await?;
//!
//! let used = totals.snapshot();
//! assert_eq!((used.all.calls, used.all.total), (1, 42));
//! assert_eq!(used.model("gpt-5-2025-08-07").map(|model| model.output), Some(30));
//! # Ok(())
//! # }
//! ```
//!
//! With prices, for a stream, and with a function as recorder:
//!
//! ```
//! use std::sync::mpsc;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tollgate_core::price::{Cost, Price, PriceTable};
//! use tollgate_usage::{Completion, UsageRecord, UsageRecorderLayer};
//! use tower::{Layer, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (sender, records) = mpsc::channel();
//! // $1.25 for a million input tokens, $10 for a million output tokens.
//! let prices = PriceTable::new().with("gpt-5", Price::per_million("1.25", "10")?);
//! let layer = UsageRecorderLayer::new(move |record: &UsageRecord| {
//!     sender.send(record.clone()).ok();
//! })
//! .prices(prices);
//!
//! let client = layer.layer(service_fn(|request: Request<Full<Bytes>>| async {
//!     // The caller did not ask for usage, so the layer has.
//!     let asked = request.into_body().collect().await?.to_bytes();
//!     assert!(asked.windows(20).any(|at| at == br#""include_usage":true"#));
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(concat!(
//!         "data: {\"model\":\"gpt-5\",\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":\"stop\"}]}\n\n",
//!         "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2}}\n\n",
//!         "data: [DONE]\n\n",
//!     ))))
//! }));
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::from(r#"{"model":"gpt-5","stream":true,"messages":[]}"#))?;
//! let stream = client.oneshot(request).await?.into_body().collect().await?.to_bytes();
//! assert!(!stream.windows(7).any(|at| at == br#""usage""#), "taken out again");
//!
//! let record = records.try_recv()?;
//! assert_eq!(record.completion, Completion::Complete);
//! assert_eq!(record.cost, Cost::Exact("0.00003".parse()?));
//! # Ok(())
//! # }
//! ```
//!
//! # Calls and attempts
//!
//! A recorder outside the layers that send requests on their own account (retry, fallback, budget)
//! records [`Call`](RecordKind::Call)s: the answer that the caller got, with the attempts before it
//! in [`failed_attempts`](UsageRecord::failed_attempts). One inside them, or inside another
//! recorder, records [`Attempt`](RecordKind::Attempt)s, for it cannot know which one is the last.
//! All records of a call have the same [`call`](UsageRecord::call) id. With a recorder in both
//! places every attempt is recorded in full and the call once more; the inner records are
//! [`nested`](UsageRecord::nested), and [`UsageTotals`] leaves those out, so that two recorders may
//! share one handle.
//!
//! # What is recorded when
//!
//! Exactly one record is made for each request that was passed to `call`: when the answer's body
//! ends (by its end, its trailers, an error, or because it was dropped), when the inner service
//! fails, or when the future is dropped before there is an answer. An answer that its caller left
//! is [`Partial`](Completion::Partial), with the bytes that came and a guess at the tokens; if its
//! terminal event had come, it is whole.
//!
//! A request that cannot be read (no JSON, a body of unknown length, an upload, a path that is not
//! known) passes untouched and is recorded with what its head tells.
//!
//! # Money
//!
//! A cost is computed with the price of the model that answered at the tier that served it, and is
//! [`Unknown`](tollgate_core::price::Cost::Unknown), never zero, where there is none. Fees beside
//! the tokens (a hosted search, a sandbox) make it a lower bound.
//!
//! A background response (OpenAI's `background`) is only an acknowledgement; its usage comes when it
//! is fetched (`GET /v1/responses/{id}`) after it has finished, and is recorded with the first fetch
//! that states it. Of what is said over a WebSocket (OpenAI's Realtime, Gemini's Live) only the
//! request is recorded.
//!
//! # What the recorder changes
//!
//! Nothing, with one exception: providers of OpenAI's shape state the usage of a stream only if
//! `stream_options.include_usage` is set. Where the caller has not set it the recorder does, and
//! takes the chunk that comes for it out of the answer; all other bytes are as they came. See
//! [`inject_usage`](UsageRecorderLayer::inject_usage).
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod account;
mod body;
mod cut;
#[cfg(feature = "drain")]
mod drain;
mod entry;
mod future;
mod inject;
#[cfg(feature = "jsonl")]
mod json_lines;
mod layer;
mod look;
#[cfg(feature = "metrics")]
mod metrics;
mod record;
mod recorder;
#[cfg(feature = "serde")]
mod serial;
mod service;
mod sink;
mod telemetry;
mod told;
mod totals;
mod watermark;

#[cfg(feature = "drain")]
#[cfg_attr(docsrs, doc(cfg(feature = "drain")))]
pub use self::drain::{Drain, DrainAbandoned, DrainBody, DrainFuture, DrainLayer, DrainSnapshot};
#[cfg(feature = "jsonl")]
#[cfg_attr(docsrs, doc(cfg(feature = "jsonl")))]
pub use self::json_lines::JsonLines;
#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
pub use self::metrics::MetricsRecorder;
pub use self::{
    body::ResponseBody,
    future::ResponseFuture,
    layer::UsageRecorderLayer,
    record::{AttemptRecord, Completion, RecordKind, UsageRecord},
    recorder::{ChannelRecorder, Recorder, Records, channel},
    service::UsageRecorder,
    sink::{Sink, SinkError, SinkQueue, SinkSnapshot, Unflushed},
    totals::{
        Breakdown, FinishTotals, History, Period, SeenLimit, Totals, UsageSnapshot, UsageTotals,
    },
    watermark::{Crossing, SpendPeriod, Watermark, Watermarks},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
