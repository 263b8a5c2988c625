//! Chunks in hand: when they may be used, when they end, and what goes back of them.
use super::Lease;
use crate::engine::rate::Nanos;

/// Chunks that are kept apart. What comes when there are so many goes back to a window, and is forgotten of a bucket.
const MOST_CHUNKS: usize = 8;

/// Refunds of so many dates are told one by one; the oldest are dropped, which is too strict and never too lax.
const MOST_REFUNDS: usize = 64;

/// Which chunk units came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// The store's date of it, in its microseconds; 0: of none.
    pub(super) date: i64,
    pub(super) expires: Nanos,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Chunk {
    pub(super) usable: Nanos,
    pub(super) expires: Nanos,
    pub(super) date: i64,
    pub(super) left: u64,
}

impl Lease {
    pub(super) fn expire(&mut self, now: Nanos) {
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
    pub(super) fn refund(&mut self, date: i64, units: u64) {
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
    pub(super) fn left(&self) -> u64 {
        let chunks = self.chunks.iter().map(|chunk| chunk.left);
        chunks.fold(self.hand, u64::saturating_add)
    }

    /// In hand at that time.
    pub(super) fn alive(&self, at: Nanos) -> u64 {
        let chunks = self.chunks.iter();
        let alive = chunks.filter(|chunk| chunk.usable <= at && chunk.expires > at);
        alive.fold(self.hand, |sum, chunk| sum.saturating_add(chunk.left))
    }

    /// The most that is in hand at any one time from now on.
    pub(super) fn together(&self, now: Nanos) -> u64 {
        let times = self.chunks.iter().map(|chunk| chunk.usable.max(now));
        let sums = times.map(|at| self.alive(at));
        sums.max().unwrap_or(self.hand)
    }

    pub(super) fn put(&mut self, usable: Nanos, expires: Nanos, date: i64, units: u64) {
        if self.closed {
            if self.returns && date != 0 {
                self.refund(date, units);
            }
            return;
        }
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
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Given, Hand, tests::*},
        *,
    };
    use crate::engine::rate::SECOND;

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
            lease.back(3, shape, part, 2, false);
            assert_eq!(lease.fits(3, MINUTE, shape, 2), Hand::At(3), "{shape:?}");
            lease.take(3, MINUTE, shape, 2);
            lease.back(2 * SECOND, shape, part, 5, false);
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
    fn what_was_taken_of_two_chunks_goes_back_to_the_first() {
        let mut lease = lease();
        lease.given(1, WINDOW, chunk(5, 1, 7));
        lease.given(1, WINDOW, chunk(5, 2, 8));
        let part = lease.take(2, MINUTE, WINDOW, 10);
        lease.back(2 * SECOND, WINDOW, part, 6, true);
        let wish = lease.ask(2 * SECOND, MINUTE, WINDOW, HOLD, 0);
        assert_eq!(wish.refunds, [(7, 6)]);
    }

    #[test]
    fn what_a_bucket_gets_back_of_a_request_that_was_sent_is_for_the_store_to_give() {
        let mut lease = lease();
        lease.given(1, BUCKET, chunk(10, 2, 7));
        let part = lease.take(2, MINUTE, BUCKET, 10);
        lease.back(3, BUCKET, part, 9, true);
        assert_eq!(lease.fits(3, MINUTE, BUCKET, 1), Hand::Unknown);
        let wish = lease.ask(3, MINUTE, BUCKET, HOLD, 1);
        assert_eq!((wish.freed, wish.need), (9, 1));
        // It may have heard it: twice would be too lax.
        lease.unanswered(&wish);
        assert_eq!(lease.ask(4, MINUTE, BUCKET, HOLD, 1).freed, 0);
        // While the store is away, and what was not told before: by the time it is back, the bucket may have been full.
        lease.back(5, BUCKET, part, 3, true);
        lease.outage(5, MINUTE, true);
        lease.back(6, BUCKET, part, 2, true);
        lease.outage(7, MINUTE, false);
        assert_eq!(lease.ask(7, MINUTE, BUCKET, HOLD, 0).freed, 0);
    }
}
