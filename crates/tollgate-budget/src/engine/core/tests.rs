//! The state machine against an oracle, in random histories.
mod waiting;

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::{engine::rate::narrow, limit::Limit, store::Settlement};

const W: Nanos = 6 * SECOND;
const LIMITS: [u64; 2] = [20, 1000];

fn core(enforcement: Enforcement, queue_len: usize) -> Core {
    core_of(&told(enforcement), queue_len)
}

/// The same, and so many requests for each user.
fn core_of_users(enforcement: Enforcement, queue_len: usize) -> Core {
    let [requests, tokens] = told(enforcement);
    let each = Limit::requests(3).per(Duration::from_nanos(W / 3));
    let each = each.enforcement(enforcement).scope(Scope::Principal);
    core_of(&[requests, tokens, each], queue_len)
}

fn told(enforcement: Enforcement) -> [Limit; 2] {
    let period = Duration::from_nanos(W);
    let requests = Limit::requests(LIMITS[0]).per(period);
    let tokens = Limit::tokens(LIMITS[1]).per(period);
    [requests, tokens].map(|limit| limit.enforcement(enforcement))
}

fn core_of(limits: &[Limit], queue_len: usize) -> Core {
    Core::new(
        limits.iter().map(Rule::told).collect(),
        Bounds {
            queue_len,
            queue_bytes: u64::MAX,
            max_wait: NEVER,
            run_alone: false,
            learn: false,
            usual: 60 * SECOND,
            keys: 10_000,
            size_classes: false,
            shadow: false,
            own: false,
            epoch: None,
        },
    )
}

pub(super) fn arrival(tokens: u64, user: u64) -> Arrival {
    Arrival {
        cost: Cost::request().tokens(tokens, 0),
        model: None,
        principal: Some(Principal::from_digest(user)),
        keys: None,
        weight: 4,
        until: NEVER,
        deadline: NEVER,
        bytes: 10,
        settles: false,
        allowed: Vec::new(),
    }
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Arrive {
        tokens: u64,
        user: u64,
    },
    /// The oldest request that is held is sent; it takes so long to arrive.
    Send {
        way: Nanos,
    },
    /// Some sent request is answered.
    Answer {
        which: usize,
        stated: bool,
    },
    /// Some request that waits, or is held or sent, goes away.
    Leave {
        which: usize,
    },
    /// Some request is over.
    End {
        which: usize,
        how: u8,
    },
    Pass {
        time: Nanos,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (1u64..400, 0u64..4).prop_map(|(tokens, user)| Step::Arrive { tokens, user }),
        4 => (0..900 * MILLI).prop_map(|way| Step::Send { way }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, stated)| Step::Answer { which, stated }),
        1 => any::<usize>().prop_map(|which| Step::Leave { which }),
        3 => (any::<usize>(), 0u8..3).prop_map(|(which, how)| Step::End { which, how }),
        4 => (0..SECOND).prop_map(|time| Step::Pass { time }),
    ]
}

/// What the test knows of a request.
#[derive(Clone, Copy, Debug)]
struct Known {
    ticket: u64,
    tokens: u64,
    sent: Option<Nanos>,
    arrived: Nanos,
}

#[derive(Default)]
struct World {
    now: Nanos,
    waiting: VecDeque<(u64, u64)>,
    held: VecDeque<Known>,
    sent: Vec<Known>,
    /// What the provider saw: arrival and tokens.
    log: Vec<(Nanos, u64)>,
    granted: usize,
}

impl World {
    /// Polls whoever waits, as woken tasks would, until nobody hears anything new.
    fn settle(&mut self, core: &mut Core) {
        loop {
            let mut heard = false;
            let queued = core.queued();
            for _ in 0..self.waiting.len() {
                let (ticket, tokens) = self.waiting.pop_front().unwrap();
                let mut wakes = Vec::new();
                match core.poll(
                    self.now,
                    ticket,
                    &mut Some(Waker::noop().clone()),
                    &mut wakes,
                ) {
                    Heard::Waiting(_) => self.waiting.push_back((ticket, tokens)),
                    Heard::Admitted => {
                        heard = true;
                        self.granted += 1;
                        self.held.push_back(Known {
                            ticket,
                            tokens,
                            sent: None,
                            arrived: 0,
                        });
                    }
                    Heard::Refused(_) | Heard::Review(_) => heard = true,
                }
            }
            // Whose poll lets others go has woken them.
            if !heard && core.queued() == queued {
                return;
            }
        }
    }

