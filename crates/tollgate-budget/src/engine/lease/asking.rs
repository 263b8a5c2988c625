//! Demand, and when the store is asked for how much.
use super::{Holding, Lease, Shape};
use crate::engine::rate::{NEVER, Nanos, Rate, SECOND, narrow};

/// Of what was bought last, such a part is left when more is bought.
const REFILL: u64 = 8;

/// What is in hand of a cap and not used is given back after so many holds.
const LINGER: u64 = 5;
/// After so many holds, or so long if that is longer, the store has forgotten that a process asks for a limit.
const FORGOTTEN: (u64, Nanos) = (3, 3 * SECOND);

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
    /// Sent, and given back by the provider to a bucket.
    pub(crate) freed: u64,
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
        if self.takes > 0 {
            let size = self.taken as f64 / self.takes as f64;
            let weight = if self.size > 0.0 { weight } else { 1.0 };
            self.size += (size - self.size) * weight;
        }
        (self.taken, self.takes, self.measured) = (0, 0, now);
    }

    /// What will be used within a hold for nearly sure: of as many requests as usual, those that come also if chance will
    /// have it otherwise. What is bought for one who does not come is lost to a bucket, so who sends little buys nothing
    /// in advance.
    fn steady(&self, now: Nanos, hold: Nanos) -> u64 {
        if self.used_at == 0 || now.saturating_sub(self.used_at) >= hold || self.size <= 0.0 {
            return 0;
        }
        let requests = self.demand * hold as f64 / SECOND as f64 / self.size;
        let sure = requests - requests.sqrt();
        if sure < 1.0 {
            return 0;
        }
        (sure * self.size) as u64
    }

    pub(super) fn has_news(&self) -> bool {
        self.owed > 0 || self.freed > 0 || !self.refunds.is_empty() || self.was_away()
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
        self.measure(now, holding.hold);
        let mut due = NEVER;
        let booked = self.chunks.back().map_or(0, |chunk| chunk.usable);
        let short = self.lacks(now, holding, narrow(backlog));
        let soonest = self.opens(now, short).max(booked);
        if short > 0 && self.together(now) < short {
            due = soonest;
        }
        if self.runs_out(now, holding, self.given / REFILL) {
            // Where nothing was to be had, and nobody said for how long, it rests.
            let rest = if self.bare { holding.hold / 8 } else { 0 };
            due = due.min(soonest.max(self.asked_at.saturating_add(rest)));
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
        due.max(self.rests)
    }

    /// So little is left, and more will be used.
    fn runs_out(&self, now: Nanos, holding: Holding, few: u64) -> bool {
        let left = self.left();
        self.given > 0 && left <= few && left < self.steady(now, holding.hold)
    }

    /// Whether it may as well be asked for now that the store is asked for something else.
    pub(crate) fn goes_along(&mut self, now: Nanos, holding: Holding) -> bool {
        self.expire(now);
        let booked = self.chunks.back().is_some_and(|chunk| chunk.usable > now);
        let idle = !self.asked && !self.down && !booked && now >= self.back;
        idle && (self.has_news() || self.runs_out(now, holding, self.given / 2))
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
        let steady = self.steady(now, holding.hold);
        let target = steady.saturating_add(backlog).max(need).min(capacity);
        let left = self.left();
        let booked = self.chunks.back().is_some_and(|chunk| chunk.usable > now);
        let buys = !booked && now >= self.opens(now, need);
        let together = self.together(now);
        let lacks = buys && together < need;
        // Where there is some to wait for, what is in hand is gone by then: what is needed at one time is asked for at one
        // time.
        let rest = match (lacks, self.waited) {
            (false, _) => 0,
            (true, false) => need - together,
            (true, true) => need,
        };
        let forgotten = holding.hold.saturating_mul(FORGOTTEN.0).max(FORGOTTEN.1);
        let want = if !buys {
            0
        } else if lacks && (self.asked_at == 0 || now - self.asked_at >= forgotten) {
            // Others may be about to ask, too, and the store does not know of them yet.
            rest
        } else {
            target.saturating_sub(left).max(rest)
        };
        self.needed = need;
        self.asked = true;
        self.asked_at = now;
        self.claimed = self.spent.saturating_add(self.hand);
        Wish {
            want,
            need: rest,
            demand: self.demand + backlog as f64 / hold,
            owed: std::mem::take(&mut self.owed),
            away: self.away.take(),
            freed: std::mem::take(&mut self.freed),
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
        self.bare = given.units == 0;
        self.rests = 0;
        self.waited = given.usable.max(given.back) > now;
        if given.units == 0 {
            return;
        }
        if let Shape::Cap { ends } = shape {
            self.given = given.units;
            if ends == given.date && ends == self.period {
                if !self.closed {
                    self.hand = self.hand.saturating_add(given.units);
                }
                self.claimed = self.claimed.saturating_add(given.units);
            }
            return;
        }
        self.returns = matches!(shape, Shape::Rolling { .. });
        let usable = given.usable.max(now);
        if given.expires <= usable {
            // It has ended on its way, and so may the next: for as long as that was nothing more is asked for.
            if self.returns {
                self.refund(given.date, given.units);
            }
            self.bare = true;
            self.rests = now.saturating_add(now.saturating_sub(self.asked_at));
            self.back = self.back.max(self.rests);
            return;
        }
        self.given = given.units;
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
    use super::{
        super::{Hand, tests::*},
        *,
    };
    use crate::engine::rate::MILLI;

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
        for _ in 0..34 {
            lease.take(SECOND, MINUTE, BUCKET, 1);
        }
        assert_eq!(lease.due_at(SECOND, HOLD, 0), NEVER);
        // An eighth is left.
        lease.take(SECOND, MINUTE, BUCKET, 1);
        assert_eq!(lease.due_at(SECOND, HOLD, 0), SECOND);
    }

    /// Sends requests of so many units at these times, and lets the store give all that is wanted at once. How often it was
    /// asked, and how much it gave.
    fn sends(lease: &mut Lease, times: impl Iterator<Item = Nanos>, units: u64) -> (u32, u64) {
        let (mut visits, mut bought) = (0, 0);
        for at in times {
            // A millisecond after another: whatever is due is asked for.
            let mut ask = |lease: &mut Lease, now, backlog| {
                for step in 0..20 {
                    let now = now + step * MILLI;
                    if lease.due_at(now, HOLD, backlog) > now {
                        break;
                    }
                    let wish = lease.ask(now, MINUTE, BUCKET, HOLD, backlog);
                    (visits, bought) = (visits + 1, bought + wish.want);
                    lease.given(now, BUCKET, chunk(wish.want, now, at as i64));
                }
            };
            if lease.fits(at, MINUTE, BUCKET, units) != Hand::At(at) {
                ask(lease, at, u128::from(units));
            }
            assert_eq!(lease.fits(at, MINUTE, BUCKET, units), Hand::At(at));
            lease.take(at, MINUTE, BUCKET, units);
            ask(lease, at, 0);
        }
        (visits, bought)
    }

    #[test]
    fn a_request_alone_costs_one_visit() {
        let mut lease = lease();
        assert_eq!(sends(&mut lease, [SECOND].into_iter(), 1), (1, 1));
        assert_eq!(lease.due_at(SECOND + MILLI, HOLD, 0), NEVER);
    }

    #[test]
    fn who_sends_less_than_a_few_in_a_hold_buys_what_he_sends_and_no_more() {
        // Eight a minute, in pairs too; of requests, and of tokens.
        for units in [1, 100] {
            let slow = (1..40).map(|n| n * 7 * SECOND + (n % 2) * 6 * SECOND);
            let (visits, bought) = sends(&mut lease(), slow, units);
            assert!(visits <= 40, "{visits}");
            assert_eq!(bought, 39 * units);
        }
    }

    #[test]
    fn who_sends_many_buys_in_advance_and_wastes_little() {
        for units in [1, 10] {
            let many = (0..5000).map(|n| SECOND + n * 10 * MILLI);
            let (visits, bought) = sends(&mut lease(), many, units);
            assert!(visits < 150, "{visits}");
            assert!(bought < 5500 * units, "{bought}");
        }
    }

    #[test]
    fn what_is_needed_at_one_time_is_bought_at_one_time() {
        let mut lease = lease();
        // It was to be waited for.
        lease.given(0, BUCKET, chunk(40, 1, 7));
        // What is in hand is gone when more is there.
        let (mut now, mut bought) = (SECOND / 2, 0);
        for date in 8..12 {
            match lease.fits(now, MINUTE, BUCKET, 100) {
                Hand::At(at) => {
                    lease.take(at, MINUTE, BUCKET, 100);
                    assert!(bought <= 100, "{bought}");
                    return;
                }
                hand => assert_eq!(hand, Hand::Unknown),
            }
            assert_eq!(lease.due_at(now, HOLD, 100), now);
            let wish = lease.ask(now, MINUTE, BUCKET, HOLD, 100);
            let booked = now + 3 * SECOND / 2;
            bought += wish.need;
            lease.given(now, BUCKET, chunk(wish.need, booked, date));
            now = booked;
        }
        panic!("it starves");
    }

    #[test]
    fn two_chunks_that_do_not_live_together_are_not_enough() {
        let mut lease = lease();
        lease.given(1, BUCKET, chunk(60, 1, 7));
        lease.given(1, BUCKET, chunk(60, SECOND + 1, 8));
        assert_eq!(lease.fits(2, MINUTE, BUCKET, 100), Hand::Unknown);
        let due = lease.due_at(2, HOLD, 100);
        assert_eq!(due, SECOND + 1, "when the last that is booked is there");
        let wish = lease.ask(due, MINUTE, BUCKET, HOLD, 100);
        assert_eq!(wish.need, 100);
    }

    #[test]
    fn where_nobody_waits_for_units_only_those_that_lack_are_bought() {
        let mut lease = lease();
        lease.given(1, BUCKET, chunk(40, 1, 7));
        lease.fits(2, MINUTE, BUCKET, 100);
        let wish = lease.ask(2, MINUTE, BUCKET, HOLD, 100);
        assert_eq!((wish.need, wish.want), (60, 60));
    }

    #[test]
    fn at_first_no_more_is_asked_for_than_one_needs() {
        let mut lease = lease();
        for now in [SECOND, 100 * SECOND] {
            lease.fits(now, MINUTE, BUCKET, 10);
            let wish = lease.ask(now, MINUTE, BUCKET, HOLD, 640);
            assert_eq!((wish.need, wish.want), (10, 10));
            assert!(wish.demand >= 640.0, "{}", wish.demand);
            lease.given(now, BUCKET, chunk(10, now, 7));
            lease.take(now, MINUTE, BUCKET, 10);
            lease.fits(now, MINUTE, BUCKET, 10);
            let wish = lease.ask(now, MINUTE, BUCKET, HOLD, 630);
            assert_eq!((wish.need, wish.want >= 630), (10, true));
            lease.given(now, BUCKET, chunk(630, now, 8));
            lease.take(now, MINUTE, BUCKET, 630);
        }
    }

    #[test]
    fn a_store_that_gives_nothing_is_not_asked_again_and_again() {
        let mut lease = lease();
        let many = (0..1000).map(|n| SECOND + n * 10 * MILLI);
        sends(&mut lease, many, 1);
        let (mut now, mut visits) = (12 * SECOND, 0);
        lease.fits(now, MINUTE, BUCKET, 50);
        lease.ask(now, MINUTE, BUCKET, HOLD, 50);
        lease.given(now, BUCKET, chunk(50, now, 7));
        lease.take(now, MINUTE, BUCKET, 50);
        while now < 13 * SECOND {
            if lease.due_at(now, HOLD, 0) <= now {
                lease.ask(now, MINUTE, BUCKET, HOLD, 0);
                lease.given(now, BUCKET, Given::default());
                visits += 1;
            }
            now += MILLI;
        }
        assert!((1..=9).contains(&visits), "{visits}");
    }
}
