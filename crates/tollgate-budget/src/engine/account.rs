//! One limit's account: its book, the rate in force, and what is held.
use std::sync::Arc;

use super::{
    book::{Book, Correction, Since},
    calendar::Period,
    evidence::Reading,
    headers::Stated,
    history::History,
    lease::{Hand, Holding, Lease, Part, Shape},
    rate::{NEVER, Nanos, Rate, Span, narrow},
    rule::Rule,
};
use crate::limit::{Enforcement, Wall};

/// Periods for which a refusal is remembered.
const DOUBT: u64 = 10;

/// One request's part in an account.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Take {
    pub(crate) account: u32,
    pub(crate) units: u64,
    unsent: bool,
    span: Span,
    /// The limit that it was booked under.
    amount: u64,
    /// Our own units in the book when it was sent, and all that were ever taken by then.
    own_at_send: u128,
    total_at_send: u128,
    /// What was bought of a shared store for it.
    part: Part,
}

impl Take {
    /// Nothing of ours was in the books before it.
    pub(crate) fn was_first(&self) -> bool {
        self.own_at_send <= u128::from(self.units)
    }

    pub(crate) fn new(account: u32, units: u64) -> Self {
        Self {
            account,
            units,
            ..Self::default()
        }
    }
}

/// An account.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) rule: u32,
    pub(crate) rate: Rate,
    /// What was told; `None` where the headers alone decide.
    ceiling: Option<u64>,
    pub(crate) book: Book,
    pub(crate) key: Option<Arc<str>>,
    /// Requests that wait for it or hold some of it.
    pub(crate) holders: u32,
    /// Units held by requests in flight.
    pub(crate) reserved: u128,
    /// Units that requests in the queue will take.
    pub(crate) backlog: u128,
    /// Lines that wait for it, and for nothing that others wait for.
    pub(crate) parked: Vec<u32>,
    /// Units of requests that are admitted and not sent.
    unsent: u128,
    /// Somebody needs the place of what is not sent.
    crowded: bool,
    /// What the provider's answers are compared with.
    taken: Option<History>,
    stated_at: Nanos,
    /// Until then our books get no benefit of the doubt: a refusal showed that they can be ahead of the provider's.
    doubted_until: Nanos,
    doubted_at: Nanos,
    /// What strangers use before we hear of it; grows with each refusal.
    margin: Nanos,
    /// What is in hand of it, where a store shares it out among processes.
    pub(crate) lease: Option<Box<Leased>>,
}

/// A limit's share of what a store keeps.
#[derive(Clone, Debug)]
pub(crate) struct Leased {
    pub(crate) lease: Lease,
    pub(crate) told: Holding,
    enforcement: Enforcement,
}

impl Leased {
    pub(crate) fn new(lease: Lease, told: Holding, enforcement: Enforcement) -> Self {
        Self {
            lease,
            told,
            enforcement,
        }
    }
}

impl Account {
    pub(crate) fn new(index: u32, rule: &Rule, key: Option<Arc<str>>, epoch: Wall) -> Self {
        Self {
            rule: index,
            rate: rule.rate,
            ceiling: Some(rule.rate.amount),
            book: match &rule.calendar {
                Some(plan) => Book::Calendar(Period::new(Arc::clone(plan), epoch)),
                None => Book::new(rule.enforcement, rule.rate.period),
            },
            key,
            holders: 0,
            reserved: 0,
            backlog: 0,
            parked: Vec::new(),
            unsent: 0,
            crowded: false,
            taken: rule.is_the_providers().then(History::default),
            stated_at: 0,
            doubted_until: 0,
            doubted_at: 0,
            margin: 0,
            lease: None,
        }
    }

    pub(crate) fn capacity(&self) -> u64 {
        let all = self.book.capacity(self.rate);
        match (&self.lease, &self.book) {
            (None, _) | (_, Book::Calendar(_)) => all,
            (Some(leased), _) => {
                let (shape, _) = Shape::of(leased.enforcement, self.rate, leased.told);
                all.min(shape.capacity(self.rate))
            }
        }
    }