    fn take(&mut self, step: Step, core: &mut Core) {
        let wakes = &mut Vec::new();
        match step {
            Step::Arrive { tokens, user } => {
                match core.arrive(self.now, &arrival(tokens, user), wakes) {
                    Arrived::Admitted(ticket) => {
                        self.held.push_back(Known {
                            ticket,
                            tokens,
                            sent: None,
                            arrived: 0,
                        });
                    }
                    Arrived::Waiting(ticket) => self.waiting.push_back((ticket, tokens)),
                    Arrived::Refused(_) | Arrived::Review(_) => {}
                }
            }
            Step::Send { way } => {
                if let Some(mut known) = self.held.pop_front() {
                    core.sent(self.now, known.ticket, wakes);
                    known.sent = Some(self.now);
                    known.arrived = self.now + way;
                    self.log.push((known.arrived, known.tokens));
                    self.sent.push(known);
                }
            }
            Step::Answer { which, stated } => {
                let now = self.now;
                let there: Vec<_> = self.sent.iter().filter(|k| k.arrived <= now).collect();
                if !there.is_empty() {
                    let known = there[which % there.len()];
                    let (sent, arrived) = (known.sent.unwrap(), known.arrived);
                    // An answer that states nothing is dated on the premise that the way there is at most a quarter of
                    // its latency; a provider so near to its answers that it is more has to state its time.
                    let stated = stated || 4 * (arrived - sent) > now - sent;
                    // Truthful: it worked from the arrival until now.
                    let head = Head {
                        stated: &[],
                        processing: stated.then(|| now - arrived),
                        refusal: None,
                    };
                    core.head(now, known.ticket, head, wakes);
                }
            }
            Step::Leave { which } => {
                if !self.waiting.is_empty() {
                    let (ticket, _) = self.waiting.remove(which % self.waiting.len()).unwrap();
                    core.leave(self.now, ticket, wakes);
                    core.leave(self.now, ticket, wakes);
                }
            }
            Step::End { which, how } => {
                if !self.sent.is_empty() {
                    let known = self.sent.swap_remove(which % self.sent.len());
                    // Nothing that the provider would not give back: it keeps all of it.
                    let how = if how == 0 {
                        Settlement::Actual(Cost::request().tokens(known.tokens, 0))
                    } else {
                        Settlement::Keep
                    };
                    core.settle(self.now, known.ticket, how, wakes);
                    core.settle(self.now, known.ticket, Settlement::AllBack, wakes);
                }
            }
            Step::Pass { time } => self.now += time,
        }
        self.settle(core);
    }

    /// All that is open ends, and time passes until nobody waits.
    fn finish(&mut self, core: &mut Core) {
        for _ in 0..100_000 {
            if let Some(known) = self.held.pop_front() {
                core.settle(self.now, known.ticket, Settlement::AllBack, &mut Vec::new());
            } else if let Some(known) = self.sent.pop() {
                core.settle(self.now, known.ticket, Settlement::Keep, &mut Vec::new());
            } else if self.waiting.is_empty() {
                return;
            } else {
                self.now += W / 50;
            }
            self.settle(core);
        }
        panic!("{} wait for ever", self.waiting.len());
    }
}

