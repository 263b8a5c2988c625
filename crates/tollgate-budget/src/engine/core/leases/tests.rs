//! What the store is asked, and what becomes of those who wait for its answer.
use tollgate_core::extensions::Reason;

use super::*;
use crate::{
    engine::{
        core::{Arrival, Arrived, Bounds, Heard, tests::arrival},
        rate::MILLI,
    },
    limit::{Enforcement, Limit, Scope},
};

const VISIT: Nanos = 100 * MILLI;

fn leased(limit: Limit) -> Core {
    let bounds = Bounds {
        queue_len: 100,
        queue_bytes: u64::MAX,
        max_wait: NEVER,
        run_alone: false,
        learn: false,
        usual: 60 * SECOND,
        keys: 2,
        size_classes: false,
        shadow: false,
        own: true,
        epoch: Some(0),
    };
    let mut core = Core::new(vec![Rule::told(&limit)], bounds);
    core.lease(Terms {
        holding: Holding {
            hold: SECOND,
            spread: 100 * MILLI,
        },
        visit: VISIT,
        rates: Without::Closed,
        caps: Without::Closed,
    });
    core
}

fn bucket() -> Core {
    let bucket = Enforcement::Bucket { burst: None };
    leased(Limit::tokens(6000).per_minute().enforcement(bucket))
}

/// May not wait at all, and was asked for a moment ago.
fn now_or_never(now: Nanos) -> Arrival {
    Arrival {
        until: now - 1,
        ..arrival(10, 1)
    }
}

fn given(units: u64, usable: Nanos, back: Nanos) -> Given {
    Given {
        units,
        usable,
        expires: usable + SECOND,
        date: 1,
        back,
        holders: 1,
        ..Given::default()
    }
}

/// What one who arrives then may not wait hears, when the store answers so a millisecond later.
fn hears(core: &mut Core, now: Nanos, answer: Given) -> Result<(), Reason> {
    let wakes = &mut Vec::new();
    let Arrived::Waiting(ticket) = core.arrive(now, &now_or_never(now), wakes) else {
        panic!("nobody knows what there is");
    };
    assert!(core.rings(now), "the store is asked for it");
    let [line] = &core.lines(now, 10)[..] else {
        panic!("one limit");
    };
    assert_eq!(line.wish.need, 10);
    let later = now + MILLI;
    core.answered(later, line, Some(answer), wakes);
    match core.poll(later, ticket, &mut None, wakes) {
        Heard::Admitted => {
            core.settle(later, ticket, crate::store::Settlement::AllBack, wakes);
            Ok(())
        }
        Heard::Refused(refused) => Err(refused.reason),
        _ => panic!("it goes, or hears that it does not"),
    }
}

#[test]
fn who_may_not_wait_waits_for_one_visit_and_no_longer() {
    let heard = hears(&mut bucket(), SECOND, given(10, SECOND, 0));
    assert_eq!(heard, Ok(()));
    for answer in [given(0, 0, 2 * SECOND), given(10, 2 * SECOND, 0)] {
        let heard = hears(&mut bucket(), SECOND, answer);
        assert_eq!(heard, Err(Reason::WaitTooLong), "{answer:?}");
    }
}

#[test]
fn a_store_that_does_not_answer_holds_up_nobody_for_longer_than_a_visit_or_its_deadline() {
    for (deadline, ends) in [(NEVER, VISIT), (SECOND + 5 * MILLI, 5 * MILLI)] {
        let (mut core, wakes) = (bucket(), &mut Vec::new());
        let arrival = Arrival {
            deadline,
            ..now_or_never(SECOND)
        };
        let Arrived::Waiting(ticket) = core.arrive(SECOND, &arrival, wakes) else {
            panic!("nobody knows what there is");
        };
        core.tick(SECOND + ends - 1, wakes);
        let heard = core.poll(SECOND + ends - 1, ticket, &mut None, wakes);
        assert!(matches!(heard, Heard::Waiting(_)));
        core.tick(SECOND + ends, wakes);
        let heard = core.poll(SECOND + ends, ticket, &mut None, wakes);
        assert!(matches!(heard, Heard::Refused(_)));
    }
}

