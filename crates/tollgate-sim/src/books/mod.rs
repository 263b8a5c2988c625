//! The provider's books: how much of a limit is used, in exact integers.
//!
//! Time is nanoseconds since the books were opened and comes as an argument. A bucket's level is kept
//! in units × window, so that a nanosecond leaks exactly `limit` of it and nothing is ever rounded.
mod bucket;
mod fixed;
mod rolling;

use std::time::Duration;

use self::{bucket::Bucket, fixed::Fixed, rolling::Rolling};

/// How a limit is enforced.
///
/// The headers state the limit itself, and as `remaining` what would be let through just now: with a small burst or
/// a quantum that is far less than the limit from the very first answer on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Enforcement {
    /// Exact: what arrived in the last window, at every instant. The strictest.
    #[default]
    Rolling,
    /// A bucket that leaks `limit` per window, evenly (OpenAI, Groq, Anthropic).
    Bucket {
        /// What it holds; `None`: one whole window's limit.
        burst: Option<u64>,
    },
    /// A counter that starts anew each window, counted from the provider's start.
    Fixed,
    /// A fixed counter over a shorter time: `limit × q / window` in each `q` (Azure, "60 a minute
    /// may be enforced as 1 a second").
    Quantised {
        /// The shorter time.
        q: Duration,
    },
}

/// One limit's use in one scope.
#[derive(Clone, Debug)]
pub(crate) struct Book {
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Rolling(Rolling),
    Bucket(Bucket),
    Fixed(Fixed),
}

/// A charge that can still be corrected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) cost: u64,
    place: u64,
}

impl Book {
    /// Opens a book for `limit` units per `window` nanoseconds; both are above zero.
    pub(crate) fn new(limit: u64, window: u64, enforcement: Enforcement) -> Self {
        let kind = match enforcement {
            Enforcement::Rolling => Kind::Rolling(Rolling::new(limit, window)),
            Enforcement::Bucket { burst } => {
                Kind::Bucket(Bucket::new(limit, window, burst.unwrap_or(limit)))
            }
            Enforcement::Fixed => Kind::Fixed(Fixed::new(limit, window)),
            Enforcement::Quantised { q } => {
                let q = nanos(q).clamp(1, window);
                Kind::Fixed(Fixed::new(quantum(limit, window, q), q))
            }
        };
        Self { kind }
    }

    /// The most that one request may cost.
    pub(crate) fn capacity(&self) -> u64 {
        match &self.kind {
            Kind::Rolling(book) => book.limit,
            Kind::Bucket(book) => book.burst,
            Kind::Fixed(book) => book.limit,
        }
    }

    /// Units in use, rounded up. May be above the capacity.
    pub(crate) fn used(&mut self, now: u64) -> u64 {
        match &mut self.kind {
            Kind::Rolling(book) => book.used(now),
            Kind::Bucket(book) => book.used(now),
            Kind::Fixed(book) => book.used(now),
        }
    }

    /// Nanoseconds until `cost` fits, if nothing else comes; 0: it fits. `None`: it never will.
    pub(crate) fn wait(&mut self, now: u64, cost: u64) -> Option<u64> {
        if cost > self.capacity() {
            return None;
        }
        Some(match &mut self.kind {
            Kind::Rolling(book) => book.wait(now, cost),
            Kind::Bucket(book) => book.wait(now, cost),
            Kind::Fixed(book) => book.wait(now, cost),
        })
    }

    /// Enters `cost`, whether it fits or not.
    pub(crate) fn charge(&mut self, now: u64, cost: u64) -> Held {
        let place = match &mut self.kind {
            Kind::Rolling(book) => book.charge(now, cost),
            Kind::Bucket(book) => book.charge(now, cost),
            Kind::Fixed(book) => book.charge(now, cost),
        };
        Held { cost, place }
    }

    /// Replaces what was entered, as far as it still counts.
    pub(crate) fn settle(&mut self, now: u64, held: Held, cost: u64) {
        match &mut self.kind {
            Kind::Rolling(book) => book.settle(now, held.place, cost),
            Kind::Bucket(book) => book.settle(now, held.cost, cost),
            Kind::Fixed(book) => book.settle(now, held.place, held.cost, cost),
        }
    }

    /// Nanoseconds until nothing is in use, if nothing else comes.
    pub(crate) fn reset(&mut self, now: u64) -> u64 {
        match &mut self.kind {
            Kind::Rolling(book) => book.reset(now),
            Kind::Bucket(book) => book.reset(now),
            Kind::Fixed(book) => book.reset(now),
        }
    }
}

/// A duration in nanoseconds; 584 years at most.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The part of a limit that one quantum holds, at least one unit.
pub(crate) fn quantum(limit: u64, window: u64, q: u64) -> u64 {
    let share = u128::from(limit) * u128::from(q) / u128::from(window);
    u64::try_from(share).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests;
