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
    pub(super) fn share_of(rate: Rate, parts: u64, holders: u32) -> Rate {
        let amount = u128::from(rate.amount) * u128::from(parts) / 1_000_000;
        let amount = narrow(amount / u128::from(holders.max(1))).max(1);
        Rate { amount, ..rate }
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
}
