//! Who waits is woken when anything that it waits for changes, and gives up when it was to, not before.
use super::*;

fn rolling(requests: u64, seconds: u64) -> Limit {
    let limit = Limit::requests(requests).per(Duration::from_secs(seconds));
    limit.enforcement(Enforcement::Rolling)
}

fn each(requests: u64, seconds: u64) -> Limit {
    rolling(requests, seconds).scope(Scope::Principal)
}

fn admitted(core: &mut Core, now: Nanos, user: u64) -> u64 {
    match core.arrive(now, &arrival(1, user), &mut Vec::new()) {
        Arrived::Admitted(ticket) => ticket,
        _ => panic!("it fits"),
    }
}

fn sent(core: &mut Core, now: Nanos, user: u64) -> u64 {
    let ticket = admitted(core, now, user);
    core.sent(now, ticket, &mut Vec::new());
    ticket
}

fn waits(core: &mut Core, now: Nanos, arrival: &Arrival) -> u64 {
    match core.arrive(now, arrival, &mut Vec::new()) {
        Arrived::Waiting(ticket) => ticket,
        _ => panic!("it has to wait"),
    }
}

fn poll(core: &mut Core, now: Nanos, ticket: u64) -> Heard {
    core.poll(now, ticket, Waker::noop(), &mut Vec::new())
}

const ALICE: u64 = 1;
const BOB: u64 = 2;

#[test]
fn who_waits_for_its_own_limit_and_for_a_shared_one_goes_when_the_shared_one_is_given_back() {
    let mut core = core_of(&[rolling(2, 60), each(1, 5)], 10);
    sent(&mut core, 0, ALICE);
    let bob = sent(&mut core, 0, BOB);
    let alice = waits(&mut core, 0, &arrival(1, ALICE));
    core.settle(10 * SECOND, bob, Settlement::AllBack, &mut Vec::new());
    assert!(matches!(
        poll(&mut core, 10 * SECOND, alice),
        Heard::Admitted
    ));
}

#[test]
fn who_waits_for_its_own_limit_while_a_place_of_the_shared_one_is_held_goes_in_time() {
    let mut core = core_of(&[rolling(1, 1), each(1, 10)], 10);
    sent(&mut core, 0, ALICE);
    let bob = admitted(&mut core, 3 * SECOND, BOB);
    let alice = waits(&mut core, 3 * SECOND, &arrival(1, ALICE));
    let Heard::Waiting(Some(at)) = poll(&mut core, 3 * SECOND, alice) else {
        panic!("it keeps the timer");
    };
    assert!(at <= 11 * SECOND, "{at}");
    core.sent(4 * SECOND, bob, &mut Vec::new());
    let heard = poll(&mut core, 20 * SECOND, alice);
    assert!(matches!(heard, Heard::Admitted));
}

// T22
#[test]
fn who_is_not_to_wait_at_all_goes_at_once_if_it_fits_while_others_wait_for_something_of_their_own()
{
    let mut core = core_of(&[rolling(10, 60), each(1, 60)], 10);
    sent(&mut core, 0, ALICE);
    waits(&mut core, 0, &arrival(1, ALICE));
    let mut bob = arrival(1, BOB);
    bob.until = SECOND;
    let arrived = core.arrive(SECOND, &bob, &mut Vec::new());
    assert!(matches!(arrived, Arrived::Admitted(_)));
    let mut alice = arrival(1, ALICE);
    alice.until = SECOND;
    let arrived = core.arrive(SECOND, &alice, &mut Vec::new());
    assert!(matches!(arrived, Arrived::Refused(_)));
}

