//! Keys without end, and providers that state what cannot be.
use std::time::Duration;

use tollgate_core::extensions::Reason;

use super::*;
use crate::{limit::Limit, used::Used};

const MINUTE: Nanos = 60 * SECOND;

fn core(limits: impl IntoIterator<Item = Limit>, settings: impl FnOnce(&mut Bounds)) -> Core {
    let mut bounds = Bounds {
        queue_len: 100,
        queue_bytes: u64::MAX,
        max_wait: NEVER,
        run_alone: false,
        learn: false,
        usual: MINUTE,
        keys: 1000,
        size_classes: false,
        shadow: false,
        own: false,
        epoch: None,
    };
    settings(&mut bounds);
    Core::new(limits.into_iter().map(|l| Rule::told(&l)).collect(), bounds)
}

fn of(user: u64, tokens: u64) -> Arrival {
    tests::arrival(tokens, user)
}

fn for_model(model: &str) -> Arrival {
    Arrival {
        model: Some(model.into()),
        principal: None,
        ..of(0, 1)
    }
}

fn requests(limit: u64, used: f64, reset: Nanos) -> Stated {
    Stated {
        unit: Unit::Requests,
        limit: limit as f64,
        remaining: limit as f64 - used,
        reset: Some((reset, MILLI)),
        window: None,
        parts: 1,
    }
}

/// Whether it goes at once; it is sent then, and over at once.
fn goes(core: &mut Core, now: Nanos, arrival: &Arrival) -> bool {
    let wakes = &mut Vec::new();
    match core.arrive(now, arrival, wakes) {
        Arrived::Admitted(ticket) => {
            core.sent(now, ticket, wakes);
            core.settle(now, ticket, crate::store::Settlement::Keep, wakes);
            true
        }
        Arrived::Waiting(ticket) => {
            core.leave(now, ticket, wakes);
            false
        }
        _ => false,
    }
}

/// One answer to a request that was sent then.
fn answered(core: &mut Core, now: Nanos, arrival: &Arrival, stated: &[Stated]) {
    let wakes = &mut Vec::new();
    let Arrived::Admitted(ticket) = core.arrive(now, arrival, wakes) else {
        panic!("it does not go at once");
    };
    core.sent(now, ticket, wakes);
    let head = Head {
        stated,
        processing: Some(MILLI),
        refusal: None,
    };
    core.head(now + 2 * MILLI, ticket, head, wakes);
    let keep = crate::store::Settlement::Keep;
    core.settle(now + 2 * MILLI, ticket, keep, wakes);
}

#[test]
fn a_key_without_a_place_does_not_spend_twice_when_a_place_is_free_again() {
    let each = Limit::tokens(100)
        .per(Duration::from_secs(60))
        .scope(Scope::Principal);
    let mut core = core([each], |bounds| bounds.keys = 1);
    let (ann, bob) = (of(1, 100), of(2, 100));
    assert!(goes(&mut core, 0, &ann));
    assert!(
        goes(&mut core, 50 * SECOND, &bob),
        "from the shared account"
    );
    // By now Ann's is idle.
    assert!(!goes(&mut core, 61 * SECOND, &bob));
    assert!(goes(&mut core, 111 * SECOND, &bob), "a minute later");
    assert!(core.overflow.is_empty(), "and with an account of its own");
}

#[test]
fn however_many_odd_periods_are_stated_there_are_few_learned_limits() {
    let mut core = core([], |bounds| bounds.learn = true);
    for n in 0..500u64 {
        let arrival = for_model(&format!("model {n}"));
        let reset = |used: u64| used * (SECOND + n * 37 * MILLI);
        for used in 1..=3 {
            let now = n * SECOND + used * 10 * MILLI;
            answered(
                &mut core,
                now,
                &arrival,
                &[requests(1000, used as f64, reset(used))],
            );
        }
    }
    assert!(core.rules.len() <= 16, "{}", core.rules.len());
    let wakes = core.lanes.iter().filter(|lane| lane.learned.len() == 1);
    assert_eq!(wakes.count(), 500, "each model has its limit");
    for account in &core.accounts {
        let rule = &core.rules[account.rule as usize];
        assert_eq!(account.rate.period, rule.rate.period, "that of its book");
    }
}

#[test]
fn what_keys_without_a_place_have_spent_is_put_back_where_they_share_it() {
    let daily = || {
        let cap = Limit::tokens(100).per_calendar_day("UTC");
        core([cap.named("daily").scope(Scope::Principal)], |bounds| {
            bounds.keys = 1;
            bounds.epoch = Some(0);
        })
    };
    let mut before = daily();
    assert!(goes(&mut before, 0, &of(1, 100)));
    assert!(goes(&mut before, 0, &of(2, 100)), "from the shared account");
    let mut spent = Vec::new();
    before.each_account(|rule, account| {
        let mut one = crate::spent::Spent::new(rule.name.clone(), account.used(0) as u64);
        one.key = account.key.clone();
        spent.push((one, None));
    });
    // Whatever order a ledger keeps them in.
    for _ in 0..2 {
        spent.reverse();
        let mut after = daily();
        after.bounds.keys = 2;
        after.restore(0, 0, &spent).unwrap();
        for user in [1, 2] {
            assert!(
                !goes(&mut after, 0, &of(user, 1)),
                "{user} has spent it all"
            );
        }
        let place = Key::Digest(Some(Principal::from_digest(1)));
        assert!(
            after.keyed.contains_key(&(0, place)),
            "the first has its own"
        );
    }
}