fn in_any_window(log: &[(Nanos, u64)], cost: impl Fn(u64) -> u64) -> u64 {
    let mut log = log.to_vec();
    log.sort_unstable();
    let mut most = 0;
    for (i, &(at, _)) in log.iter().enumerate() {
        let within = log[..=i].iter().filter(|&&(other, _)| other + W > at);
        most = most.max(within.map(|&(_, tokens)| cost(tokens)).sum());
    }
    most
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_happens_no_window_of_the_provider_holds_more_than_the_limit(
        steps in prop::collection::vec(step(), 1..250),
        users in any::<bool>(),
    ) {
        let new = if users { core_of_users } else { core };
        let mut core = new(Enforcement::Rolling, 1000);
        let mut world = World::default();
        for step in steps {
            world.take(step, &mut core);
        }
        prop_assert!(in_any_window(&world.log, |_| 1) <= LIMITS[0]);
        prop_assert!(in_any_window(&world.log, |tokens| tokens) <= LIMITS[1]);
    }

    #[test]
    fn whatever_happens_nothing_is_left_behind_and_nobody_waits_for_ever(
        steps in prop::collection::vec(step(), 1..250),
        bucket in any::<bool>(),
        users in any::<bool>(),
    ) {
        let enforcement = if bucket { Enforcement::Bucket { burst: None } } else { Enforcement::Auto };
        let new = if users { core_of_users } else { core };
        let mut core = new(enforcement, 30);
        let mut world = World::default();
        for step in steps {
            world.take(step, &mut core);
            prop_assert_eq!(core.queued().0, world.waiting.len());
            prop_assert_eq!(core.in_flight(), world.held.len() + world.sent.len());
        }
        world.finish(&mut core);
        prop_assert_eq!((core.queued(), core.in_flight()), ((0, 0), 0));
        prop_assert!(core.deadlines.is_empty());
        let mut left = Vec::new();
        core.each_account(|_, account| left.push((account.reserved, account.backlog, account.holders)));
        prop_assert!(left.iter().all(|&left| left == (0, 0, 0)), "{left:?}");
        prop_assert_eq!(core.free.len(), core.entries.len());
    }

    #[test]
    fn no_cost_and_no_time_overflows(
        costs in prop::collection::vec((0u64..=1 << 63, 0u64..u64::MAX / 4), 1..40),
        amount in 1u64..=1 << 62,
    ) {
        for enforcement in [
            Enforcement::Auto,
            Enforcement::Fixed,
            Enforcement::Bucket { burst: None },
            Enforcement::Quantised { slice: Duration::from_millis(100) },
        ] {
            let rule = Rule::told(&Limit::tokens(amount).per_minute().enforcement(enforcement));
            let bounds = Bounds {
                queue_len: 10,
                queue_bytes: 100,
                max_wait: narrow(Duration::MAX.as_nanos()),
                run_alone: true,
                learn: true,
                usual: 60 * SECOND,
            keys: 10_000,
            size_classes: false,
            shadow: false,
                own: false,
            epoch: None,
            };
            let mut core = Core::new(vec![rule], bounds);
            let mut now = 0u64;
            let wakes = &mut Vec::new();
            for &(tokens, time) in &costs {
                now = now.saturating_add(time / 40);
                if let Arrived::Admitted(ticket) = core.arrive(now, &arrival(tokens, 1), wakes) {
                    core.sent(now, ticket, wakes);
                    let head = Head { stated: &[], processing: Some(time), refusal: Some((None, Some(time))) };
                    core.head(now, ticket, head, wakes);
                    core.settle(now, ticket, Settlement::Actual(Cost::request().tokens(tokens, tokens)), wakes);
                }
            }
        }
    }
}

// T21
#[test]
fn a_wake_up_is_for_one_who_is_admitted_or_who_is_to_keep_the_timer() {
    let mut core = core(Enforcement::Rolling, 20_000);
    let wakes = &mut Vec::new();
    let mut tickets = Vec::new();
    for _ in 0..10_000 {
        match core.arrive(0, &arrival(1, 1), wakes) {
            Arrived::Waiting(ticket) => tickets.push(ticket),
            Arrived::Admitted(ticket) => core.sent(0, ticket, &mut Vec::new()),
            Arrived::Refused(_) | Arrived::Review(_) => unreachable!("the queue is long enough"),
        }
    }
    let mut keepers = 0;
    for &ticket in &tickets {
        match core.poll(0, ticket, &mut Some(Waker::noop().clone()), wakes) {
            Heard::Waiting(Some(_)) => keepers += 1,
            Heard::Waiting(None) => {}
            _ => unreachable!("nothing has changed"),
        }
    }
    assert_eq!(keepers, 1, "one keeps the timer for all");
    wakes.clear();
    core.tick(2 * W, wakes);
    // Those who are admitted, and the next to keep the timer.
    assert_eq!(wakes.len(), LIMITS[0] as usize + 1);
}

