//! What the examples share.
pub mod programs;
