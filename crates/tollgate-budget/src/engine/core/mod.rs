//! The whole budget as a state machine: what comes goes in with the time, and who may go comes out.
//!
//! Nothing in here waits, reads a clock or wakes anybody. The shell around it ([`crate::memory`]) holds it in one mutex,
//! gives it the time, keeps the one timer that it asks for, and wakes whom it names once the lock is free.
//!
//! A request is an entry from its arrival to its end: waiting, then held (admitted, not sent), then sent. All accounts
//! of a request are taken in one step or not at all.
mod arrive;
mod change;
mod keys;
pub(crate) mod leases;
mod life;
mod line;
#[cfg(test)]
mod strange;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    task::Waker,
};

use tollgate_core::{extensions::Refused, gate::Gate, principal::Principal};

use super::{
    account::{Account, Take},
    headers::Stated,
    learn::Learner,
    queue::{Place, Queue},
    rate::{MILLI, NEVER, Nanos, SECOND},
    rule::Rule,
    skew::Skew,
    witness::{Charged, Verdict, Witness},
};
use crate::{
    charging::Cost,
    limit::{Enforcement, Scope, Unit, Wall},
    review::Review,
    scope::Keys,
    telemetry::Event,
};

/// How far back an answer's own processing time is trusted to date its count of a bucket.
const SLACK: Nanos = 100 * MILLI;
/// A lane without any limit is paced at this after a refusal.
const STEP: Nanos = 20 * MILLI;
/// No lane is paced at more.
const MOST_STEP: Nanos = SECOND;
/// Most requests in flight before the first answer.
const PROBE: u32 = 16;
/// So often doubles what may be in flight, while nothing is answered or refused and until nothing holds it back.
const DOUBLINGS: u64 = 8;
/// The longest wait for the first answer, where limits were told.
const MOST_PROBE: Nanos = 3 * SECOND;
/// How late a timer may be.
const LATE: Nanos = 2 * MILLI;
/// How often who waits looks at the wall clock, where that matters.
const LOOK_UP: Nanos = 60 * SECOND;
/// Idle ones that are looked for when there are too many.
const LOOK: usize = 64;

/// Settings that the state machine needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) queue_len: usize,
    pub(crate) queue_bytes: u64,
    pub(crate) max_wait: Nanos,
    pub(crate) run_alone: bool,
    pub(crate) learn: bool,
    /// The period of a learned limit whose headers do not tell.
    pub(crate) usual: Nanos,
    /// Keyed accounts and lanes that are kept.
    pub(crate) keys: usize,
    /// What the wall clock shows now, at our time 0; `None` where no limit has a calendar.
    pub(crate) epoch: Option<Wall>,
    /// Requests of like size make a line of their own.
    pub(crate) size_classes: bool,
    /// It decides, and lets everything pass.
    pub(crate) shadow: bool,
    /// None of its limits is the provider's.
    pub(crate) own: bool,
}

/// What a budget in shadow mode would have done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shadowed {
    pub(crate) admitted: u64,
    pub(crate) waited: u64,
    pub(crate) refused: u64,
    pub(crate) longest: Nanos,
}

/// A request that comes.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) cost: Cost,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) principal: Option<Principal>,
    pub(crate) keys: Option<Box<Keys>>,
    pub(crate) weight: u32,
    /// It is not to wait beyond this.
    pub(crate) until: Nanos,
    /// Nobody wants the answer after this.
    pub(crate) deadline: Nanos,
    pub(crate) bytes: u64,
    /// The profile's word on whether the provider settles.
    pub(crate) settles: bool,
    /// Limits that a review has let it pass, with what was used of each when it was asked.
    pub(crate) allowed: Vec<(u32, u128)>,
}

/// What a review is asked.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) rule: u32,
    /// In the parts that it is kept in.
    pub(crate) used: u128,
    pub(crate) review: Review,
}

/// What an answer's head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) stated: &'a [Stated],
    pub(crate) processing: Option<Nanos>,
    /// Refused: by which unit, if it says, and the wait.
    pub(crate) refusal: Option<(Option<Unit>, Option<Nanos>)>,
}

/// Something was found out of what the provider charges.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) model: Option<Arc<str>>,
    pub(crate) verdict: Verdict,
}

#[derive(Debug)]
enum Phase {
    Free,
    Waiting {
        place: Place,
        until: Nanos,
        bytes: u64,
        waker: Option<Waker>,
    },
    /// Admitted from the queue, and its future has not heard of it.
    Granted,
    Refused(Refused),
    /// Out of the line, to ask a review.
    Asking(Box<Asked>),
    Held,
    Sent(Nanos),
}

#[derive(Debug)]
struct Entry {
    generation: u32,
    phase: Phase,
    lane: u32,
    cost: Cost,
    takes: Vec<Take>,
    /// The profile's own word on its tokens, and on whether they are put right in the end.
    tokens: u64,
    settles: bool,
    /// Nobody else was at the provider when it was sent, as this one of all.
    alone: Option<u64>,
    /// Limits that a review has let it pass, with what was used of each when it was asked.
    allowed: Vec<(u32, u128)>,
}

