//! What the run counts as it goes.
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
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
    /// What the provider accepted, for each model.
    pub accepted: ByModel,
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
        self.0.fetch_add(1, Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Requests that the provider accepted, and the tokens that they were charged as far as we know its rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Requests.
    pub requests: u64,
    /// Tokens.
    pub tokens: u64,
}

/// The same for each model.
#[derive(Debug, Default)]
pub struct ByModel(Mutex<HashMap<Option<Arc<str>>, Accepted>>);

impl ByModel {
    /// Adds a request for a model.
    pub fn add(&self, model: &Option<Arc<str>>, tokens: u64) {
        let mut models = self.lock();
        if !models.contains_key(model) {
            models.insert(model.clone(), Accepted::default());
        }
        if let Some(accepted) = models.get_mut(model) {
            accepted.requests += 1;
            accepted.tokens = accepted.tokens.saturating_add(tokens);
        }
    }

    /// Of one model, or of all together.
    pub fn of(&self, model: Option<&str>) -> Accepted {
        let models = self.lock();
        let wanted = models
            .iter()
            .filter(|(name, _)| model.is_none_or(|one| name.as_deref() == Some(one)));
        wanted.fold(Accepted::default(), |sum, (_, one)| Accepted {
            requests: sum.requests + one.requests,
            tokens: sum.tokens.saturating_add(one.tokens),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Option<Arc<str>>, Accepted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
