//! Life without the store: a share of the limit is kept here, or nothing, or all; and the end.
use super::{Lease, Shape, Wish};
use crate::engine::{
    bucket::Bucket,
    rate::{Nanos, Rate, narrow},
};

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

impl Lease {
    fn share_of(&self, rate: Rate, parts: u64) -> Rate {
        let amount = u128::from(rate.amount) * u128::from(parts) / 1_000_000;
        let amount = narrow(amount / u128::from(self.holders.max(1))).max(1);
        Rate { amount, ..rate }
    }

    fn local_burst(share: Rate) -> u64 {
        (share.amount / 16).max(1)
    }

    /// What the store would have allowed may be used up by now: it begins empty.
    fn local(&mut self, now: Nanos, share: Rate) -> &mut Bucket {
        self.local.get_or_insert_with(|| {
            let mut local = Bucket::default();
            local.take(now.max(1), share, Self::local_burst(share));
            local
        })
    }

    /// When so many units fit into the share that is kept here.
    pub(super) fn fits_alone(&mut self, now: Nanos, rate: Rate, parts: u64, units: u64) -> Nanos {
        let share = self.share_of(rate, parts);
        let burst = Self::local_burst(share);
        let local = self.local(now, share);
        let at = local.fits_at(now, share, burst, units).max(now);
        match units.checked_sub(burst) {
            // Who needs more than the burst saves up for it.
            Some(more @ 1..) => at.max(local.fills_at(share).saturating_add(share.time_of(more))),
            _ => at,
        }
    }

    /// The share of a window that these units would be used of, if they are not in hand. What was sent before the store
    /// went away still counts in it.
    pub(crate) fn share_of_window(
        &self,
        now: Nanos,
        rate: Rate,
        shape: Shape,
        units: u64,
    ) -> Option<Rate> {
        match (self.without, shape) {
            (Without::Share { parts }, Shape::Rolling { .. })
                if self.down && self.holds(now, units).is_none() =>
            {
                Some(self.share_of(rate, parts))
            }
            _ => None,
        }
    }

    pub(super) fn take_alone(&mut self, now: Nanos, rate: Rate, units: u64) {
        self.away.add(now, rate.period, units);
        if let Without::Share { parts } = self.without {
            let share = self.share_of(rate, parts);
            self.local(now, share).take(now, share, units);
        }
    }

    /// Something was used while the store was away, which it has not been told.
    pub(crate) fn was_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// The store cannot be reached, or can be again.
    pub(crate) fn outage(&mut self, now: Nanos, rate: Rate, down: bool) {
        if self.down == down {
            return;
        }
        self.down = down;
        // By the time it can be told, the bucket may have been full.
        self.freed = 0;
        self.asked = false;
        (self.back, self.rests) = (0, 0);
        self.local = None;
        if let (true, Without::Share { parts }) = (down, self.without) {
            let share = self.share_of(rate, parts);
            self.local(now, share);
        }
    }

    /// Nothing is bought or spent any more: what is in hand goes back. What is left to tell, if anything.
    pub(crate) fn close(&mut self, now: Nanos, shape: Shape) -> Option<Wish> {
        self.roll(shape);
        self.expire(now);
        for chunk in std::mem::take(&mut self.chunks) {
            if self.returns {
                self.refund(chunk.date, chunk.left);
            }
        }
        self.hand = 0;
        let news = self.has_news() || self.claimed != self.spent;
        self.claimed = self.spent;
        (self.without, self.closed) = (Without::Closed, true);
        (self.down, self.asked) = (true, false);
        news.then(|| Wish {
            owed: std::mem::take(&mut self.owed),
            away: self.away.take(),
            freed: std::mem::take(&mut self.freed),
            refunds: std::mem::take(&mut self.refunds),
            claim: self.spent,
            ..Wish::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Hand, tests::*},
        *,
    };
    use crate::engine::rate::SECOND;

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
            lease.outage(3, MINUTE, true);
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
}
