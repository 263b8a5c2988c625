//! A service that answers what the test wrote down, and logs every attempt.
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use bytes::Bytes;
//! use tollgate_sim::{SimError, script::{Reply, Scripted}};
//! use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), SimError> {
//! let upstream = Scripted::new([
//!     Reply::transport_error(SimError::Refused),
//!     Reply::sse([r#"{"choices":[]}"#, "[DONE]"]).after(Duration::from_secs(1)),
//! ]);
//! let request = || Request::post("/v1/responses").body(Full::from("{}")).expect("a request");
//!
//! assert_eq!(upstream.clone().oneshot(request()).await.unwrap_err(), SimError::Refused);
//! let answer = upstream.clone().oneshot(request()).await?;
//! let body = answer.into_body().collect().await?.to_bytes();
//! assert_eq!(body, "data: {\"choices\":[]}\n\ndata: [DONE]\n\n");
//!
//! let log = upstream.attempts();
//! assert_eq!(log[1].body, "{}");
//! assert_eq!(log[0].answered_at, Some(log[0].at));
//! assert_eq!(log[1].answered_at, Some(log[1].at + Duration::from_secs(1)));
//! # Ok(())
//! # }
//! ```
mod attempt;
mod reply;
mod service;

pub(crate) use self::reply::Kind;
pub use self::{
    attempt::Attempt,
    reply::Reply,
    service::{ResponseFuture, Scripted},
};
pub use crate::body::BodyFate;
