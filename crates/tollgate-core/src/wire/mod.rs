//! The wire language: pure functions over headers and bytes.
//!
//! Nothing here is `async`, reads a clock or knows of a body type.
pub mod answer;
mod error;
pub mod estimate;
mod json;
pub mod limits;
pub mod outcome;
pub mod prompt;
mod provider;
pub mod retry_after;
pub mod sse;
mod time;
pub mod usage;
