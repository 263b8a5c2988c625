//! The one reader of the wall clock.
//!
//! Everything that waits uses [`tokio::time`]; everything that computes takes the time as an
//! argument. The calendar is needed only to read HTTP dates and to name days and months.
use std::time::SystemTime;

/// The date and time of day.
///
/// ```
/// assert!(tollgate_core::clock::wall() > std::time::UNIX_EPOCH);
/// ```
#[must_use]
#[allow(clippy::disallowed_methods)] // this is the file that may
pub fn wall() -> SystemTime {
    SystemTime::now()
}