impl Entry {
    /// Whether a review has let it pass this limit, of which so much is used now.
    fn may_pass(&self, rule: u32, used: u128) -> bool {
        let seen = self.allowed.iter().find(|&&(of, _)| of == rule);
        seen.is_some_and(|&(_, seen)| used <= seen)
    }
}

/// Requests that share a gate, and what is learned: those of one model.
///
/// Each model has a gate of its own, also where all limits that were told hold for all models together: providers limit
/// models one by one, or in families, and the next model of a chain must not wait for the refusal of the one before.
#[derive(Debug, Default)]
struct Lane {
    /// For what is learned of it.
    model: Option<Arc<str>>,
    gate: Gate,
    probe: Probe,
    /// Until then a refusal is remembered: others use the key.
    doubted_until: Nanos,
    heard_at: Nanos,
    learner: Learner,
    witness: Witness,
    learned: Vec<u32>,
    /// What the last answer stated: the limit, and what was left of it.
    stated: Vec<(Unit, u64, u64)>,
    in_flight: u32,
    /// Since when one or more are in flight.
    began: Nanos,
    /// Requests of it, waiting or in flight.
    entries: u32,
    parked: Vec<u32>,
}

/// A look before a leap: few are sent until an answer shows what is left.
///
/// A wrong idea of the limit shows at once, for refusals take no time: the longer nothing is refused, the more may go,
/// up to half of what was told. Limits are rarely told more than twice too high.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Probe {
    /// Nothing was ever sent.
    #[default]
    Due,
    /// Those that were sent since then have not been answered.
    Since {
        since: Nanos,
        /// This is how long it goes on at most.
        time: Nanos,
        /// Meanwhile, more and more may go.
        widens: bool,
    },
    Done,
}

impl Probe {
    /// When it is over, if it is not.
    fn ends(self, now: Nanos) -> Option<Nanos> {
        match self {
            Self::Since { since, time, .. } => {
                Some(since.saturating_add(time)).filter(|&end| end > now)
            }
            _ => None,
        }
    }

    /// How many may be in flight now, and until when that is so.
    fn most(self, now: Nanos) -> (u32, Nanos) {
        let Self::Since {
            since,
            time,
            widens,
        } = self
        else {
            return (u32::MAX, NEVER);
        };
        let passed = now.saturating_sub(since);
        if passed >= time {
            return (u32::MAX, NEVER);
        }
        if !widens {
            return (PROBE, since.saturating_add(time));
        }
        let step = (time / DOUBLINGS).max(1);
        let doubled = passed / step;
        let most = PROBE << doubled.min(DOUBLINGS);
        (most, since.saturating_add(step.saturating_mul(doubled + 1)))
    }
}

/// A lane's part in whether a request fits.
#[derive(Clone, Copy)]
struct Look {
    /// Not before this.
    at: Nanos,
    /// Until then, no more than half of a limit.
    halves: Option<Nanos>,
}

enum Fit {
    Now,
    /// Not before `at`, and it is looked at again at `look_at`; `shared`: what it waits for until then holds up all others
    /// too. `grain`: for how long after one grant it may wait without loss.
    Later {
        at: Nanos,
        look_at: Nanos,
        grain: Nanos,
        shared: bool,
        blocker: Option<Blocker>,
        /// The account that it waits for longest.
        account: Option<u32>,
        /// The store has not been asked yet for what is needed, and this is when it would go but for that.
        asks: Option<Nanos>,
    },
    Never(u32),
    Refuse(u32, Nanos),
    /// The store that keeps this account cannot be reached.
    Down(u32),
    /// The account, and when it would fit; `None`: never.
    Review(u32, Option<Nanos>),
}

#[derive(Clone, Copy)]
enum Blocker {
    Account(u32),
    Lane(u32),
}

/// What became of an arrival.
pub(crate) enum Arrived {
    Admitted(u64),
    Refused(Refused),
    Review(Box<Asked>),
    Waiting(u64),
}

