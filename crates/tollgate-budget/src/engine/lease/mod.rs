//! Units bought in advance from a store that several processes share.
//!
//! A lease stands beside a limit's own book and never in its place: a request goes when both have room. The book knows
//! what the provider says; the lease knows what the other processes leave. What is in hand is debited already, so a
//! process that dies can waste units and never overspend them.
//!
//! **How long a chunk lasts.** The store debits a chunk for the time from which it may be used. It is used within `hold`
//! after that, or not at all, so what is sent in any span was debited in a span that is longer by `hold` and by what ways
//! to the provider differ; [`Shape`] sets so much of the limit apart.
mod asking;
mod away;
mod chunks;
mod shape;
#[cfg(test)]
mod tests;
mod without;

use std::collections::VecDeque;

pub(crate) use self::{
    asking::{Given, Wish},
    chunks::Part,
    shape::{Holding, Shape},
    without::Without,
};
use self::{away::Away, chunks::Chunk};
use super::{
    bucket::Bucket,
    rate::{NEVER, Nanos, Rate},
};
use crate::limit::Wall;

/// Whether what is in hand is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hand {
    /// From then on.
    At(Nanos),
    /// The store has said that there is nothing before then.
    Empty(Nanos),
    /// Nobody knows before the store has answered.
    Unknown,
    /// The store cannot be reached.
    Down,
}

/// What is in hand of one limit.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    without: Without,
    down: bool,
    /// Nothing comes into hand any more.
    closed: bool,
    /// Instead of the store, while that is down; it begins empty.
    local: Option<Bucket>,
    /// What was used meanwhile.
    away: Away,
    chunks: VecDeque<Chunk>,
    /// Of a cap: what is in hand, what was used, and the period.
    hand: u64,
    spent: u64,
    period: Wall,
    /// Units of the last chunk that was bought.
    given: u64,
    /// Somebody waits for so many, or did then.
    short: u64,
    short_at: Nanos,
    owed: u64,
    /// What a bucket has got back of requests that were sent.
    freed: u64,
    refunds: Vec<(i64, u64)>,
    /// What is not used goes back.
    returns: bool,
    seen: Option<(u64, Nanos)>,
    /// What was used since it was measured, in how many requests; then what is used in a second, and by one.
    taken: u64,
    takes: u64,
    measured: Nanos,
    demand: f64,
    size: f64,
    used_at: Nanos,
    claimed: u64,
    asked: bool,
    asked_at: Nanos,
    /// It gave nothing then.
    bare: bool,
    /// What was asked for last was not there yet.
    waited: bool,
    back: Nanos,
    /// What it gives comes too late: so long it is left alone.
    rests: Nanos,
    /// What was needed then: of a cap there may be enough for less.
    back_for: u64,
    needed: u64,
    share: f64,
    pub(crate) holders: u32,
    /// When its place in the list of those to be asked for is.
    pub(crate) due: Nanos,
}

impl Lease {
    pub(crate) fn new(id: u64, without: Without, down: bool) -> Self {
        Self {
            id,
            without,
            down,
            closed: false,
            local: None,
            away: Away::default(),
            chunks: VecDeque::new(),
            hand: 0,
            spent: 0,
            period: 0,
            given: 0,
            short: 0,
            short_at: 0,
            owed: 0,
            freed: 0,
            refunds: Vec::new(),
            returns: false,
            seen: None,
            taken: 0,
            takes: 0,
            measured: 0,
            demand: 0.0,
            size: 0.0,
            used_at: 0,
            claimed: 0,
            asked: false,
            asked_at: 0,
            bare: false,
            waited: false,
            back: 0,
            rests: 0,
            back_for: 0,
            needed: 0,
            share: 0.0,
            holders: 1,
            due: NEVER,
        }
    }

    /// A cap's period: what was in hand of another one is gone.
    fn roll(&mut self, shape: Shape) {
        if let Shape::Cap { ends } = shape {
            if ends != self.period {
                self.period = ends;
                (self.hand, self.spent, self.claimed, self.owed) = (0, 0, 0, 0);
                self.back = 0;
            }
        }
    }

    /// Nothing is in hand, nobody waits, and nothing is left to say.
    pub(crate) fn is_idle(&mut self, now: Nanos, shape: Shape) -> bool {
        self.roll(shape);
        self.expire(now);
        let quiet = !self.asked && !self.has_news();
        quiet && self.left() == 0 && self.spent == 0
    }

