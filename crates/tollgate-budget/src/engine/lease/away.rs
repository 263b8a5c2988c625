//! What was used while the store was away, and when: it is debited for those times when the store is back.
use std::collections::VecDeque;

use crate::engine::rate::Nanos;

/// A period is cut into so many parts, and what lies in one of them is told as one.
const PARTS: Nanos = 32;

/// The uses of the last two periods, as the windows that are kept may be longer than one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Away {
    /// When each part begins, the last use in it, and their sum.
    parts: VecDeque<(Nanos, Nanos, u64)>,
}

impl Away {
    pub(crate) fn add(&mut self, now: Nanos, period: Nanos, units: u64) {
        let gone = now.saturating_sub(period.saturating_mul(2));
        while self.parts.front().is_some_and(|&(_, last, _)| last < gone) {
            self.parts.pop_front();
        }
        match self.parts.back_mut() {
            Some((begin, last, sum)) if now.saturating_sub(*begin) <= period / PARTS => {
                *last = now;
                *sum = sum.saturating_add(units);
            }
            _ => self.parts.push_back((now, now, units)),
        }
    }

    /// When, and how much. It is empty then.
    pub(crate) fn take(&mut self) -> Vec<(Nanos, u64)> {
        let parts = self.parts.drain(..);
        parts.map(|(_, last, sum)| (last, sum)).collect()
    }

    /// What was taken has not been told.
    pub(crate) fn put_back(&mut self, parts: &[(Nanos, u64)]) {
        for &(at, sum) in parts.iter().rev() {
            self.parts.push_front((at, at, sum));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_told_by_when_they_were_and_those_long_gone_are_not() {
        let mut away = Away::default();
        for at in 0..10_000 {
            away.add(at, 320, 2);
        }
        assert!(
            away.parts.len() as u64 <= 2 * PARTS + 2,
            "{}",
            away.parts.len()
        );
        let told = away.take();
        assert!(away.is_empty());
        let sum: u64 = told.iter().map(|&(_, units)| units).sum();
        assert!((640..=660 + 660).contains(&sum), "{sum}");
        assert_eq!(told.last().unwrap().0, 9999);
        away.put_back(&told);
        assert_eq!(away.take(), told);
    }
}
