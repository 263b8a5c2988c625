//! Units bought in advance from a store that several processes share.
//!
//! A lease stands beside a limit's own book and never in its place: a request goes when both have room. The book knows
//! what the provider says; the lease knows what the other processes leave. What is in hand is debited already, so a
//! process that dies can waste units and never overspend them.
//!
//! **How long a chunk lasts.** The store debits a chunk for the time from which it may be used. It is used within `hold`
//! after that, or not at all, so what is sent in any span was debited in a span that is longer by `hold` and by what ways
//! to the provider differ; [`Shape`] sets so much of the limit apart.
use std::collections::VecDeque;

use super::{
    bucket::Bucket,
    rate::{NEVER, Nanos, Rate, SECOND, narrow},
};
use crate::limit::{Enforcement, Wall};

/// Chunks that are kept apart. What comes when there are so many goes back to a window, and is forgotten of a bucket.
const MOST_CHUNKS: usize = 8;
/// Refunds of so many dates are told one by one; the oldest are dropped, which is too strict and never too lax.
const MOST_REFUNDS: usize = 64;
/// Of what was bought last, such a part is left when more is bought.
const REFILL: u64 = 8;
/// What is in hand of a cap and not used is given back after so many holds.
const LINGER: u64 = 5;

/// What a store is to keep for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A bucket of so many units that refills at the limit's rate.
    Bucket { burst: u64 },
    /// So many units in any window.
    Rolling { amount: u64, window: Nanos },
    /// So many until the period ends.
    Cap { ends: Wall },
}

/// How long what is bought may be kept, and what ways differ by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) hold: Nanos,
    pub(crate) spread: Nanos,
}

impl Holding {
    /// The same for a limit that is too fine for it.
    fn within(self, most: Nanos) -> Self {
        let spread = self.spread.min(most / 4);
        let hold = self.hold.min(most - spread).max(1);
        Self { hold, spread }
    }

    fn span(self) -> Nanos {
        self.hold.saturating_add(self.spread)
    }
}

impl Shape {
    /// What the store keeps for a limit of the provider's, and for how long a chunk lasts.
    pub(crate) fn of(enforcement: Enforcement, rate: Rate, told: Holding) -> (Self, Holding) {
        match enforcement {
            Enforcement::Bucket { burst } => {
                let burst = burst.unwrap_or(rate.amount).min(rate.amount);
                // Half of the burst is left whatever is set apart.
                let holding = told.within(rate.time_of(burst) / 2);
                let apart = u128::from(holding.span()) * u128::from(rate.amount);
                let apart = narrow(apart.div_ceil(u128::from(rate.period)));
                let burst = burst.saturating_sub(apart).max(1);
                (Self::Bucket { burst }, holding)
            }
            Enforcement::Quantised { slice } => {
                let slice = narrow(slice.as_nanos()).max(1);
                let amount = (rate.amount / rate.period.div_ceil(slice)).max(1);
                Self::rolling(amount, slice, told)
            }
            // Safe under a fixed window too, wherever it begins.
            Enforcement::Auto | Enforcement::Rolling | Enforcement::Fixed => {
                Self::rolling(rate.amount, rate.period, told)
            }
        }
    }

    fn rolling(amount: u64, period: Nanos, told: Holding) -> (Self, Holding) {
        let holding = told.within(period / 10);
        let window = period.saturating_add(holding.span());
        (Self::Rolling { amount, window }, holding)
    }

    /// The most that one request may take.
    pub(crate) fn capacity(self, rate: Rate) -> u64 {
        match self {
            Self::Bucket { burst } => burst,
            Self::Rolling { amount, .. } => amount,
            Self::Cap { .. } => rate.amount,
        }
    }
}

/// What is done when the store cannot be reached and nothing is left in hand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Without {
    /// It is refused.
    Closed,
    /// A part of the limit is kept here: so many of a million.
    Share { parts: u64 },
    /// The limit is kept here, whole.
    Open,
}

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

/// Which chunk units came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The store's date of it, in its microseconds; 0: of none.
    date: i64,
    expires: Nanos,
}

#[derive(Clone, Copy, Debug)]
struct Chunk {
    usable: Nanos,
    expires: Nanos,
    date: i64,
    left: u64,
}