#[test]
fn who_lacks_more_than_the_stores_word_is_refused_at_once() {
    let (mut core, wakes) = (bucket(), &mut Vec::new());
    // The gate is shut for all.
    let shut = Shut {
        model: None,
        api_key: None,
        wait: SECOND,
    };
    core.shut(SECOND, shut, wakes);
    let arrived = core.arrive(SECOND, &now_or_never(SECOND), wakes);
    assert!(matches!(arrived, Arrived::Waiting(_) | Arrived::Refused(_)));
    if let Arrived::Waiting(ticket) = arrived {
        let heard = core.poll(SECOND, ticket, &mut None, wakes);
        assert!(matches!(heard, Heard::Refused(_)), "it waits for the gate");
    }
}

#[test]
fn the_store_is_asked_also_for_one_who_has_left_before_it_could_be() {
    let (mut core, wakes) = (bucket(), &mut Vec::new());
    let Arrived::Waiting(ticket) = core.arrive(SECOND, &now_or_never(SECOND), wakes) else {
        panic!("nobody knows what there is");
    };
    core.leave(SECOND, ticket, wakes);
    assert!(core.rings(SECOND));
    let lines = core.lines(SECOND, 10);
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].wish.need, lines[0].wish.want), (10, 10));
    core.answered(SECOND, &lines[0], Some(given(10, SECOND, 0)), wakes);
    let arrived = core.arrive(SECOND, &now_or_never(SECOND), wakes);
    assert!(matches!(arrived, Arrived::Admitted(_)));
}

#[test]
fn who_was_there_yesterday_gives_up_the_place_to_who_comes_today() {
    let day = 24 * 3600 * SECOND;
    let cap = Limit::tokens(100).per_calendar_day("UTC");
    let mut core = leased(cap.scope(Scope::Principal));
    for (now, users) in [(SECOND, [1, 2]), (day + SECOND, [3, 4])] {
        let wakes = &mut Vec::new();
        for user in users {
            let Arrived::Waiting(ticket) = core.arrive(now, &arrival(10, user), wakes) else {
                panic!("nobody knows what there is");
            };
            core.rings(now);
            for line in core.lines(now, 10) {
                let Shape::Cap { ends } = line.shape else {
                    panic!("a cap");
                };
                let given = Given {
                    units: line.wish.want,
                    date: ends,
                    ..Given::default()
                };
                core.answered(now, &line, Some(given), wakes);
            }
            core.sent(now, ticket, wakes);
            core.settle(now, ticket, crate::store::Settlement::Keep, wakes);
        }
        assert!(core.overflow.is_empty(), "they have places of their own");
    }
}

#[test]
fn who_waits_for_one_answer_is_not_looked_at_for_anothers() {
    let limit = Limit::tokens(100).per_calendar_day("UTC");
    let (mut core, wakes) = (leased(limit.scope(Scope::Principal)), &mut Vec::new());
    let tickets = [1, 2].map(|user| {
        let arrival = Arrival {
            until: SECOND - 1,
            ..arrival(10, user)
        };
        match core.arrive(SECOND, &arrival, wakes) {
            Arrived::Waiting(ticket) => ticket,
            _ => panic!("nobody knows what there is"),
        }
    });
    core.rings(SECOND);
    let lines = core.lines(SECOND, 10);
    assert_eq!(lines.len(), 2);
    for (line, ticket) in lines.iter().zip(tickets) {
        let Shape::Cap { ends } = line.shape else {
            panic!("a cap");
        };
        let given = Given {
            units: line.wish.want,
            date: ends,
            ..Given::default()
        };
        core.answered(SECOND, line, Some(given), wakes);
        let leases = core.leases.as_mut().expect("leased");
        let touched = std::mem::take(&mut leases.touched);
        assert!(touched.iter().all(|&id| id == line.account), "{touched:?}");
        let heard = core.poll(SECOND, ticket, &mut None, wakes);
        assert!(matches!(heard, Heard::Admitted));
    }
    let leases = core.leases.as_ref().expect("leased");
    assert!(leases.patient.is_empty());
}