    /// What the store keeps for it, where there is one, and how long a chunk lasts.
    pub(crate) fn shape(&mut self, now: Nanos) -> Option<(Shape, Holding)> {
        let leased = self.lease.as_deref()?;
        Some(match &mut self.book {
            Book::Calendar(period) => {
                let ends = period.ends(now).1;
                (Shape::Cap { ends }, leased.told)
            }
            _ => Shape::of(leased.enforcement, self.rate, leased.told),
        })
    }

    /// Whether what was bought of the store is enough, or when; without a store it always is.
    pub(crate) fn in_hand(&mut self, now: Nanos, units: u64) -> Hand {
        let Some((shape, _)) = self.shape(now) else {
            return Hand::At(now);
        };
        let Some(leased) = &mut self.lease else {
            return Hand::At(now);
        };
        let share = leased.lease.share_of_window(now, self.rate, shape, units);
        match (leased.lease.fits(now, self.rate, shape, units), share) {
            (Hand::At(at), Some(share)) => {
                Hand::At(at.max(self.book.fits_at(now, 0, share, units)))
            }
            (hand, _) => hand,
        }
    }

    /// Spends what was bought of the store for it.
    pub(crate) fn spend(&mut self, now: Nanos, take: &mut Take) {
        let Some((shape, _)) = self.shape(now) else {
            return;
        };
        if let Some(leased) = &mut self.lease {
            take.part = leased.lease.take(now, self.rate, shape, take.units);
        }
    }