    /// Whether so many units are in hand, or when.
    pub(crate) fn fits(&mut self, now: Nanos, rate: Rate, shape: Shape, units: u64) -> Hand {
        self.roll(shape);
        self.expire(now);
        let units = units.min(shape.capacity(rate));
        if let Some(at) = self.holds(now, units) {
            return Hand::At(at);
        }
        if self.down {
            return match self.without {
                Without::Closed => Hand::Down,
                Without::Open => Hand::At(now),
                Without::Share { parts } => Hand::At(self.fits_alone(now, rate, parts, units)),
            };
        }
        if self.opens(now, units) > now && !self.asked {
            // It is looked at again then. Asked for now, it would speak for those who need less, and may have it.
            return Hand::Empty(self.back);
        }
        self.short = self.short.max(units);
        self.short_at = now;
        Hand::Unknown
    }

    /// From when on so many units are in hand.
    fn holds(&self, now: Nanos, units: u64) -> Option<Nanos> {
        if self.hand >= units {
            return Some(now);
        }
        let mut dates = self.chunks.iter().map(|chunk| chunk.usable.max(now));
        dates.find(|&at| {
            // Of those that came before, some are gone by then.
            self.alive(at) >= units
        })
    }

    /// Uses units that fit, or that go whether they fit or not.
    pub(crate) fn take(&mut self, now: Nanos, rate: Rate, shape: Shape, units: u64) -> Part {
        self.roll(shape);
        self.expire(now);
        // What another one lacks is still to be asked for: he may wait for it where nothing else wakes him.
        self.used_at = now;
        self.taken = self.taken.saturating_add(units);
        self.takes += 1;
        if let Shape::Cap { ends } = shape {
            self.hand = self.hand.saturating_sub(units);
            self.spent = self.spent.saturating_add(units);
            return Part {
                date: ends,
                expires: NEVER,
            };
        }
        let mut part = Part {
            date: 0,
            expires: NEVER,
        };
        let mut rest = units;
        for chunk in &mut self.chunks {
            if rest == 0 || chunk.usable > now {
                break;
            }
            let some = rest.min(chunk.left);
            chunk.left -= some;
            rest -= some;
            // Of several, the first: what goes back to a date too early is missing for longer, never too short.
            if part.date == 0 {
                part.date = chunk.date;
            }
            part.expires = part.expires.min(chunk.expires);
        }
        if rest > 0 {
            if self.down {
                self.take_alone(now, rate, rest);
            } else {
                self.owed = self.owed.saturating_add(rest);
            }
        }
        part
    }

    /// They are being sent, later than their chunk lasted: they are debited once more, for now.
    pub(crate) fn sent(&mut self, now: Nanos, part: &mut Part, units: u64) {
        if now >= part.expires && part.date != 0 {
            self.owed = self.owed.saturating_add(units);
            *part = Part {
                date: 0,
                expires: 0,
            };
        }
    }

    /// Units were used that nobody had reckoned with.
    pub(crate) fn owe(&mut self, shape: Shape, part: Part, units: u64) {
        match shape {
            Shape::Cap { ends } if ends == part.date => {
                self.hand = self.hand.saturating_sub(units);
                self.spent = self.spent.saturating_add(units);
            }
            // Of a period that is over.
            Shape::Cap { .. } => {}
            _ => self.owed = self.owed.saturating_add(units),
        }
    }

    /// Units were not used after all; `sent`: the provider has counted them, and gives them back.
    pub(crate) fn back(&mut self, now: Nanos, shape: Shape, part: Part, units: u64, sent: bool) {
        match shape {
            Shape::Cap { ends } => {
                if ends == part.date && ends == self.period {
                    self.spent = self.spent.saturating_sub(units);
                    if !self.closed {
                        self.hand = self.hand.saturating_add(units);
                    }
                }
                return;
            }
            // The provider's bucket has it back, if it was not full; the store knows that.
            Shape::Bucket { .. } if sent => {
                // By the time the store is back, the bucket may have been full.
                if !self.down {
                    self.freed = self.freed.saturating_add(units);
                }
                return;
            }
            _ => {}
        }
        if part.date == 0 {
            return;
        }
        if now < part.expires {
            self.put(now, part.expires, part.date, units);
        } else if matches!(shape, Shape::Rolling { .. }) {
            self.refund(part.date, units);
        }
    }

    /// The provider has counted so many units used at that time.
    pub(crate) fn saw(&mut self, used: u64, at: Nanos) {
        if self.seen.is_none_or(|(_, before)| at >= before) {
            self.seen = Some((used, at));
        }
    }
}
