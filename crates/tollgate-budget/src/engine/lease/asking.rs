//! Demand, and when the store is asked for how much.
use super::{Holding, Lease, Shape};
use crate::engine::rate::{NEVER, Nanos, Rate, SECOND, narrow};

/// Of what was bought last, such a part is left when more is bought.
const REFILL: u64 = 8;

/// What is in hand of a cap and not used is given back after so many holds.
const LINGER: u64 = 5;

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
    /// Used while the store was away, and when.
    pub(crate) away: Vec<(Nanos, u64)>,
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

impl Lease {
    /// When it is of use to ask for so many.
    pub(super) fn opens(&self, now: Nanos, units: u64) -> Nanos {
        if units < self.back_for {
            now
        } else {
            self.back.max(now)
        }
    }

    pub(super) fn measure(&mut self, now: Nanos, hold: Nanos) {
        let passed = now.saturating_sub(self.measured);
        if passed < hold / 8 && self.measured > 0 {
            return;
        }
        let rate = self.taken as f64 * SECOND as f64 / passed.max(1) as f64;
        let weight = passed as f64 / (passed + hold / 2) as f64;
        self.demand += (rate - self.demand) * weight;
        (self.taken, self.measured) = (0, now);
    }

    pub(super) fn has_news(&self) -> bool {
        self.owed > 0 || !self.refunds.is_empty() || self.was_away()
    }

    /// What somebody lacks. Who has just left may come again, and finds nothing if it is not asked for.
    pub(super) fn lacks(&self, now: Nanos, holding: Holding, backlog: u64) -> u64 {
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
            away: self.away.take(),
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
        self.away.put_back(&wish.away);
        if wish.claim > 0 {
            // Nobody has heard it: it differs from whatever there is to claim.
            self.claimed = u64::MAX;
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
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};

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
}