    /// What it cost has changed.
    fn spent_otherwise(&mut self, now: Nanos, units: u64, take: &Take, sent: bool) {
        let Some((shape, _)) = self.shape(now) else {
            return;
        };
        if let Some(leased) = &mut self.lease {
            let lease = &mut leased.lease;
            match units.checked_sub(take.units) {
                Some(0) => {}
                Some(more) => lease.owe(shape, take.part, more),
                None => {
                    let less = take.units - units;
                    lease.back(now, shape, take.part, less, sent);
                }
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn keeps_history(&self) -> bool {
        self.taken.is_some()
    }

    /// Whether so many units would fit but for what the provider has said, which may be otherwise tomorrow.
    pub(crate) fn could_hold(&self, units: u64) -> bool {
        self.ceiling.is_some_and(|amount| {
            let told = Rate {
                amount,
                ..self.rate
            };
            units <= self.book.capacity(told)
        })
    }

    pub(crate) fn used(&mut self, now: Nanos) -> u128 {
        self.book.used(now, self.rate) + self.unsent
    }

    /// Nobody holds any of it and all of it is free: it can be forgotten.
    pub(crate) fn is_idle(&mut self, now: Nanos) -> bool {
        let shape = self.shape(now);
        let leased = self.lease.as_deref_mut().zip(shape);
        let quiet = leased.is_none_or(|(leased, (shape, _))| leased.lease.is_idle(now, shape));
        self.holders == 0 && quiet && self.used(now) == 0
    }

    /// When `units` fit that take up to `way` to arrive.
    ///
    /// What is held and not sent has no date yet: it leaves the books only by being sent or given back, however long
    /// that takes. Whoever needs its place waits for that.
    pub(crate) fn fits_at(&mut self, now: Nanos, way: Nanos, units: u64) -> Nanos {
        if self.unsent == 0 {
            return self.book.fits_at(now, way, self.rate, units);
        }
        let held = narrow(self.unsent).saturating_add(units);
        if held > self.capacity() {
            self.crowded = true;
            return NEVER;
        }
        let at = self.book.fits_at(now, way, self.rate, held);
        // Who needs all of a bucket waits until it is full; once what is held is sent, it may need less.
        self.crowded |=
            at > now && held.saturating_add(self.book.spare(self.rate)) > self.capacity();
        at
    }

    pub(crate) fn drained_at(&mut self, now: Nanos, units: u128) -> Nanos {
        let leased = self.lease.as_deref();
        let bought = leased.map_or(now, |leased| leased.lease.drained_at(now, units));
        self.book
            .drained_at(now, self.rate, units.saturating_add(self.unsent))
            .max(bought)
    }

    /// Holds units for a request that is to be sent.
    pub(crate) fn take(&mut self, take: &mut Take) {
        take.unsent = true;
        self.unsent += u128::from(take.units);
        self.reserved += u128::from(take.units);
    }

    /// It is being sent, and may take up to `way` to arrive; true if somebody could be waiting for just that.
    pub(crate) fn sent(&mut self, now: Nanos, way: Nanos, take: &mut Take) -> bool {
        let crowded = self.crowded;
        if std::mem::take(&mut take.unsent) {
            self.unsent -= u128::from(take.units);
            self.crowded = false;
            take.span = Span {
                lo: now,
                hi: now.saturating_add(way),
            };
            take.amount = self.rate.amount;
            self.book.take(now, self.rate, take.span, take.units);
            if let Some(taken) = &mut self.taken {
                taken.add(now, take.units);
            }
            if let Some(leased) = &mut self.lease {
                leased.lease.sent(now, &mut take.part, take.units);
            }
        }
        take.own_at_send = self.book.own(now, self.rate);
        take.total_at_send = self.taken.as_ref().map_or(0, History::total);
        crowded
    }

    /// For how long after one grant the next may wait without loss.
    pub(crate) fn grain(&self) -> Nanos {
        self.book.grain(self.rate)
    }

    /// It is known when it arrived.
    pub(crate) fn date(&mut self, now: Nanos, span: Span, take: &mut Take) {
        if span != take.span && !take.unsent {
            self.rebook(now, span, take.units, take);
        }
    }

    fn rebook(&mut self, now: Nanos, span: Span, units: u64, take: &mut Take) {
        let was = Rate {
            amount: take.amount,
            ..self.rate
        };
        let (old, new) = ((take.span, take.units), (span, units));
        self.book.change(now, self.rate, was, old, new);
        (take.span, take.units, take.amount) = (span, units, self.rate.amount);
    }

    /// More is known of ways, and it is not known yet when this one arrived.
    pub(crate) fn redate(&mut self, now: Nanos, way: Nanos, take: &mut Take) {
        let Span { lo, hi } = take.span;
        if lo < hi {
            let hi = lo.saturating_add(way).max(lo + 1);
            self.date(now, Span { lo, hi }, take);
        }
    }

    /// It is over, and has cost so much; true if that was less than was held.
    pub(crate) fn settle(&mut self, now: Nanos, units: u64, take: &mut Take) -> bool {
        let less = units < take.units;
        if take.unsent {
            // It is booked first, if anything of it is kept.
            let kept = units > 0;
            let crowded = kept && self.sent(now, 0, take);
            if !kept {
                take.unsent = false;
                self.unsent -= u128::from(take.units);
                self.reserved = self.reserved.saturating_sub(u128::from(take.units));
                self.crowded = false;
                self.spent_otherwise(now, 0, take, false);
                return less;
            }
            return self.settle(now, units, take) || crowded;
        }
        self.reserved = self.reserved.saturating_sub(u128::from(take.units));
        if units != take.units {
            if let Some(taken) = &mut self.taken {
                taken.add(now, units.saturating_sub(take.units));
            }
            self.spent_otherwise(now, units, take, true);
            self.rebook(now, take.span, units, take);
        }
        less
    }

    /// Whether a statement is one about this limit.
    pub(crate) fn concerns(&self, stated: &Stated) -> bool {
        stated.is_of(self.ceiling.unwrap_or(self.rate.amount), self.rate)
    }

    /// The headers of an answer may concern this account.
    ///
    /// `sent` and `arrival` bound the time at which the provider counted: it did so when it admitted the request.
    pub(crate) fn hear(
        &mut self,
        now: Nanos,
        sent: Nanos,
        since: Since,
        arrival: Nanos,
        take: &Take,
        stated: &Stated,
    ) {
        if !self.concerns(stated) {
            return;
        }
        // An answer that overtook a later one does not set the limit back.
        if sent >= self.stated_at {
            self.stated_at = sent;
            let amount = stated.amount();
            self.limit_is(now, self.ceiling.map_or(amount, |told| amount.min(told)));
        }
        // What strangers have used since the provider counted is not known. As much as they may have used is covered
        // by dating its count as late as its answer, or later; that shifts the books once and costs no throughput.
        let since = if now < self.doubted_until {
            Since::Exactly(now.saturating_add(self.margin))
        } else {
            since
        };
        let by_then = self.taken.as_ref().map_or(0, |taken| taken.by(arrival));
        let seen = Correction {
            left: stated.left(),
            since,
            until: arrival,
            own: take.own_at_send + by_then.saturating_sub(take.total_at_send),
            margin: self.margin_units(now),
            reset: stated
                .reset
                .filter(|_| stated.used() > 0.0)
                .map(|(reset, _)| reset),
        };
        self.book.correct(now, self.rate, seen);
        if let Some(leased) = &mut self.lease {
            let used = self.rate.amount.saturating_sub(seen.left);
            leased.lease.saw(used, arrival.max(sent));
        }
        if let Some(reading) = reading(arrival, stated) {
            self.book.hear(now, self.rate, reading);
        }
    }

    /// What strangers may have used since the provider counted.
    fn margin_units(&self, now: Nanos) -> u64 {
        if now >= self.doubted_until {
            return 0;
        }
        let units = u128::from(self.margin) * u128::from(self.rate.amount);
        narrow(units / u128::from(self.rate.period))
    }

    /// The provider refused, for as long as it says, a request that our books had room for.
    pub(crate) fn refused(
        &mut self,
        now: Nanos,
        sent: Nanos,
        units: u64,
        wait: Option<Nanos>,
        stated: Option<&Stated>,
    ) {
        if sent >= self.doubted_at {
            // Once for all that were on their way.
            self.doubted_at = now;
            let most = self.rate.period / 10;
            self.margin = (self.margin + self.rate.period / 100).min(most);
        }
        if now >= self.doubted_until {
            self.margin = 0;
        }
        self.doubted_until = now.saturating_add(self.rate.period.saturating_mul(DOUBT));
        let reset = stated
            .and_then(|stated| stated.reset)
            .map(|(reset, _)| reset);
        self.book.refused(self.rate, units, wait, reset);
    }

    /// It is learned, from headers alone. `over`: units of requests that were made and are over.
    pub(crate) fn learned(&mut self, now: Nanos, rate: Rate, over: u64) {
        self.ceiling = None;
        self.rate = rate;
        self.correct(now, rate.amount.saturating_sub(over), 0);
    }

    /// So much is left, with all that is booked; whatever is missing is somebody else's.
    pub(crate) fn left(&mut self, now: Nanos, stated: &Stated) {
        let own = self.book.own(now, self.rate);
        self.correct(now, stated.left(), own);
    }

    fn correct(&mut self, now: Nanos, left: u64, own: u128) {
        let seen = Correction {
            left,
            since: Since::Exactly(now),
            until: now,
            own,
            margin: 0,
            reset: None,
        };
        self.book.correct(now, self.rate, seen);
    }

    /// What was told has changed. Headers may lower it again.
    pub(crate) fn told(&mut self, now: Nanos, amount: u64) {
        self.ceiling = Some(amount);
        self.limit_is(now, amount);
    }

    /// When all of it is free again, if nothing more is used; and by the wall clock, of a cap.
    pub(crate) fn free_at(&mut self, now: Nanos) -> (Nanos, Option<Wall>) {
        if let Book::Calendar(period) = &mut self.book {
            let (at, wall) = period.ends(now);
            return (if period.used(now) == 0 { now } else { at }, Some(wall));
        }
        if self.used(now) == 0 {
            return (now, None);
        }
        let all = u128::from(self.capacity());
        (self.drained_at(now, all), None)
    }

    pub(crate) fn ceiling(&self) -> Option<u64> {
        self.ceiling
    }

    fn limit_is(&mut self, now: Nanos, amount: u64) {
        let new = Rate {
            amount: amount.max(1),
            ..self.rate
        };
        if new != self.rate {
            self.book.rerate(now, self.rate, new);
            self.rate = new;
        }
    }
}

fn reading(at: Nanos, stated: &Stated) -> Option<Reading> {
    let (reset, grain) = stated.reset?;
    Some(Reading {
        at,
        limit: stated.limit,
        used: stated.used(),
        reset,
        grain,
    })
}