/// What a waiting request hears.
pub(crate) enum Heard {
    Admitted,
    Refused(Refused),
    Review(Box<Asked>),
    /// It waits on; with a time, it is the one to keep the timer.
    Waiting(Option<Nanos>),
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Core {
    bounds: Bounds,
    rules: Vec<Rule>,
    accounts: Vec<Account>,
    free_accounts: Vec<u32>,
    /// For each rule: its one account, where its scope is global.
    global: Vec<Option<u32>>,
    keyed: HashMap<(u32, Key), u32>,
    /// Where the search for idle keys goes on.
    hand: usize,
    /// For each rule: the account of those keys that no place was left for.
    overflow: HashMap<u32, u32>,
    /// Models have limits of their own: each proves them for itself.
    by_model: bool,
    by_key: bool,
    /// How long a lane waits for its first answer, where limits are to prove themselves.
    probe: Option<Nanos>,
    lanes: Vec<Lane>,
    free_lanes: Vec<u32>,
    lane_of: HashMap<LaneKey, u32>,
    /// Where the search for idle lanes goes on.
    lane_hand: usize,
    skew: Skew,
    /// Requests that were sent.
    turns: u64,
    /// What was found out of charging, to be told by the shell.
    said: Vec<Said>,
    /// The longest way by which requests under way are dated.
    reckoned: Nanos,
    queue: Queue,
    queue_bytes: u64,
    deadlines: BTreeSet<(Nanos, u64)>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    in_flight: usize,
    unpriced: u64,
    shadowed: Shadowed,
    /// What happened in this step, for the shell to tell.
    events: Vec<Event>,
    /// Where a store shares out the limits among processes.
    leases: Option<leases::Leases>,
    epoch: Wall,
    keeper: Option<u64>,
    /// When somebody was last let out of the line.
    granted: Nanos,
    next: Nanos,
    armed: Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Model(Option<Arc<str>>),
    Digest(Option<Principal>),
}

/// The model and the API key whose requests share a lane, where either matters.
type LaneKey = (Option<Arc<str>>, Option<Principal>);

impl Core {
    pub(crate) fn new(rules: Vec<Rule>, bounds: Bounds) -> Self {
        let by_model = bounds.learn || rules.iter().any(Rule::is_of_models);
        let by_key = rules.iter().any(|rule| rule.scope == Scope::ApiKey);
        let auto = |rule: &&Rule| rule.enforcement == Enforcement::Auto && rule.is_the_providers();
        let probe = rules.iter().filter(auto).map(|rule| rule.rate.period).min();
        let mut core = Self {
            bounds,
            probe: probe.map(|period| (period / 20).min(MOST_PROBE)),
            accounts: Vec::new(),
            free_accounts: Vec::new(),
            global: Vec::new(),
            keyed: HashMap::new(),
            hand: 0,
            overflow: HashMap::new(),
            by_model,
            by_key,
            lanes: vec![Lane::default()],
            free_lanes: Vec::new(),
            lane_of: HashMap::from([((None, None), 0)]),
            lane_hand: 0,
            skew: Skew::default(),
            turns: 0,
            said: Vec::new(),
            reckoned: SECOND,
            queue: Queue::default(),
            queue_bytes: 0,
            deadlines: BTreeSet::new(),
            entries: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            unpriced: 0,
            shadowed: Shadowed::default(),
            events: Vec::new(),
            leases: None,
            epoch: bounds.epoch.unwrap_or(0),
            keeper: None,
            granted: 0,
            next: NEVER,
            armed: 0,
            rules,
        };
        for index in 0..core.rules.len() {
            let account =
                (core.rules[index].scope == Scope::Global).then(|| core.open(index as u32, None));
            core.global.push(account);
        }
        core
    }

    /// What happened since this was asked.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What would have been done; `None` if it is done.
    pub(crate) fn shadowed(&self) -> Option<Shadowed> {
        self.bounds.shadow.then_some(self.shadowed)
    }

    pub(crate) fn queued(&self) -> (usize, u64) {
        (self.queue.len(), self.queue_bytes)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn unpriced(&self) -> u64 {
        self.unpriced
    }

    /// Nobody waits longer.
    pub(crate) fn max_wait(&self) -> Nanos {
        self.bounds.max_wait
    }

    /// What there is to tell.
    pub(crate) fn said(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// What is charged otherwise than the profile says: by model, with the number of answers that showed it.
    pub(crate) fn each_witness(
        &self,
        mut show: impl FnMut(Option<&Arc<str>>, Option<Charged>, u64),
    ) {
        for &lane in self.lane_of.values() {
            let lane = &self.lanes[lane as usize];
            let verdict = lane.witness.verdict();
            if verdict.is_some() || lane.witness.mismatches > 0 {
                show(lane.model.as_ref(), verdict, lane.witness.mismatches);
            }
        }
    }

    pub(crate) fn gated(&self, now: Nanos) -> Option<Nanos> {
        self.lane_of
            .values()
            .filter_map(|&lane| self.lanes[lane as usize].gate.shut_for(now))
            .max()
    }

    /// Every account in use with its rule.
    pub(crate) fn each_account(&mut self, mut show: impl FnMut(&Rule, &mut Account)) {
        let mut used: Vec<u32> = self.global.iter().flatten().copied().collect();
        used.extend(self.keyed.values());
        used.extend(self.overflow.values());
        for lane in self.lane_of.values() {
            used.extend(&self.lanes[*lane as usize].learned);
        }
        used.sort_unstable_by_key(|&id| (self.accounts[id as usize].rule, id));
        for id in used {
            let account = &mut self.accounts[id as usize];
            show(&self.rules[account.rule as usize], account);
        }
    }
}

fn index_of(ticket: u64) -> usize {
    (ticket & u64::from(u32::MAX)) as usize
}

fn ticket_of(generation: u32, id: usize) -> u64 {
    u64::from(generation) << 32 | id as u64
}

/// Adds a line; one that is there already may come twice, for a while.
fn push_new(list: &mut Vec<u32>, line: u32) {
    if list.len() >= 64 && list.len().is_power_of_two() {
        list.sort_unstable();
        list.dedup();
    }
    if list.last() != Some(&line) {
        list.push(line);
    }
}