// T31
#[test]
fn a_clock_that_goes_back_or_sleeps_an_hour_gives_no_burst() {
    for enforcement in [
        Enforcement::Auto,
        Enforcement::Rolling,
        Enforcement::Fixed,
        Enforcement::Bucket { burst: None },
        Enforcement::Quantised {
            slice: Duration::from_secs(1),
        },
    ] {
        let mut core = core(enforcement, 1000);
        let wakes = &mut Vec::new();
        let mut admitted = |now: Nanos| {
            let mut count = 0;
            for _ in 0..50 {
                match core.arrive(now, &arrival(1, 1), wakes) {
                    Arrived::Admitted(ticket) => {
                        core.sent(now, ticket, wakes);
                        core.settle(now, ticket, Settlement::Keep, wakes);
                        count += 1;
                    }
                    Arrived::Waiting(ticket) => drop(core.leave(now, ticket, wakes)),
                    Arrived::Refused(refused) => {
                        let wait = refused.retry_after.unwrap();
                        assert!(
                            wait < Duration::from_secs(4000),
                            "{enforcement:?}: {wait:?}"
                        );
                    }
                    Arrived::Review(_) => unreachable!("no limit is reviewed"),
                }
            }
            count
        };
        let (then, hour) = (100 * SECOND, 3600 * SECOND);
        assert!((1..=LIMITS[0]).contains(&admitted(then)), "{enforcement:?}");
        // As two threads see it that take the lock in another order than the time.
        assert_eq!(admitted(then - 1), 0, "{enforcement:?}");
        assert_eq!(admitted(then - 50 * MILLI), 0, "{enforcement:?}");
        assert!(
            (1..=LIMITS[0]).contains(&admitted(then + hour)),
            "{enforcement:?}"
        );
        assert_eq!(admitted(then + hour - SECOND / 2), 0, "{enforcement:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_given_back_leaves_the_books_as_if_it_had_never_been_taken(
        before in prop::collection::vec((1u64..200, 0..SECOND), 0..20),
        tokens in 1u64..200,
        sent in any::<bool>(),
    ) {
        for enforcement in [Enforcement::Rolling, Enforcement::Fixed, Enforcement::Bucket { burst: None }] {
            let mut core = core(enforcement, 0);
            let wakes = &mut Vec::new();
            let mut now = 0;
            for &(tokens, time) in &before {
                now += time;
                if let Arrived::Admitted(ticket) = core.arrive(now, &arrival(tokens, 1), wakes) {
                    core.sent(now, ticket, wakes);
                    core.settle(now, ticket, Settlement::Keep, wakes);
                }
            }
            let used = |core: &mut Core| {
                let mut used = Vec::new();
                core.each_account(|_, account| used.push((account.used(now), account.reserved)));
                used
            };
            let as_it_was = used(&mut core);
            if let Arrived::Admitted(ticket) = core.arrive(now, &arrival(tokens, 1), wakes) {
                prop_assert_ne!(&used(&mut core), &as_it_was);
                if sent {
                    core.sent(now, ticket, wakes);
                }
                core.settle(now, ticket, Settlement::AllBack, wakes);
            }
            prop_assert_eq!(used(&mut core), as_it_was, "{:?}", enforcement);
        }
    }

    #[test]
    fn nobody_is_admitted_after_it_was_to_give_up(
        steps in prop::collection::vec(step(), 1..200),
        patience in 0..2 * W,
    ) {
        let mut core = core(Enforcement::Rolling, 1000);
        core.bounds.max_wait = patience;
        let mut world = World::default();
        let mut came: HashMap<u64, Nanos> = HashMap::new();
        for step in steps {
            world.take(step, &mut core);
            for &(ticket, _) in &world.waiting {
                came.entry(ticket).or_insert(world.now);
            }
            for held in &world.held {
                if let Some(came) = came.remove(&held.ticket) {
                    prop_assert!(world.now <= came + patience);
                }
            }
        }
    }
}
