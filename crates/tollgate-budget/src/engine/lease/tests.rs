//! Whatever happens in whatever order: nothing is used that was not bought.
use proptest::prelude::*;

use super::*;
use crate::engine::rate::SECOND;

pub(super) const HOLD: Holding = Holding {
    hold: SECOND,
    spread: 100 * 1_000_000,
};
pub(super) const MINUTE: Rate = Rate {
    amount: 6000,
    period: 60 * SECOND,
};
pub(super) const BUCKET: Shape = Shape::Bucket { burst: 5000 };
pub(super) const WINDOW: Shape = Shape::Rolling {
    amount: 6000,
    window: 61 * SECOND,
};

pub(super) fn lease() -> Lease {
    Lease::new(1, Without::Closed, false)
}

pub(super) fn chunk(units: u64, usable: Nanos, date: i64) -> Given {
    Given {
        units,
        usable,
        expires: usable + SECOND,
        date,
        holders: 1,
        ..Given::default()
    }
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
                    lease.back(now, shape, part, units, false);
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
                    lease.back(1, shape, part, units, true);
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
