//! The provider's own count, over the sends of all processes together.
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

/// When who sent how much.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<(Instant, u64)>>>);

impl Log {
    pub(crate) fn add(&self, units: u64) {
        self.0.lock().unwrap().push((Instant::now(), units));
    }

    pub(crate) fn sum(&self) -> u64 {
        self.0.lock().unwrap().iter().map(|&(_, units)| units).sum()
    }

    fn sorted(&self) -> Vec<(Instant, u64)> {
        let mut log = self.0.lock().unwrap().clone();
        log.sort_unstable();
        log
    }

    /// The most that any window held.
    pub(crate) fn most_in(&self, window: Duration) -> u64 {
        let log = self.sorted();
        let (mut most, mut sum, mut from) = (0, 0, 0);
        for &(at, units) in &log {
            sum += units;
            while log[from].0 + window <= at {
                sum -= log[from].1;
                from += 1;
            }
            most = most.max(sum);
        }
        most
    }

    /// The most by which a bucket of `burst` that refills with so many a second is overdrawn; `first` was in it then.
    pub(crate) fn overdraws(&self, first: (Instant, f64), burst: f64, rate: f64) -> f64 {
        let log = self.sorted();
        let ((mut last, mut level), mut worst) = (first, 0.0_f64);
        for &(at, units) in &log {
            level = (level + (at - last).as_secs_f64() * rate).min(burst) - units as f64;
            last = at;
            worst = worst.max(-level);
        }
        worst
    }
}