#[test]
fn a_provider_that_does_not_answer_holds_up_nobody_for_ever() {
    let mut core = core([], |bounds| bounds.learn = true);
    let arrival = for_model("mute");
    let wakes = &mut Vec::new();
    let mut in_flight = 0;
    for (minutes, most) in [(0, 16), (1, 32), (2, 64), (3, 128)] {
        let now = minutes * MINUTE;
        while let Arrived::Admitted(ticket) = core.arrive(now, &arrival, wakes) {
            core.sent(now, ticket, wakes);
            in_flight += 1;
        }
        // The last one waits; it goes first in the next minute.
        assert_eq!(in_flight, most, "after {minutes} minutes");
        assert_eq!(core.next, now + MINUTE);
        core.tick(now + MINUTE, wakes);
        in_flight += 1;
    }
}

#[test]
fn a_limit_that_headers_have_lowered_refuses_nothing_for_good() {
    let limit = Limit::tokens(1000).per(Duration::from_secs(60));
    let mut core = core([limit], |_| {});
    let lowered = Stated {
        unit: Unit::Tokens,
        window: Some(MINUTE),
        ..requests(100, 10.0, 6 * SECOND)
    };
    answered(&mut core, 0, &of(1, 10), &[lowered]);
    let mut refused = |tokens| {
        let arrived = core.arrive(SECOND, &of(1, tokens), &mut Vec::new());
        let Arrived::Refused(refused) = arrived else {
            panic!("{tokens} tokens do not fit");
        };
        refused
    };
    let now = refused(500);
    assert_eq!(now.reason, Reason::WaitTooLong);
    assert_eq!(now.retry_after, Some(Duration::from_secs(60)));
    assert_eq!(refused(1001).reason, Reason::NeverFits);
}

#[test]
fn what_was_booked_under_another_limit_is_given_back_whole() {
    let limit = || Limit::tokens(100).per(Duration::from_secs(60)).named("it");
    for enforcement in [
        Enforcement::Auto,
        Enforcement::Rolling,
        Enforcement::Quantised {
            slice: Duration::from_secs(6),
        },
    ] {
        for changed in [30, 300] {
            let limit = limit().enforcement(enforcement);
            let mut core = core([limit], |bounds| bounds.run_alone = true);
            let wakes = &mut Vec::new();
            let Arrived::Admitted(ticket) = core.arrive(0, &of(1, 250), wakes) else {
                panic!("it goes alone");
            };
            core.sent(0, ticket, wakes);
            core.set_limit(SECOND, "it", |_| true, changed, wakes)
                .unwrap();
            let head = Head {
                stated: &[],
                processing: Some(MILLI),
                refusal: None,
            };
            core.head(2 * SECOND, ticket, head, wakes);
            core.set_limit(2 * SECOND, "it", |_| true, 100, wakes)
                .unwrap();
            let back = crate::store::Settlement::AllBack;
            core.settle(3 * SECOND, ticket, back, wakes);
            for now in [3, 70, 130, 190] {
                let used = core.accounts[0].used(now * SECOND);
                assert_eq!(used, 0, "{enforcement:?}, {changed}, after {now} s");
            }
        }
    }
}

#[test]
fn a_model_whose_learned_limit_is_in_use_is_not_forgotten_for_others() {
    let mut core = core([], |bounds| {
        bounds.learn = true;
        bounds.keys = 3;
    });
    let known = for_model("known");
    for used in 1..=3 {
        let now = used * 10 * MILLI;
        let stated = requests(100, used as f64, used * MINUTE / 100);
        answered(&mut core, now, &known, &[stated]);
    }
    let learned = |core: &Core| core.lanes.iter().any(|lane| !lane.learned.is_empty());
    assert!(learned(&core));
    for n in 0..50 {
        assert!(goes(&mut core, SECOND, &for_model(&format!("model {n}"))));
        assert!(core.lane_of.len() <= 3);
    }
    let lane = core.lane_of[&(known.model.clone(), None)];
    assert_eq!(core.lanes[lane as usize].learned.len(), 1);
    // Two minutes later nothing is owed any more.
    for n in 0..50 {
        goes(&mut core, 2 * MINUTE, &for_model(&format!("model {n}")));
    }
    assert!(!core.lane_of.contains_key(&(known.model, None)));
}

#[test]
fn an_assumed_output_is_no_reason_to_refuse_a_limit_of_money_or_a_small_burst() {
    let money = Limit::money("0.01".parse().unwrap())
        .per_minute()
        .scope(Scope::Principal);
    let burst = Limit::tokens(1000)
        .per_minute()
        .scope(Scope::Principal)
        .enforcement(Enforcement::Bucket { burst: Some(100) });
    let used = Used {
        input: 10,
        output: 4096,
        money: Some(41_000_000_000),
        input_money: Some(25_000_000),
        assumed: true,
        ..Used::default()
    };
    let assumed = Cost::request().using(used);
    let stated = Cost::request().using(Used {
        assumed: false,
        ..used
    });
    for limit in [money, burst] {
        let mut core = core([limit], |_| {});
        let mut arrival = of(1, 0);
        arrival.cost = stated;
        let arrived = core.arrive(0, &arrival, &mut Vec::new());
        assert!(matches!(arrived, Arrived::Refused(_)), "it is stated");
        arrival.cost = assumed;
        assert!(goes(&mut core, 0, &arrival));
        assert!(!goes(&mut core, 0, &arrival), "it holds all of it");
    }
}

#[test]
fn only_limits_that_headers_speak_of_keep_a_history() {
    let own = Limit::tokens(100).per_minute().scope(Scope::Principal);
    let mut core = core([own, Limit::requests(100).per_minute()], |_| {});
    assert!(goes(&mut core, 0, &of(1, 10)));
    let mut kept = Vec::new();
    core.each_account(|rule, account| kept.push((rule.unit, account.keeps_history())));
    assert_eq!(kept, [(Unit::Tokens, false), (Unit::Requests, true)]);
}
