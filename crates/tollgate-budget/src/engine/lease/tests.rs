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

#[test]
fn who_wants_more_than_there_is_left_of_a_cap_does_not_speak_for_who_wants_less() {
    let shape = Shape::Cap { ends: 1000 };
    let mut lease = lease();
    assert_eq!(lease.fits(SECOND, MINUTE, shape, 5), Hand::Unknown);
    assert_eq!(lease.ask(SECOND, MINUTE, shape, HOLD, 0).need, 5);
    let mut now = SECOND + 1;
    let back = now + SECOND;
    let none = Given {
        back,
        ..Given::default()
    };
    lease.given(now, shape, none);
    assert_eq!(lease.fits(now, MINUTE, shape, 5), Hand::Empty(back));
    assert_eq!(lease.due_at(now, HOLD, 0), NEVER, "nobody waits for it");
    now += 1;
    assert_eq!(lease.fits(now, MINUTE, shape, 1), Hand::Unknown);
    assert_eq!(lease.fits(now, MINUTE, shape, 5), Hand::Empty(back));
    assert_eq!(lease.due_at(now, HOLD, 1), now);
    assert_eq!(lease.ask(now, MINUTE, shape, HOLD, 1).need, 1);
}

#[test]
fn what_comes_back_to_a_closed_lease_is_for_the_others() {
    for shape in [Shape::Cap { ends: 1000 }, WINDOW, BUCKET] {
        let mut lease = lease();
        lease.fits(1, MINUTE, shape, 10);
        let claim = lease.ask(1, MINUTE, shape, HOLD, 0).claim;
        assert_eq!(claim, 0);
        let date = 1000;
        lease.given(1, shape, chunk(10, 1, date));
        let part = lease.take(1, MINUTE, shape, 10);
        lease.close(2, shape);
        lease.back(3, shape, part, 6, false);
        // Also what is given only now.
        lease.given(3, shape, chunk(3, 3, date));
        assert_eq!(lease.fits(3, MINUTE, shape, 1), Hand::Down, "{shape:?}");
        assert_eq!(lease.left(), 0, "{shape:?}");
        let left = lease.close(4, shape).map(|wish| (wish.claim, wish.refunds));
        let told = match shape {
            Shape::Cap { .. } => Some((4, vec![])),
            Shape::Rolling { .. } => Some((0, vec![(date, 9)])),
            Shape::Bucket { .. } => None,
        };
        assert_eq!(left, told, "{shape:?}");
    }
}

#[test]
fn a_server_so_far_away_that_all_ends_on_its_way_is_visited_half_of_the_time_at_most() {
    let trip = 3 * SECOND / 2;
    for shape in [BUCKET, WINDOW] {
        let mut lease = lease();
        let (mut now, mut visits, mut bought, mut refunded) = (SECOND, 0, 0, 0);
        while now < 61 * SECOND {
            let hand = lease.fits(now, MINUTE, shape, 10);
            assert!(matches!(hand, Hand::Unknown | Hand::Empty(_)), "{hand:?}");
            if let Hand::Empty(back) = hand {
                assert!(back > now && back <= now + trip, "{shape:?}");
            }
            if lease.due_at(now, HOLD, 10) > now {
                now += SECOND / 10;
                continue;
            }
            let wish = lease.ask(now, MINUTE, shape, HOLD, 10);
            assert_eq!(wish.need, 10, "it is not visited for nothing");
            visits += 1;
            bought += wish.want;
            refunded += wish.refunds.iter().map(|&(_, units)| units).sum::<u64>();
            // It ends a hold after it was asked for.
            let late = Given {
                expires: now + SECOND,
                ..chunk(wish.want, now + trip, visits)
            };
            now += trip;
            lease.given(now, shape, late);
        }
        assert!((15..=20).contains(&visits), "{shape:?}: {visits}");
        if shape == WINDOW {
            assert!(refunded + 10 >= bought, "{refunded} of {bought}");
        }
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
