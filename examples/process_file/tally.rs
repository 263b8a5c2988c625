//! What the run counts as it goes.
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// Counts of the whole run. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Counts>);

/// The counts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Rows that were read, blank lines aside.
    pub rows: Count,
    /// Rows that an earlier run has answered.
    pub skipped: Count,
    /// Answers written.
    pub results: Count,
    /// Error lines written.
    pub errors: Count,
    /// Requests that went to the provider.
    pub sent: Count,
    /// Requests of these that the provider answered with 429.
    pub limited: Count,
    /// Requests that the provider accepted.
    pub accepted: Count,
    /// Tokens that these were charged, as far as we know the provider's rule.
    pub charged: Count,
    /// When the first and the last request went out.
    pub times: Times,
    /// Requests sent for a row beyond its first.
    pub again: Count,
    /// Answers that another model gave than the one asked for.
    pub fallbacks: Count,
    /// Rows that were given up because the run was stopped; they have no line.
    pub abandoned: Count,
}

impl std::ops::Deref for Tally {
    type Target = Counts;

    fn deref(&self) -> &Counts {
        &self.0
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add_one(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A first and a last time.
#[derive(Debug, Default)]
pub struct Times(Mutex<Option<(Instant, Instant)>>);

impl Times {
    /// It is that time again.
    pub fn note(&self) {
        let now = Instant::now();
        let mut times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = times.map_or(now, |(first, _)| first);
        *times = Some((first, now));
    }

    /// From the first to the last.
    pub fn span(&self) -> Duration {
        let times = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        times.map_or(Duration::ZERO, |(first, last)| last - first)
    }
}

/// What one row's requests are doing; travels with them in their extensions.
#[derive(Clone, Debug, Default)]
pub struct Trip(Arc<TripState>);

#[derive(Debug, Default)]
struct TripState {
    sent: AtomicU32,
    at_provider: AtomicBool,
}

impl Trip {
    /// A request goes out; its number, from 1.
    pub fn leaves(&self) -> u32 {
        self.0.at_provider.store(true, Relaxed);
        self.0.sent.fetch_add(1, Relaxed) + 1
    }

    /// It has come back, and not with an answer that is worth reading.
    pub fn failed(&self) {
        self.0.at_provider.store(false, Relaxed);
    }

    /// Requests sent.
    pub fn sent(&self) -> u32 {
        self.0.sent.load(Relaxed)
    }

    /// Whether the provider is at work on it, or the answer is being read.
    pub fn at_provider(&self) -> bool {
        self.0.at_provider.load(Relaxed)
    }
}