// T22
#[test]
fn nobody_gives_up_for_the_sake_of_those_who_are_to_go_with_it() {
    // One every ten milliseconds, and a timer for several of them.
    let bucket = Enforcement::Bucket { burst: None };
    let limit = Limit::requests(100).per(Duration::from_secs(1));
    let mut core = core_of(&[limit.enforcement(bucket)], 10);
    for _ in 0..100 {
        sent(&mut core, 0, ALICE);
    }
    let keeps = |heard| match heard {
        Heard::Waiting(Some(at)) => at,
        _ => panic!("it keeps the timer"),
    };
    let first = waits(&mut core, 0, &arrival(1, ALICE));
    let at = keeps(poll(&mut core, 0, first));
    assert!(matches!(poll(&mut core, at, first), Heard::Admitted));
    core.sent(at, first, &mut Vec::new());
    let mut second = arrival(1, ALICE);
    second.until = at + 15 * MILLI;
    let ticket = waits(&mut core, at, &second);
    let due = keeps(poll(&mut core, at, ticket));
    assert!((10..15).contains(&((due - at) / MILLI)), "{due} after {at}");
    assert!(matches!(poll(&mut core, due, ticket), Heard::Admitted));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_a_look_at_all_who_wait_finds_nobody_who_might_have_gone(
        steps in prop::collection::vec(step(), 1..150),
        bucket in any::<bool>(),
    ) {
        let enforcement = if bucket { Enforcement::Bucket { burst: None } } else { Enforcement::Rolling };
        let mut core = core_of_users(enforcement, 1000);
        let mut world = World::default();
        for (n, step) in steps.into_iter().enumerate() {
            world.take(step, &mut core);
            if n % 8 == 7 {
                let gone = world.sent.pop().or_else(|| world.held.pop_front());
                if let Some(known) = gone {
                    core.settle(world.now, known.ticket, Settlement::AllBack, &mut Vec::new());
                }
            }
            // One timer for those who are due within so long.
            world.now += 25 * MILLI;
            world.settle(&mut core);
            let waiting = world.waiting.len();
            core.reconsider(world.now, &mut Vec::new());
            world.settle(&mut core);
            prop_assert_eq!(world.waiting.len(), waiting);
        }
    }
}

/// How often each of the first two users goes, of so many that a bucket lets out.
fn served(core: &mut Core, waiting: &HashMap<u64, u64>, count: usize) -> [usize; 2] {
    let (mut now, mut served, mut gone) = (0, [0; 2], Vec::new());
    while gone.len() < count {
        now += 10 * MILLI;
        core.tick(now, &mut Vec::new());
        for (&ticket, &user) in waiting {
            if gone.contains(&ticket) || gone.len() == count {
                continue;
            }
            if matches!(poll(core, now, ticket), Heard::Admitted) {
                core.sent(now, ticket, &mut Vec::new());
                served[user as usize - 1] += 1;
                gone.push(ticket);
            }
        }
    }
    served
}

/// A full bucket that lets out ten a second.
fn full_bucket() -> Core {
    let limit = Limit::requests(10).per(Duration::from_secs(1));
    let limit = limit.enforcement(Enforcement::Bucket { burst: Some(1) });
    let mut core = core_of(&[limit], 10_000);
    sent(&mut core, 0, BOB);
    core
}

#[test]
fn who_leaves_the_queue_unserved_has_lost_nothing_of_its_share() {
    let mut core = full_bucket();
    let bobs = waits(&mut core, 0, &arrival(1, BOB));
    let left: Vec<_> = (0..1000)
        .map(|_| waits(&mut core, 0, &arrival(1, ALICE)))
        .collect();
    for ticket in left {
        core.leave(0, ticket, &mut Vec::new());
    }
    let mut waiting = HashMap::from([(bobs, BOB)]);
    for _ in 0..40 {
        for user in [ALICE, BOB] {
            waiting.insert(waits(&mut core, 0, &arrival(1, user)), user);
        }
    }
    let served = served(&mut core, &waiting, 40);
    assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
}

#[test]
fn who_names_five_models_has_one_share_of_what_all_models_share() {
    let mut core = full_bucket();
    let mut waiting = HashMap::new();
    for n in 0..60 {
        let mut alice = arrival(1, ALICE);
        alice.model = Some(format!("model-{}", n % 5).into());
        waiting.insert(waits(&mut core, 0, &alice), ALICE);
        waiting.insert(waits(&mut core, 0, &arrival(1, BOB)), BOB);
    }
    let served = served(&mut core, &waiting, 40);
    assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
}
