//! Usage records of LLM calls in SQLite: written in batches beside the calls, kept through a crash, and read again for reports and caps.
//!
//! [`Ledger`] is a [`Recorder`](tollgate_usage::Recorder): made first, passed to the layer. A call never waits for it. [`Reader`] sums up
//! what is there, also from another process.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tollgate_core::price::{Price, PriceTable};
//! use tollgate_ledger::{By, Ledger, Select};
//! use tollgate_usage::UsageRecorderLayer;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("usage.sqlite");
//! let ledger = Ledger::open(&path)?;
//! let prices = PriceTable::new().with("gpt-5", Price::per_million("1.25", "10")?);
//! let client = ServiceBuilder::new()
//!     .layer(UsageRecorderLayer::new(ledger.clone()).prices(prices))
//!     // Any HTTP client: hyper-util, reqwest, a mock.
//!     .service(service_fn(|_: Request<Full<Bytes>>| async {
//!         let answer = r#"{"model":"gpt-5","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":500}}"#;
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(answer)))
//!     }));
//! let request = Request::post("https://api.example/v1/chat/completions")
//!     .body(Full::from(r#"{"model":"gpt-5","messages":[]}"#))?;
//! client.oneshot(request).await?.into_body().collect().await?;
//!
//! // At the end of the process; until then, `ledger.snapshot().written` says how much is on the disk.
//! ledger.flush(Duration::from_secs(10)).await?;
//!
//! let reader = ledger.reader()?;
//! let by_model = reader.sums_by(By::Model, &Select::calls())?;
//! assert_eq!(by_model[0].0.as_deref(), Some("gpt-5"));
//! assert_eq!(by_model[0].1.tokens(), 1_500);
//! assert_eq!(by_model[0].1.cost, "0.00625".parse()?);
//! # Ok(())
//! # }
//! ```
//!
//! After a restart, what the calls of this month have cost so far:
//!
//! ```
//! use std::time::{Duration, UNIX_EPOCH};
//! use tollgate_ledger::{Ledger, Reader, Select};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("usage.sqlite");
//! # drop(Ledger::open(&path)?);
//! let november = UNIX_EPOCH + Duration::from_secs(1_793_491_200);
//! let spent = Reader::open(&path)?.sums(&Select::calls().since(november))?;
//! println!("$ {} by {} calls, {} of them of unknown cost", spent.cost, spent.records, spent.unpriced);
//! # Ok(())
//! # }
//! ```
//!
//! # What is kept, and what is not
//!
//! One row for each record, without any text of prompt or answer, any key or any user's name: principals are digests. What answers say
//! of the provider's limits is kept by minute. The file's tables are part of the public interface: they change with a version number in
//! the file, an older file is brought to the newer form when it is opened, and a newer one is refused.
//!
//! # Durability
//!
//! The file is in WAL mode with `synchronous = FULL`. A commit holds up to 1,000 records; records that come one by one share one for 10 ms.
//! Once [`written`](LedgerSnapshot::written) counts a record it survives a panic, `kill -9` and a power cut. A record in the queue survives
//! none of these: [`flush`](Ledger::flush) at the end of the process.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod ledger;
mod reader;
mod row;
mod schema;
mod select;
mod sums;
mod writer;

pub use self::{
    error::{LedgerError, LedgerErrorKind},
    ledger::{Ledger, LedgerSnapshot},
    reader::{By, Measure, Reader, SeenLimit, Spread},
    select::Select,
    sums::Sums,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
