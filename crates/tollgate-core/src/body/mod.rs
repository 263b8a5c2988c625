//! Bodies: read a request once, look into a response and give it back whole, watch one to its end.
//!
//! The rules that every wrapper here keeps:
//!
//! - A body ends in one of five ways (`None`, trailers, an error, `is_end_stream` after a frame,
//!   drop), exactly one [`End`] is reported, and the inner body is never polled after it.
//! - `poll_frame`, `is_end_stream` and `size_hint` are forwarded.
//! - Bytes are looked at and never changed; what cannot be parsed is unknown, not an error.
//! - In a struct that holds a body and a guard, the body stands first: fields are dropped in order,
//!   so an inner watcher reports before an outer one asks it.
mod end;
mod error;
mod goal;
mod observe;
mod patience;
mod peek;
mod read;
mod replay;
mod signed;
mod tap;

pub use end::{End, Observer};
pub use error::{BodyError, TimedOutBody};
pub use observe::ObservedBody;
pub use patience::Patience;
pub use peek::{Peek, PeekPolicy};
pub use read::{ReadRequest, WholeRequest, readable};
pub use replay::Replay;
pub use signed::signed;
pub use tap::{Tap, TapState, Tapping};