/// What is asked of the store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// So much would be good.
    pub(crate) want: u64,
    /// Less is of no use.
    pub(crate) need: u64,
    /// Units a second.
    pub(crate) demand: f64,
    /// Used beyond what was bought.
    pub(crate) owed: u64,
    /// Bought, and not used after all: by the date of the chunk.
    pub(crate) refunds: Vec<(i64, u64)>,
    /// The provider's count, and when it counted.
    pub(crate) seen: Option<(u64, Nanos)>,
    /// All of a cap that is used or in hand.
    pub(crate) claim: u64,
}

/// What the store has given.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Given {
    pub(crate) units: u64,
    /// The time of ours from which it may be used, and until when.
    pub(crate) usable: Nanos,
    pub(crate) expires: Nanos,
    pub(crate) date: i64,
    /// There is nothing more before then; 0: nothing is known.
    pub(crate) back: Nanos,
    /// A process's fair share in units a second; 0: no one is held to it.
    pub(crate) share: f64,
    /// Processes that share the limit.
    pub(crate) holders: u32,
}

/// What is in hand of one limit.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) id: u64,
    without: Without,
    down: bool,
    /// Instead of the store, while that is down.
    local: Bucket,
    /// What was used meanwhile.
    used_without: u64,
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
    refunds: Vec<(i64, u64)>,
    /// What is not used goes back.
    returns: bool,
    seen: Option<(u64, Nanos)>,
    taken: u64,
    measured: Nanos,
    demand: f64,
    used_at: Nanos,
    claimed: u64,
    asked: bool,
    asked_at: Nanos,
    back: Nanos,
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
            local: Bucket::default(),
            used_without: 0,
            chunks: VecDeque::new(),
            hand: 0,
            spent: 0,
            period: 0,
            given: 0,
            short: 0,
            short_at: 0,
            owed: 0,
            refunds: Vec::new(),
            returns: false,
            seen: None,
            taken: 0,
            measured: 0,
            demand: 0.0,
            used_at: 0,
            claimed: 0,
            asked: false,
            asked_at: 0,
            back: 0,
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

    /// When it is of use to ask for so many.
    fn opens(&self, now: Nanos, units: u64) -> Nanos {
        if units < self.back_for {
            now
        } else {
            self.back.max(now)
        }
    }

    fn expire(&mut self, now: Nanos) {
        if self
            .chunks
            .iter()
            .all(|chunk| chunk.expires > now && chunk.left > 0)
        {
            return;
        }
        for at in (0..self.chunks.len()).rev() {
            let Chunk {
                expires,
                date,
                left,
                ..
            } = self.chunks[at];
            if expires <= now || left == 0 {
                self.chunks.remove(at);
                if left > 0 && self.returns {
                    self.refund(date, left);
                }
            }
        }
    }

    /// A window takes back what was not used of it.
    fn refund(&mut self, date: i64, units: u64) {
        if let Some((_, sum)) = self.refunds.iter_mut().find(|(of, _)| *of == date) {
            *sum = sum.saturating_add(units);
            return;
        }
        if self.refunds.len() >= MOST_REFUNDS {
            self.refunds.remove(0);
        }
        self.refunds.push((date, units));
    }

    /// In hand now or later.
    fn left(&self) -> u64 {
        let chunks = self.chunks.iter().map(|chunk| chunk.left);
        chunks.fold(self.hand, u64::saturating_add)
    }

    /// Nothing is in hand, nobody waits, and nothing is left to say.
    pub(crate) fn is_idle(&mut self, now: Nanos) -> bool {
        self.expire(now);
        let quiet = !self.asked && self.owed == 0 && self.refunds.is_empty();
        quiet && self.left() == 0 && self.spent == 0
    }

    fn share_of(rate: Rate, parts: u64, holders: u32) -> Rate {
        let amount = u128::from(rate.amount) * u128::from(parts) / 1_000_000;
        let amount = narrow(amount / u128::from(holders.max(1))).max(1);
        Rate { amount, ..rate }
    }

    /// Whether so many units are in hand, or when.
    pub(crate) fn fits(&mut self, now: Nanos, rate: Rate, shape: Shape, units: u64) -> Hand {
        self.roll(shape);
        self.expire(now);
        let units = units.min(shape.capacity(rate));
        if self.hand >= units {
            return Hand::At(now);
        }
        for chunk in &self.chunks {
            // Of those that came before, some are gone by then.
            let at = chunk.usable.max(now);
            let alive = self.chunks.iter();
            let alive = alive.filter(|chunk| chunk.usable <= at && chunk.expires > at);
            let sum = alive.fold(self.hand, |sum, chunk| sum.saturating_add(chunk.left));
            if sum >= units {
                return Hand::At(at);
            }
        }
        if self.down {
            return match self.without {
                Without::Closed => Hand::Down,
                Without::Open => Hand::At(now),
                Without::Share { parts } => {
                    let rate = Self::share_of(rate, parts, self.holders);
                    let burst = (rate.amount / 16).max(1);
                    Hand::At(self.local.fits_at(now, rate, burst, units).max(now))
                }
            };
        }
        self.short = self.short.max(units);
        self.short_at = now;
        if self.opens(now, units) > now && !self.asked {
            return Hand::Empty(self.back);
        }
        Hand::Unknown
    }

    /// Uses units that fit, or that go whether they fit or not.
    pub(crate) fn take(&mut self, now: Nanos, rate: Rate, shape: Shape, units: u64) -> Part {
        self.roll(shape);
        self.expire(now);
        // What another one lacks is still to be asked for: he may wait for it where nothing else wakes him.
        self.used_at = now;
        self.taken = self.taken.saturating_add(units);
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
            part = Part {
                date: chunk.date,
                expires: part.expires.min(chunk.expires),
            };
        }
        if rest > 0 {
            if self.down {
                self.used_without = self.used_without.saturating_add(rest);
                if let Without::Share { parts } = self.without {
                    let rate = Self::share_of(rate, parts, self.holders);
                    self.local.take(now, rate, rest);
                }
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
    pub(crate) fn back(
        &mut self,
        now: Nanos,
        shape: Shape,
        holding: Holding,
        part: Part,
        units: u64,
        sent: bool,
    ) {
        match shape {
            Shape::Cap { ends } => {
                if ends == part.date && ends == self.period {
                    self.spent = self.spent.saturating_sub(units);
                    self.hand = self.hand.saturating_add(units);
                }
                return;
            }
            // It may be used again from now on, as the provider's own bucket may.
            Shape::Bucket { .. } if sent => {
                let expires = now.saturating_add(holding.hold);
                self.put(now, expires, part.date, units);
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

    fn put(&mut self, usable: Nanos, expires: Nanos, date: i64, units: u64) {
        let same = |chunk: &&mut Chunk| chunk.date == date && chunk.expires <= expires;
        if let Some(chunk) = self.chunks.iter_mut().find(same) {
            chunk.left = chunk.left.saturating_add(units);
            return;
        }
        if self.chunks.len() >= MOST_CHUNKS {
            // Never joined to another, which may be of use earlier or for longer.
            if self.returns && date != 0 {
                self.refund(date, units);
            }
            return;
        }
        let at = self.chunks.partition_point(|chunk| chunk.usable <= usable);
        let chunk = Chunk {
            usable,
            expires,
            date,
            left: units,
        };
        self.chunks.insert(at, chunk);
    }

    /// The provider has counted so many units used at that time.
    pub(crate) fn saw(&mut self, used: u64, at: Nanos) {
        if self.seen.is_none_or(|(_, before)| at >= before) {
            self.seen = Some((used, at));
        }
    }

    fn measure(&mut self, now: Nanos, hold: Nanos) {
        let passed = now.saturating_sub(self.measured);
        if passed < hold / 8 && self.measured > 0 {
            return;
        }
        let rate = self.taken as f64 * SECOND as f64 / passed.max(1) as f64;
        let weight = passed as f64 / (passed + hold / 2) as f64;
        self.demand += (rate - self.demand) * weight;
        (self.taken, self.measured) = (0, now);
    }

    fn has_news(&self) -> bool {
        self.owed > 0 || !self.refunds.is_empty()
    }

    /// What somebody lacks. Who has just left may come again, and finds nothing if it is not asked for.
    fn lacks(&self, now: Nanos, holding: Holding, backlog: u64) -> u64 {
        if now.saturating_sub(self.short_at) < holding.hold {
            return self.short;
        }
        self.short.min(backlog)
    }

    /// When the store is to be asked, or told something.
    pub(crate) fn due_at(&mut self, now: Nanos, holding: Holding, backlog: u128) -> Nanos {
        if self.asked || self.down {
            return NEVER;
        }
        self.expire(now);
        let mut due = NEVER;
        let booked = self.chunks.back().map_or(0, |chunk| chunk.usable);
        let short = self.lacks(now, holding, narrow(backlog));
        let soonest = self.opens(now, short).max(booked);
        if self.left() < short {
            due = soonest;
        }
        let lively = now.saturating_sub(self.used_at) < holding.hold && self.used_at > 0;
        if lively && self.left() <= self.given / REFILL && self.given > 0 {
            due = due.min(soonest);
        }
        if let Some(chunk) = self.chunks.front().filter(|_| self.returns) {
            let told = self.asked_at.saturating_add(holding.hold);
            due = due.min(chunk.expires.max(told).max(now));
        }
        if self.has_news() || self.seen.is_some() {
            due = due.min(self.asked_at.saturating_add(holding.hold).max(now));
        }
        if self.hand > 0 || self.claimed != self.spent.saturating_add(self.hand) {
            let linger = holding.hold.saturating_mul(LINGER).max(SECOND);
            due = due.min(
                self.used_at
                    .max(self.asked_at)
                    .saturating_add(linger)
                    .max(now),
            );
        }
        due
    }

    /// Whether it may as well be asked for now that the store is asked for something else.
    pub(crate) fn goes_along(&mut self, now: Nanos, holding: Holding) -> bool {
        self.expire(now);
        let lively = now.saturating_sub(self.used_at) < holding.hold && self.used_at > 0;
        let booked = self.chunks.back().is_some_and(|chunk| chunk.usable > now);
        let idle = !self.asked && !self.down && !booked && now >= self.back;
        idle && (self.has_news() || lively && self.given > 0 && self.left() <= self.given / 2)
    }

    /// What to ask the store for, now.
    pub(crate) fn ask(
        &mut self,
        now: Nanos,
        rate: Rate,
        shape: Shape,
        holding: Holding,
        backlog: u128,
    ) -> Wish {
        self.roll(shape);
        self.expire(now);
        self.measure(now, holding.hold);
        let (capacity, backlog) = (shape.capacity(rate), narrow(backlog));
        let need = self.lacks(now, holding, backlog).min(capacity);
        let hold = holding.hold as f64 / SECOND as f64;
        let lively = now.saturating_sub(self.used_at) < 2 * holding.hold && self.used_at > 0;
        if matches!(shape, Shape::Cap { .. }) && !lively && backlog == 0 {
            self.hand = 0;
        }
        let steady = if lively {
            (self.demand * hold).ceil() as u64
        } else {
            0
        };
        let target = steady.saturating_add(backlog).max(need).min(capacity);
        let left = self.left();
        let booked = self.chunks.back().is_some_and(|chunk| chunk.usable > now);
        let buys = !booked && now >= self.opens(now, need);
        self.needed = need;
        self.asked = true;
        self.asked_at = now;
        self.claimed = self.spent.saturating_add(self.hand);
        Wish {
            want: if buys { target.saturating_sub(left) } else { 0 },
            need: if buys { need.saturating_sub(left) } else { 0 },
            demand: self.demand + backlog as f64 / hold,
            owed: std::mem::take(&mut self.owed),
            refunds: std::mem::take(&mut self.refunds),
            seen: self.seen.take(),
            claim: self.claimed,
        }
    }

    /// The store has answered.
    pub(crate) fn given(&mut self, now: Nanos, shape: Shape, given: Given) {
        self.asked = false;
        // Who still waits says so at once.
        self.short = 0;
        self.back = given.back;
        self.back_for = match shape {
            Shape::Cap { .. } => self.needed,
            _ => 0,
        };
        self.share = given.share;
        self.holders = given.holders.max(1);
        if given.units == 0 {
            return;
        }
        self.given = given.units;
        self.returns = matches!(shape, Shape::Rolling { .. });
        if let Shape::Cap { ends } = shape {
            if ends == given.date && ends == self.period {
                self.hand = self.hand.saturating_add(given.units);
                self.claimed = self.claimed.saturating_add(given.units);
            }
            return;
        }
        // Also if it has expired on its way, for it may have to go back.
        let usable = given.usable.max(now);
        self.put(usable, given.expires, given.date, given.units);
    }

    /// The store has not answered: what was to be told is told the next time. It may have heard it all the same, and
    /// then hears it twice, which is too strict; refunds are not told again, for twice would be too lax.
    pub(crate) fn unanswered(&mut self, wish: &Wish) {
        self.asked = false;
        self.owed = self.owed.saturating_add(wish.owed);
        if wish.claim > 0 {
            // Nobody has heard it: it differs from whatever there is to claim.
            self.claimed = u64::MAX;
        }
    }

    /// The store cannot be reached, or can be again.
    pub(crate) fn outage(&mut self, now: Nanos, rate: Rate, shape: Shape, down: bool) {
        if self.down == down {
            return;
        }
        self.down = down;
        self.asked = false;
        self.back = 0;
        match (down, self.without) {
            // What the store would have allowed may be used up by now: it begins empty.
            (true, Without::Share { parts }) => {
                let rate = Self::share_of(rate, parts, self.holders);
                self.local = Bucket::default();
                self.local.take(now.max(1), rate, (rate.amount / 16).max(1));
            }
            (true, _) => {}
            (false, _) => {
                // What was used without it longer ago than one period is forgotten by the provider too.
                let used = std::mem::take(&mut self.used_without).min(rate.amount);
                match shape {
                    Shape::Cap { .. } => {}
                    _ => self.owed = self.owed.saturating_add(used),
                }
            }
        }
    }

    /// When the last of so many units would be through, as far as can be told.
    pub(crate) fn drained_at(&self, now: Nanos, units: u128) -> Nanos {
        let left = u128::from(self.left());
        let usable = self
            .chunks
            .back()
            .map_or(now, |chunk| chunk.usable.max(now));
        if units <= left {
            return usable;
        }
        let from = usable.max(self.back);
        if self.share <= 0.0 {
            return from;
        }
        let wait = (units - left) as f64 / self.share * SECOND as f64;
        // Above 2^64 it stays there.
        from.saturating_add(wait as u64)
    }

    /// Nothing is bought or spent any more: what is in hand goes back. What is left to tell, if anything.
    pub(crate) fn close(&mut self, now: Nanos, rate: Rate, shape: Shape) -> Option<Wish> {
        self.roll(shape);
        self.outage(now, rate, shape, false);
        self.expire(now);
        for chunk in std::mem::take(&mut self.chunks) {
            if self.returns {
                self.refund(chunk.date, chunk.left);
            }
        }
        self.hand = 0;
        let news = self.has_news() || self.claimed != self.spent;
        self.claimed = self.spent;
        (self.without, self.down, self.asked) = (Without::Closed, true, false);
        news.then(|| Wish {
            owed: std::mem::take(&mut self.owed),
            refunds: std::mem::take(&mut self.refunds),
            claim: self.spent,
            ..Wish::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Holding = Holding {
        hold: SECOND,
        spread: 100 * 1_000_000,
    };
    const MINUTE: Rate = Rate {
        amount: 6000,
        period: 60 * SECOND,
    };
    const BUCKET: Shape = Shape::Bucket { burst: 5000 };
    const WINDOW: Shape = Shape::Rolling {
        amount: 6000,
        window: 61 * SECOND,
    };

    fn lease() -> Lease {
        Lease::new(1, Without::Closed, false)
    }

    fn chunk(units: u64, usable: Nanos, date: i64) -> Given {
        Given {
            units,
            usable,
            expires: usable + SECOND,
            date,
            holders: 1,
            ..Given::default()
        }
    }

    #[test]
    fn a_chunk_is_used_from_its_date_on_and_not_after_its_end() {
        let mut lease = lease();
        assert_eq!(lease.fits(5, MINUTE, BUCKET, 1), Hand::Unknown);
        lease.given(5, BUCKET, chunk(10, SECOND, 7));
        assert_eq!(lease.fits(5, MINUTE, BUCKET, 10), Hand::At(SECOND));
        assert_eq!(lease.fits(SECOND, MINUTE, BUCKET, 10), Hand::At(SECOND));
        assert_eq!(lease.fits(SECOND, MINUTE, BUCKET, 11), Hand::Unknown);
        let part = lease.take(SECOND, MINUTE, BUCKET, 4);
        assert_eq!(part.date, 7);
        assert_eq!(lease.fits(2 * SECOND, MINUTE, BUCKET, 1), Hand::Unknown);
    }

    #[test]
    fn what_is_asked_covers_who_waits_and_nothing_is_asked_twice() {
        let mut lease = lease();
        lease.fits(5, MINUTE, BUCKET, 40);
        assert_eq!(lease.due_at(5, HOLD, 40), 5);
        let wish = lease.ask(5, MINUTE, BUCKET, HOLD, 40);
        assert_eq!((wish.need, wish.want), (40, 40));
        assert_eq!(lease.due_at(5, HOLD, 40), NEVER);
        // Booked: nothing more until it is there.
        lease.given(6, BUCKET, chunk(40, SECOND, 7));
        assert_eq!(lease.due_at(6, HOLD, 40), NEVER);
        lease.take(SECOND, MINUTE, BUCKET, 34);
        assert_eq!(lease.due_at(SECOND, HOLD, 0), NEVER);
        // An eighth is left.
        lease.take(SECOND, MINUTE, BUCKET, 1);
        assert_eq!(lease.due_at(SECOND, HOLD, 0), SECOND);
    }

    #[test]
    fn what_is_gone_by_then_is_not_counted_on() {
        let mut lease = lease();
        lease.given(1, WINDOW, chunk(40, 1, 7));
        lease.given(1, WINDOW, chunk(60, SECOND + 1, 8));
        // The forty end when the sixty begin.
        assert_eq!(lease.fits(1, MINUTE, WINDOW, 100), Hand::Unknown);
        assert_eq!(lease.fits(1, MINUTE, WINDOW, 60), Hand::At(SECOND + 1));
    }

    #[test]
    fn what_there_is_no_room_for_is_given_back_or_forgotten_and_never_used_early() {
        for (shape, refunds) in [(WINDOW, vec![(99, 50)]), (BUCKET, vec![])] {
            let mut lease = lease();
            for date in 1..=MOST_CHUNKS as i64 {
                lease.given(1, shape, chunk(1, date as Nanos, date));
            }
            lease.given(1, shape, chunk(50, 3 * SECOND, 99));
            assert_eq!(lease.left(), MOST_CHUNKS as u64, "{shape:?}");
            assert_eq!(lease.fits(100, MINUTE, shape, 9), Hand::Unknown);
            assert_eq!(lease.ask(100, MINUTE, shape, HOLD, 0).refunds, refunds);
        }
    }

    #[test]
    fn what_comes_back_too_late_goes_back_to_a_window_and_is_lost_to_a_bucket() {
        for (shape, refunds) in [(WINDOW, vec![(7, 5)]), (BUCKET, vec![])] {
            let mut lease = lease();
            lease.given(1, shape, chunk(10, 2, 7));
            let part = lease.take(2, MINUTE, shape, 10);
            lease.back(3, shape, HOLD, part, 2, false);
            assert_eq!(lease.fits(3, MINUTE, shape, 2), Hand::At(3), "{shape:?}");
            lease.take(3, MINUTE, shape, 2);
            lease.back(2 * SECOND, shape, HOLD, part, 5, false);
            assert_eq!(lease.fits(2 * SECOND, MINUTE, shape, 1), Hand::Unknown);
            assert_eq!(
                lease.ask(2 * SECOND, MINUTE, shape, HOLD, 0).refunds,
                refunds
            );
        }
    }

    #[test]
    fn what_is_sent_after_its_chunk_has_ended_is_debited_once_more() {
        let mut lease = lease();
        lease.given(1, BUCKET, chunk(10, 2, 7));
        let mut part = lease.take(2, MINUTE, BUCKET, 5);
        lease.sent(SECOND, &mut part, 5);
        assert_eq!(lease.ask(SECOND, MINUTE, BUCKET, HOLD, 0).owed, 0);
        lease.given(SECOND, BUCKET, Given::default());
        lease.sent(3 * SECOND, &mut part, 5);
        assert_eq!(lease.ask(3 * SECOND, MINUTE, BUCKET, HOLD, 0).owed, 5);
    }

    #[test]
    fn without_the_store_what_is_in_hand_is_spent_and_then_it_does_as_told() {
        let cases = [
            (Without::Closed, Hand::Down),
            (Without::Open, Hand::At(3)),
            (Without::Share { parts: 1_000_000 }, Hand::At(10_000_003)),
        ];
        for (without, then) in cases {
            let mut lease = Lease::new(1, without, false);
            lease.given(1, BUCKET, chunk(10, 2, 7));
            lease.outage(3, MINUTE, BUCKET, true);
            assert_eq!(lease.fits(3, MINUTE, BUCKET, 10), Hand::At(3));
            lease.take(3, MINUTE, BUCKET, 10);
            match (lease.fits(3, MINUTE, BUCKET, 1), then) {
                // One unit of a hundred a second, and the headroom of a bucket.
                (Hand::At(at), Hand::At(then)) => {
                    assert!((then..then + SECOND).contains(&at), "{without:?} {at}");
                }
                (hand, then) => assert_eq!(hand, then, "{without:?}"),
            }
        }
    }

    #[test]
    fn a_limit_that_is_finer_than_a_hold_is_held_for_less() {
        let second = Rate {
            amount: 100,
            period: SECOND,
        };
        let (shape, holding) = Shape::of(Enforcement::Rolling, second, HOLD);
        assert!(holding.span() <= SECOND / 10);
        assert_eq!(
            shape,
            Shape::Rolling {
                amount: 100,
                window: SECOND + holding.span()
            }
        );
        let (shape, _) = Shape::of(Enforcement::Bucket { burst: Some(10) }, second, HOLD);
        assert_eq!(shape, Shape::Bucket { burst: 5 });
        let slices = Enforcement::Quantised {
            slice: std::time::Duration::from_secs(7),
        };
        let (shape, _) = Shape::of(slices, MINUTE, HOLD);
        assert_eq!(
            shape.capacity(MINUTE),
            6000 / 9,
            "nine slices can lie in a minute"
        );
    }

    proptest! {
        #[test]
        fn no_unit_is_used_that_was_not_bought_or_is_not_owned_up_to(
            steps in prop::collection::vec((0u8..5, 1u64..50, 0u64..SECOND), 1..120),
            rolling in any::<bool>(),
        ) {
            let shape = if rolling { WINDOW } else { BUCKET };
            let mut lease = lease();
            let (mut now, mut bought, mut used, mut refunded) = (1, 0u64, 0u64, 0u64);
            let mut held = Vec::new();
            for (what, units, time) in steps {
                match what {
                    0 => {
                        bought += units;
                        lease.given(now, shape, chunk(units, now + time / 2, now as i64));
                    }
                    1 => {
                        if lease.fits(now, MINUTE, shape, units) == Hand::At(now) {
                            used += units;
                            held.push((lease.take(now, MINUTE, shape, units), units));
                        }
                    }
                    2 => if let Some((mut part, units)) = held.pop() {
                        lease.sent(now, &mut part, units);
                    },
                    3 => if let Some((part, units)) = held.pop() {
                        used -= units;
                        lease.back(now, shape, HOLD, part, units, false);
                    },
                    _ => now += time,
                }
                let wish = lease.ask(now, MINUTE, shape, HOLD, 0);
                lease.given(now, shape, Given::default());
                bought += wish.owed;
                refunded += wish.refunds.iter().map(|&(_, units)| units).sum::<u64>();
                prop_assert!(used + refunded <= bought, "{used} + {refunded} of {bought}");
                prop_assert!(lease.left() <= bought - used - refunded);
            }
        }

        #[test]
        fn a_cap_claims_all_that_is_used_or_in_hand(
            steps in prop::collection::vec((0u8..4, 1u64..50), 1..120),
        ) {
            let shape = Shape::Cap { ends: 1000 };
            let mut lease = lease();
            let (mut granted, mut used) = (0, 0);
            let mut held = Vec::new();
            for (what, units) in steps {
                match what {
                    0 => {
                        granted += units;
                        lease.fits(1, MINUTE, shape, 1);
                        lease.given(1, shape, Given { units, date: 1000, ..Given::default() });
                    }
                    1 => if lease.fits(1, MINUTE, shape, units) == Hand::At(1) {
                        used += units;
                        held.push((lease.take(1, MINUTE, shape, units), units));
                    },
                    2 => if let Some((part, units)) = held.pop() {
                        used -= units;
                        lease.back(1, shape, HOLD, part, units, true);
                    },
                    // It cost more than was reserved.
                    _ => if let Some((part, _)) = held.last() {
                        used += units;
                        granted += units.saturating_sub(lease.left());
                        lease.owe(shape, *part, units);
                    },
                }
                let claim = lease.spent + lease.hand;
                prop_assert_eq!(lease.spent, used);
                prop_assert_eq!(claim, granted);
            }
        }
    }
}
