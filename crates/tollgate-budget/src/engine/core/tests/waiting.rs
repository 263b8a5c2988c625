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
    core.poll(
        now,
        ticket,
        &mut Some(Waker::noop().clone()),
        &mut Vec::new(),
    )
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
    ) {
        let mut core = core_of_users(Enforcement::Rolling, 1000);
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

#[test]
fn who_fits_no_more_under_a_lower_limit_is_told_at_once_wherever_it_stands() {
    let limit = Limit::tokens(1000)
        .per(Duration::from_secs(60))
        .named("tokens");
    let mut core = core_of(&[limit.enforcement(Enforcement::Rolling)], 10);
    let Arrived::Admitted(_) = core.arrive(0, &arrival(950, ALICE), &mut Vec::new()) else {
        panic!("it fits");
    };
    let small = waits(&mut core, 0, &arrival(100, ALICE));
    let large = waits(&mut core, 0, &arrival(800, ALICE));
    core.set_limit(0, "tokens", |_| true, 500, &mut Vec::new())
        .unwrap();
    assert!(matches!(poll(&mut core, 0, small), Heard::Waiting(_)));
    let Heard::Refused(refused) = poll(&mut core, 0, large) else {
        panic!("it can never go");
    };
    assert!(refused.never_fits());
}

#[test]
fn the_pace_after_a_refusal_is_that_of_the_shortest_limit() {
    let day = Limit::tokens(2_000_000).per(Duration::from_secs(86_400));
    let day = day.enforcement(Enforcement::Rolling);
    for (limits, most) in [
        (vec![day.clone(), rolling(600, 60)], 100),
        (vec![day], 1000),
    ] {
        let mut core = core_of(&limits, 10);
        let ask = arrival(10_000, ALICE);
        let wakes = &mut Vec::new();
        let Arrived::Admitted(first) = core.arrive(0, &ask, wakes) else {
            panic!("it fits");
        };
        core.sent(0, first, wakes);
        let head = Head {
            stated: &[],
            processing: None,
            refusal: Some((None, Some(SECOND))),
        };
        core.head(MILLI, first, head, wakes);
        core.settle(MILLI, first, Settlement::TokensBack, wakes);
        let open = MILLI + SECOND;
        let Arrived::Admitted(_) = core.arrive(open, &ask, wakes) else {
            panic!("the gate is open");
        };
        let next = waits(&mut core, open, &ask);
        let Heard::Waiting(Some(at)) = poll(&mut core, open, next) else {
            panic!("it keeps the timer");
        };
        assert!(at - open <= most * MILLI, "{} ms", (at - open) / MILLI);
    }
}

/// A waker that can be told from others.
struct Bell;

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn no_waker_is_cloned_or_dropped_where_a_lock_is_held() {
    let mut core = core_of(&[rolling(1, 60)], 10);
    sent(&mut core, 0, ALICE);
    let ticket = waits(&mut core, 0, &arrival(1, ALICE));
    let bells = [Arc::new(Bell), Arc::new(Bell)];
    let wakers = || bells.clone().map(|bell| Some(Waker::from(bell)));
    let [mut first, mut second] = wakers();
    let [mut again, _] = wakers();
    let counts = || bells.each_ref().map(Arc::strong_count);
    let (before, wakes) = (counts(), &mut Vec::new());
    core.poll(0, ticket, &mut first, wakes);
    core.poll(0, ticket, &mut again, wakes);
    core.poll(0, ticket, &mut second, wakes);
    assert!(first.is_none(), "kept");
    let replaced = second.take().unwrap();
    assert!(replaced.will_wake(again.as_ref().unwrap()), "handed back");
    // Somebody is to keep the timer: it is woken, and leaves another waker then.
    core.keeper = None;
    core.hand_over(wakes);
    assert_eq!(wakes.len(), 1);
    let mut third = wakes.pop();
    core.poll(0, ticket, &mut third, wakes);
    let left = core.leave(0, ticket, wakes);
    assert!(left.is_some() && third.is_none());
    assert_eq!(counts(), before);
}

#[test]
fn who_waits_for_a_bucket_is_seen_again_when_what_is_held_is_sent() {
    let bucket = Enforcement::Bucket { burst: None };
    let limit = Limit::tokens(1000).per(Duration::from_secs(6));
    let mut core = core_of(&[limit.enforcement(bucket)], 10);
    let admitted = |core: &mut Core, now, tokens| match core.arrive(
        now,
        &arrival(tokens, BOB),
        &mut Vec::new(),
    ) {
        Arrived::Admitted(ticket) => ticket,
        _ => panic!("it fits"),
    };
    let first = admitted(&mut core, 0, 500);
    core.sent(0, first, &mut Vec::new());
    let held = admitted(&mut core, SECOND, 400);
    // With what is held it needs all of the bucket, and without it less.
    let alice = waits(&mut core, SECOND, &arrival(595, ALICE));
    let keeps = |core: &mut Core| match poll(core, SECOND, alice) {
        Heard::Waiting(Some(at)) => at,
        _ => panic!("it keeps the timer"),
    };
    let before = keeps(&mut core);
    core.sent(SECOND, held, &mut Vec::new());
    let after = keeps(&mut core);
    assert!(after < before, "{after} and {before}");
}
