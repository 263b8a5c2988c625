//! The share of a kind among the last records.

/// Records that a share is of.
const WINDOW: u32 = 100;
/// Records below which there is no share.
const FEWEST: u32 = 20;

/// Which of the last 100 records were of a kind, and whether that was too many.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    /// One bit a record, the latest lowest.
    kinds: u128,
    seen: u32,
    raised: bool,
}

impl Share {
    /// Takes the next record; tells of a crossing of `threshold`, and the share.
    pub(super) fn take(&mut self, of_the_kind: bool, threshold: f64) -> Option<(bool, f64)> {
        let mask = (1 << WINDOW) - 1;
        self.kinds = (self.kinds << 1 | u128::from(of_the_kind)) & mask;
        self.seen = (self.seen + 1).min(WINDOW);
        if self.seen < FEWEST {
            return None;
        }
        let share = f64::from(self.kinds.count_ones()) / f64::from(self.seen);
        let raised = if self.raised {
            share > threshold / 2.0
        } else {
            share > threshold
        };
        let crossed = raised != self.raised;
        self.raised = raised;
        crossed.then_some((raised, share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_needs_twenty_records_and_falls_to_half_before_it_is_well() {
        let mut share = Share::default();
        let mut crossings = Vec::new();
        let mut take = |n: usize, kind: bool| {
            for _ in 0..n {
                crossings.extend(share.take(kind, 0.2));
            }
        };
        take(19, true);
        take(1, true);
        take(200, false);
        take(20, true);
        take(1, true);
        assert_eq!(crossings, [(true, 1.0), (false, 0.1), (true, 0.21)]);
    }
}
