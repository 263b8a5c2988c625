//! The whole budget as a state machine: what comes goes in with the time, and who may go comes out.
//!
//! Nothing in here waits, reads a clock or wakes anybody. The shell around it ([`crate::memory`]) holds it in one mutex,
//! gives it the time, keeps the one timer that it asks for, and wakes whom it names once the lock is free.
//!
//! A request is an entry from its arrival to its end: waiting, then held (admitted, not sent), then sent. All accounts
//! of a request are taken in one step or not at all.
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    task::Waker,
};

use tollgate_core::{
    extensions::{Reason, Refused},
    principal::Principal,
};

use super::{
    account::{Account, Rule, Take},
    book::Since,
    gate::Gate,
    headers::Stated,
    learn::Learner,
    queue::{FlowKey, Place, Queue},
    rate::{MILLI, NEVER, Nanos, SECOND, Span, narrow},
    skew::Skew,
};
use crate::{
    charging::Cost,
    limit::{Enforcement, Exhausted, Scope, Unit},
    store::Settlement,
};

/// How far back an answer's own processing time is trusted to date its count of a bucket.
const SLACK: Nanos = 100 * MILLI;
/// A lane without any limit is paced at this after a refusal.
const STEP: Nanos = 20 * MILLI;
/// Most requests in flight before the first answer.
const PROBE: u32 = 16;
/// The longest wait for the first answer, where limits were told.
const MOST_PROBE: Nanos = 3 * SECOND;
/// Keyed accounts and lanes that are kept.
const MOST_KEYS: usize = 10_000;
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
}

/// A request that comes.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) cost: Cost,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) principal: Option<Principal>,
    pub(crate) weight: u32,
    /// It is not to wait beyond this.
    pub(crate) until: Nanos,
    pub(crate) bytes: u64,
}

/// What an answer's head says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) stated: &'a [Stated],
    pub(crate) processing: Option<Nanos>,
    /// Refused: by which unit, if it says, and the wait.
    pub(crate) refusal: Option<(Option<Unit>, Option<Nanos>)>,
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
}

/// Requests that share a gate, and what is learned: those of one model, where models matter.
#[derive(Debug, Default)]
struct Lane {
    model: Option<Arc<str>>,
    gate: Gate,
    /// Until then, or until an answer has come, few are sent: the limits may not be what we think.
    probe_until: Option<Nanos>,
    answered: bool,
    learner: Learner,
    learned: Vec<u32>,
    in_flight: u32,
    /// Requests of it, waiting or in flight.
    entries: u32,
    parked: Vec<u32>,
}

enum Fit {
    Now,
    /// Not before this; `shared`: what it waits for holds up all others too.
    Later {
        at: Nanos,
        shared: bool,
        blocker: Option<Blocker>,
    },
    Never(u32),
    Refuse(u32, Nanos),
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
    Waiting(u64),
}

/// What a waiting request hears.
pub(crate) enum Heard {
    Admitted,
    Refused(Refused),
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
    by_model: bool,
    /// How long a lane waits for its first answer, where limits are to prove themselves.
    probe: Option<Nanos>,
    lanes: Vec<Lane>,
    free_lanes: Vec<u32>,
    lane_of: HashMap<Option<Arc<str>>, u32>,
    skew: Skew,
    queue: Queue,
    queue_bytes: u64,
    deadlines: BTreeSet<(Nanos, u64)>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    in_flight: usize,
    keeper: Option<u64>,
    next: Nanos,
    armed: Nanos,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Model(Option<Arc<str>>),
    Principal(Option<Principal>),
}

impl Core {
    pub(crate) fn new(rules: Vec<Rule>, bounds: Bounds) -> Self {
        let by_model = bounds.learn || rules.iter().any(|rule| rule.scope == Scope::Model);
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
            lanes: vec![Lane::default()],
            free_lanes: Vec::new(),
            lane_of: HashMap::from([(None, 0)]),
            skew: Skew::default(),
            queue: Queue::default(),
            queue_bytes: 0,
            deadlines: BTreeSet::new(),
            entries: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            keeper: None,
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

    // ===== arrival =====

    /// A request comes: it goes at once if nobody waits and it fits; else it waits, or is refused.
    pub(crate) fn arrive(
        &mut self,
        now: Nanos,
        arrival: &Arrival,
        wakes: &mut Vec<Waker>,
    ) -> Arrived {
        let ticket = self.enter(now, arrival);
        let id = index_of(ticket);
        // What others wait for comes first, even if the timer is late.
        if !self.queue.is_empty() && self.next <= now {
            self.pump(now, wakes);
        }
        let fit = self.fit(now, id);
        match fit {
            Fit::Never(account) => {
                self.leave_entry(id);
                return Arrived::Refused(self.refusal(Reason::NeverFits, Some(account), None));
            }
            Fit::Refuse(account, at) => {
                self.leave_entry(id);
                let wait = at.saturating_sub(now);
                return Arrived::Refused(self.refusal(
                    Reason::Exhausted,
                    Some(account),
                    Some(wait),
                ));
            }
            Fit::Now if self.queue.is_empty() => {
                self.admit(now, id);
                self.entries[id].phase = Phase::Held;
                return Arrived::Admitted(ticket);
            }
            Fit::Now | Fit::Later { .. } => {}
        }
        let flow = self.flow_key(id, arrival);
        let (at, account) = self.predict(now, id, flow, &fit);
        let wait = at.saturating_sub(now);
        let full = self.queue.len() >= self.bounds.queue_len
            || self.queue_bytes.saturating_add(arrival.bytes) > self.bounds.queue_bytes;
        let until = arrival.until.min(now.saturating_add(self.bounds.max_wait));
        if full || at > until {
            self.leave_entry(id);
            let reason = if full {
                Reason::QueueFull
            } else {
                Reason::WaitTooLong
            };
            return Arrived::Refused(self.refusal(reason, account, Some(wait)));
        }
        self.wait_in_line(ticket, flow, arrival.bytes, until);
        self.pump(now, wakes);
        match self.entries[id].phase {
            // Alone in its flow, while the others wait for something of their own.
            Phase::Granted => {
                self.entries[id].phase = Phase::Held;
                Arrived::Admitted(ticket)
            }
            _ => Arrived::Waiting(ticket),
        }
    }

    fn enter(&mut self, now: Nanos, arrival: &Arrival) -> u64 {
        let lane = self.lane(now, arrival.model.as_ref());
        let id = match self.free.pop() {
            Some(id) => id as usize,
            None => {
                self.entries.push(Entry {
                    generation: 0,
                    phase: Phase::Free,
                    lane: 0,
                    cost: Cost::default(),
                    takes: Vec::new(),
                });
                self.entries.len() - 1
            }
        };
        self.lanes[lane as usize].entries += 1;
        let mut takes = std::mem::take(&mut self.entries[id].takes);
        takes.clear();
        for rule in 0..self.rules.len() as u32 {
            let units = units_of(self.rules[rule as usize].unit, &arrival.cost);
            if units == 0 {
                continue;
            }
            if let Some(account) = self.account(now, rule, arrival, lane) {
                self.accounts[account as usize].holders += 1;
                takes.push(Take::new(account, units));
            }
        }
        let entry = &mut self.entries[id];
        entry.generation = entry.generation.wrapping_add(1);
        entry.takes = takes;
        entry.lane = lane;
        entry.cost = arrival.cost;
        ticket_of(entry.generation, id)
    }

    fn wait_in_line(&mut self, ticket: u64, flow: FlowKey, bytes: u64, until: Nanos) {
        let id = index_of(ticket);
        let mut share = 1;
        for take in &self.entries[id].takes {
            let account = &mut self.accounts[take.account as usize];
            account.backlog += u128::from(take.units);
            let part = (u128::from(take.units) << 32) / u128::from(account.rate.amount);
            share = share.max(narrow(part));
        }
        let place = self.queue.push(flow, ticket, share);
        self.queue_bytes = self.queue_bytes.saturating_add(bytes);
        if until < NEVER {
            self.deadlines.insert((until, ticket));
        }
        self.entries[id].phase = Phase::Waiting {
            place,
            until,
            bytes,
            waker: None,
        };
    }

    fn flow_key(&self, id: usize, arrival: &Arrival) -> FlowKey {
        FlowKey {
            principal: arrival.principal.map(Principal::digest),
            weight: arrival.weight,
            lane: self.entries[id].lane,
        }
    }

    // ===== what fits =====

    fn fit(&mut self, now: Nanos, id: usize) -> Fit {
        let entry = &self.entries[id];
        let lane = &self.lanes[entry.lane as usize];
        let lane_shared = !self.by_model;
        let mut shared_at = now;
        let mut own_at = now;
        let mut blocker = None;
        let gate = lane.gate.opens_at(now);
        let lane_at = gate.max(self.probe(lane, now));
        if lane_at > now {
            if lane_shared {
                shared_at = lane_at;
            } else {
                own_at = lane_at;
                blocker = Some(Blocker::Lane(entry.lane));
            }
        }
        for take in &entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let rule = &self.rules[account.rule as usize];
            if take.units > account.capacity() && !self.bounds.run_alone {
                return Fit::Never(take.account);
            }
            let way = self.skew.bound(account.rate.period);
            let at = account.fits_at(now, way, take.units);
            if at <= now {
                continue;
            }
            if rule.exhausted == Exhausted::Refuse {
                return Fit::Refuse(take.account, at);
            }
            if rule.scope == Scope::Global {
                shared_at = shared_at.max(at);
            } else if at > own_at {
                own_at = at;
                blocker = Some(Blocker::Account(take.account));
            }
        }
        if shared_at <= now && own_at <= now {
            return Fit::Now;
        }
        Fit::Later {
            at: shared_at.max(own_at),
            // What is its own comes first: while that lasts, others may pass.
            shared: own_at <= now,
            blocker,
        }
    }

    /// Until when a lane's next request waits for the first answers.
    fn probe(&self, lane: &Lane, now: Nanos) -> Nanos {
        if lane.in_flight < PROBE {
            now
        } else if self.bounds.learn && !lane.learner.done() {
            NEVER
        } else if lane.answered {
            now
        } else {
            lane.probe_until.unwrap_or(now)
        }
    }

    /// When a new request would be through, and which account is the last to let it.
    fn predict(&mut self, now: Nanos, id: usize, flow: FlowKey, fit: &Fit) -> (Nanos, Option<u32>) {
        let (mut at, mut last) = match fit {
            Fit::Later { at, .. } if *at < NEVER => (*at, None),
            _ => (now, None),
        };
        let (part, all) = self.queue.ahead(flow);
        for take in &self.entries[id].takes {
            let account = &mut self.accounts[take.account as usize];
            let ahead = match all {
                0 => 0,
                _ if part >= all => account.backlog,
                // In 2^-16, so that nothing overflows.
                _ => (account.backlog >> 16).saturating_mul((part << 16) / all),
            };
            let units = take.units.min(account.capacity());
            let through = account.drained_at(now, ahead.saturating_add(u128::from(units)));
            if through >= at && through > now {
                at = through;
                last = Some(take.account);
            }
        }
        (at, last)
    }

    fn refusal(&self, reason: Reason, account: Option<u32>, wait: Option<Nanos>) -> Refused {
        let mut refused = Refused::new(reason);
        if let Some(account) = account {
            let rule = self.accounts[account as usize].rule;
            refused = refused.limit(self.rules[rule as usize].name.clone());
        }
        if let Some(wait) = wait {
            refused = refused.retry_after(std::time::Duration::from_nanos(wait.max(1)));
        }
        refused
    }

    // ===== admission =====

    fn admit(&mut self, now: Nanos, id: usize) {
        let entry = &mut self.entries[id];
        let mut step = 0;
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let way = self.skew.bound(account.rate.period);
            account.take(now, way, take);
            step = step.max(account.rate.time_of(take.units));
        }
        let lane = &mut self.lanes[entry.lane as usize];
        lane.gate.pass(now, if step == 0 { STEP } else { step });
        if let Some(time) = self.probe {
            lane.probe_until.get_or_insert(now.saturating_add(time));
        }
        lane.in_flight += 1;
        self.in_flight += 1;
    }

    /// Lets go whoever may go now, and says when the next one may.
    ///
    /// To be called when time has passed or anything has changed that somebody may wait for.
    fn pump(&mut self, now: Nanos, wakes: &mut Vec<Waker>) {
        self.queue.unpark_due(now);
        while let Some(&(at, ticket)) = self.deadlines.first() {
            if at > now {
                break;
            }
            let id = index_of(ticket);
            let (wait, account) = match self.fit(now, id) {
                Fit::Later { at, .. } if at < NEVER => (Some(at.saturating_sub(now)), None),
                Fit::Refuse(account, at) => (Some(at.saturating_sub(now)), Some(account)),
                _ => (None, None),
            };
            let refused = self.refusal(Reason::WaitTooLong, account, wait);
            self.out_of_line(id, Phase::Refused(refused), wakes);
        }
        let mut next = NEVER;
        while let Some((flow, ticket)) = self.queue.first() {
            let id = index_of(ticket);
            match self.fit(now, id) {
                Fit::Now => {
                    self.queue.pop(flow);
                    self.admit(now, id);
                    self.out_of_line(id, Phase::Granted, wakes);
                }
                Fit::Later {
                    shared: true, at, ..
                } => {
                    next = at;
                    break;
                }
                Fit::Later { at, blocker, .. } => {
                    self.queue.park(flow, at);
                    match blocker {
                        Some(Blocker::Account(account)) => {
                            push_new(&mut self.accounts[account as usize].parked, flow);
                        }
                        Some(Blocker::Lane(lane)) => {
                            push_new(&mut self.lanes[lane as usize].parked, flow);
                        }
                        None => {}
                    }
                }
                Fit::Never(account) => {
                    let refused = self.refusal(Reason::NeverFits, Some(account), None);
                    self.out_of_line(id, Phase::Refused(refused), wakes);
                }
                Fit::Refuse(account, at) => {
                    let wait = Some(at.saturating_sub(now));
                    let refused = self.refusal(Reason::Exhausted, Some(account), wait);
                    self.out_of_line(id, Phase::Refused(refused), wakes);
                }
            }
        }
        next = next.min(self.queue.next_due().unwrap_or(NEVER));
        if let Some(&(at, _)) = self.deadlines.first() {
            next = next.min(at);
        }
        self.next = next;
        self.hand_over(wakes);
    }

    /// Makes sure that somebody keeps the timer, and keeps it early enough.
    fn hand_over(&mut self, wakes: &mut Vec<Waker>) {
        let waits = |core: &Self, ticket| {
            core.entry(ticket)
                .is_some_and(|entry| matches!(entry.phase, Phase::Waiting { .. }))
        };
        match self.keeper {
            Some(keeper) if waits(self, keeper) && self.armed <= self.next => return,
            Some(keeper) if waits(self, keeper) => {}
            _ => self.keeper = self.queue.any(),
        }
        // It is on its way, and will ask for the time when it is polled.
        self.armed = 0;
        if let Some(keeper) = self.keeper {
            if let Phase::Waiting { waker, .. } = &self.entries[index_of(keeper)].phase {
                wakes.extend(waker.clone());
            }
        }
    }

    /// Takes a request out of its line; `phase` is what it will hear.
    fn out_of_line(&mut self, id: usize, phase: Phase, wakes: &mut Vec<Waker>) {
        let entry = &mut self.entries[id];
        let ticket = ticket_of(entry.generation, id);
        let Phase::Waiting {
            place,
            until,
            bytes,
            waker,
        } = std::mem::replace(&mut entry.phase, phase)
        else {
            return;
        };
        for take in &entry.takes {
            let account = &mut self.accounts[take.account as usize];
            account.backlog = account.backlog.saturating_sub(u128::from(take.units));
        }
        self.queue.remove(place);
        self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
        self.deadlines.remove(&(until, ticket));
        wakes.extend(waker);
    }

    /// A waiting request asks how it stands.
    pub(crate) fn poll(
        &mut self,
        now: Nanos,
        ticket: u64,
        waker: &Waker,
        wakes: &mut Vec<Waker>,
    ) -> Heard {
        if self.keeper == Some(ticket) && self.next <= now {
            self.pump(now, wakes);
        }
        let id = index_of(ticket);
        match &mut self.entries[id].phase {
            Phase::Waiting { waker: mine, .. } => {
                match mine {
                    Some(mine) => mine.clone_from(waker),
                    None => *mine = Some(waker.clone()),
                }
                let keeps = self.keeper == Some(ticket);
                if keeps {
                    self.armed = self.next;
                }
                Heard::Waiting(keeps.then_some(self.next))
            }
            Phase::Refused(_) => {
                let Phase::Refused(refused) =
                    std::mem::replace(&mut self.entries[id].phase, Phase::Free)
                else {
                    unreachable!("looked at just now")
                };
                self.leave_entry(id);
                Heard::Refused(refused)
            }
            phase => {
                *phase = Phase::Held;
                Heard::Admitted
            }
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Nanos, wakes: &mut Vec<Waker>) {
        if !self.queue.is_empty() {
            self.pump(now, wakes);
        }
    }

    /// A waiting request was dropped.
    pub(crate) fn leave(&mut self, now: Nanos, ticket: u64, wakes: &mut Vec<Waker>) {
        let Some(entry) = self.entry(ticket) else {
            return;
        };
        match entry.phase {
            Phase::Waiting { .. } => {
                let id = index_of(ticket);
                let mut own = Vec::new();
                self.out_of_line(id, Phase::Free, &mut own);
                self.leave_entry(id);
                self.tick(now, wakes);
            }
            Phase::Refused(_) => self.leave_entry(index_of(ticket)),
            _ => self.settle(now, ticket, Settlement::AllBack, wakes),
        }
    }

    // ===== the life of an admitted request =====

    /// It is being sent.
    pub(crate) fn sent(&mut self, now: Nanos, ticket: u64) {
        if self.entry(ticket).is_none() {
            return;
        }
        let entry = &mut self.entries[index_of(ticket)];
        entry.phase = Phase::Sent(now);
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let way = self.skew.bound(account.rate.period);
            account.sent(now, way, take);
        }
    }

    /// Its answer's head has come.
    pub(crate) fn head(&mut self, now: Nanos, ticket: u64, head: Head<'_>, wakes: &mut Vec<Waker>) {
        let Some(&Entry {
            phase: Phase::Sent(sent),
            lane,
            ..
        }) = self.entry(ticket)
        else {
            return;
        };
        let id = index_of(ticket);
        self.skew.see(sent, now, head.processing);
        let latency = now.saturating_sub(sent);
        // When a bucket was counted, at the earliest. The time stated leaves little room; without it, when it was sent.
        let since = match head.processing.filter(|&p| p <= latency) {
            Some(processing) => sent.max((now - processing).saturating_sub(SLACK)),
            None => sent,
        };
        let mut longest = 0;
        let entry = &mut self.entries[id];
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let rule = &self.rules[account.rule as usize];
            longest = longest.max(account.rate.period);
            let arrival = self
                .skew
                .arrival(sent, now, head.processing, account.rate.period);
            account.date(now, Span::at(arrival), take);
            if !rule.is_the_providers() {
                continue;
            }
            let same_unit = |stated: &&Stated| stated.unit == rule.unit;
            for stated in head.stated.iter().filter(same_unit) {
                let since = if head.refusal.is_some() {
                    // Ours was ahead of theirs: no benefit of the doubt.
                    Since::Exactly(arrival)
                } else {
                    Since::NotBefore(since)
                };
                account.hear(now, sent, since, arrival, take, stated);
            }
            if let Some((what, wait)) = head.refusal {
                if what.is_none_or(|unit| unit == rule.unit) {
                    account.refused(wait);
                }
            }
        }
        self.lanes[lane as usize].answered = true;
        let gate = &mut self.lanes[lane as usize].gate;
        match head.refusal {
            Some((_, wait)) => {
                let longest = if longest == 0 { 120 * SECOND } else { longest };
                gate.refused(now, sent, wait, longest);
            }
            None => gate.served(sent),
        }
        if self.bounds.learn {
            self.learn(now, lane, head.stated);
        }
        if !self.queue.is_empty() {
            // Dating an entry loosens, and so may the rest of it.
            self.unpark_of(id);
            self.pump(now, wakes);
        }
    }

    /// It is over, one way or another. A ticket that was settled before is ignored.
    pub(crate) fn settle(
        &mut self,
        now: Nanos,
        ticket: u64,
        how: Settlement,
        wakes: &mut Vec<Waker>,
    ) {
        match self.entry(ticket).map(|entry| &entry.phase) {
            Some(Phase::Held | Phase::Sent(_) | Phase::Granted) => {}
            _ => return,
        }
        let id = index_of(ticket);
        let entry = &mut self.entries[id];
        let mut less = false;
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let unit = self.rules[account.rule as usize].unit;
            let units = match how {
                Settlement::Keep => take.units,
                Settlement::AllBack => 0,
                Settlement::TokensBack if unit == Unit::Requests => take.units,
                Settlement::TokensBack => 0,
                Settlement::Actual(cost) => units_of(unit, &cost),
            };
            less |= account.settle(now, units, take);
        }
        let lane = &mut self.lanes[entry.lane as usize];
        if matches!(entry.phase, Phase::Sent(_)) {
            lane.learner.over(match how {
                Settlement::AllBack => Cost::default(),
                Settlement::Actual(cost) => cost,
                Settlement::TokensBack => Cost::request(),
                Settlement::Keep => entry.cost,
            });
        }
        let probing = lane.in_flight >= PROBE && !(lane.answered && lane.learner.done());
        lane.in_flight = lane.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        if !self.queue.is_empty() && (less || probing) {
            self.unpark_of(id);
            self.leave_entry(id);
            self.pump(now, wakes);
        } else {
            self.leave_entry(id);
        }
    }

    /// Flows that wait for what this request has just let go may try again.
    fn unpark_of(&mut self, id: usize) {
        let entry = &self.entries[id];
        let mut flows = std::mem::take(&mut self.lanes[entry.lane as usize].parked);
        for take in &entry.takes {
            flows.append(&mut self.accounts[take.account as usize].parked);
        }
        for flow in flows {
            self.queue.unpark(flow);
        }
    }

    /// Frees an entry's place.
    fn leave_entry(&mut self, id: usize) {
        let entry = &mut self.entries[id];
        entry.phase = Phase::Free;
        for take in entry.takes.drain(..) {
            let account = &mut self.accounts[take.account as usize];
            account.holders = account.holders.saturating_sub(1);
        }
        let lane = &mut self.lanes[entry.lane as usize];
        lane.entries = lane.entries.saturating_sub(1);
        // A ticket of this generation names nothing any more.
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id as u32);
    }

    fn entry(&self, ticket: u64) -> Option<&Entry> {
        self.entries
            .get(index_of(ticket))
            .filter(|entry| u64::from(entry.generation) == ticket >> 32)
    }

    // ===== accounts and lanes =====

    fn open(&mut self, rule: u32, key: Option<Arc<str>>) -> u32 {
        let account = Account::new(rule, &self.rules[rule as usize], key);
        match self.free_accounts.pop() {
            Some(id) => {
                self.accounts[id as usize] = account;
                id
            }
            None => {
                self.accounts.push(account);
                self.accounts.len() as u32 - 1
            }
        }
    }

    fn account(&mut self, now: Nanos, rule: u32, arrival: &Arrival, lane: u32) -> Option<u32> {
        let told = &self.rules[rule as usize];
        if told.learned {
            let of_rule = |&&id: &&u32| self.accounts[id as usize].rule == rule;
            return self.lanes[lane as usize]
                .learned
                .iter()
                .find(of_rule)
                .copied();
        }
        let key = match told.scope {
            Scope::Global => return self.global[rule as usize],
            Scope::Model => Key::Model(arrival.model.clone()),
            Scope::Principal => Key::Principal(arrival.principal),
        };
        if let Some(&account) = self.keyed.get(&(rule, key.clone())) {
            return Some(account);
        }
        if self.keyed.len() >= MOST_KEYS && !self.evict(now) {
            // All are in use. Those that come now share one account: less for each, never more.
            if let Some(&account) = self.overflow.get(&rule) {
                return Some(account);
            }
            let account = self.open(rule, None);
            self.overflow.insert(rule, account);
            return Some(account);
        }
        let name: Option<Arc<str>> = match &key {
            Key::Model(model) => model.clone(),
            Key::Principal(principal) => principal.map(|p| p.to_string().into()),
        };
        let account = self.open(rule, name);
        self.keyed.insert((rule, key), account);
        Some(account)
    }

    /// Forgets keys that nobody uses and that owe nothing. Never one in use.
    fn evict(&mut self, now: Nanos) -> bool {
        let all = self.accounts.len();
        let mut idle = Vec::new();
        for _ in 0..LOOK.min(all) {
            self.hand = (self.hand + 1) % all;
            let account = &mut self.accounts[self.hand];
            let keyed = self.rules[account.rule as usize].scope != Scope::Global;
            if keyed && account.is_idle(now) {
                idle.push(self.hand as u32);
            }
        }
        if idle.is_empty() {
            return false;
        }
        let before = self.keyed.len();
        let free = &mut self.free_accounts;
        self.keyed.retain(|_, account| {
            let keep = !idle.contains(account);
            if !keep {
                free.push(*account);
            }
            keep
        });
        self.keyed.len() < before
    }

    fn lane(&mut self, now: Nanos, model: Option<&Arc<str>>) -> u32 {
        if !self.by_model {
            return 0;
        }
        let model = model.cloned();
        if let Some(&lane) = self.lane_of.get(&model) {
            return lane;
        }
        if self.lane_of.len() >= MOST_KEYS {
            let (lanes, free) = (&mut self.lanes, &mut self.free_lanes);
            self.lane_of.retain(|model, &mut id| {
                let lane = &mut lanes[id as usize];
                let keep = model.is_none() || lane.entries > 0 || !lane.gate.is_open(now);
                if !keep {
                    free.push(id);
                }
                keep
            });
            if self.lane_of.len() >= MOST_KEYS {
                return 0;
            }
        }
        let lane = Lane {
            model: model.clone(),
            ..Lane::default()
        };
        let id = match self.free_lanes.pop() {
            Some(id) => {
                let old = std::mem::replace(&mut self.lanes[id as usize], lane);
                self.free_accounts.extend(old.learned);
                id
            }
            None => {
                self.lanes.push(lane);
                self.lanes.len() as u32 - 1
            }
        };
        self.lane_of.insert(model, id);
        id
    }

    fn learn(&mut self, now: Nanos, lane: u32, stated: &[Stated]) {
        let learner = &mut self.lanes[lane as usize].learner;
        if learner.done() {
            return;
        }
        let found = learner.hear(stated, self.bounds.usual);
        let over = learner.over;
        for (unit, rate) in found {
            let near = |rule: &Rule| rule.rate.period.abs_diff(rate.period) <= rate.period / 20;
            let told = |rule: &Rule| {
                !rule.learned && rule.is_the_providers() && rule.unit == unit && near(rule)
            };
            if self.rules.iter().any(told) {
                continue;
            }
            let same =
                |rule: &Rule| rule.learned && rule.unit == unit && rule.rate.period == rate.period;
            let rule = match self.rules.iter().position(same) {
                Some(rule) => rule as u32,
                None => {
                    self.rules.push(Rule::learned(unit, rate));
                    self.global.push(None);
                    self.rules.len() as u32 - 1
                }
            };
            let key = self.lanes[lane as usize].model.clone();
            let account = self.open(rule, key);
            self.accounts[account as usize].learned(now, rate, units_of(unit, &over));
            self.lanes[lane as usize].learned.push(account);
            self.book_all(now, lane, account, unit);
            for stated in stated.iter().filter(|stated| stated.unit == unit) {
                self.accounts[account as usize].left(now, stated);
            }
        }
    }

    /// A new account: books the requests of its lane that are on their way, and reckons with those that wait.
    fn book_all(&mut self, now: Nanos, lane: u32, account: u32, unit: Unit) {
        let open = &mut self.accounts[account as usize];
        let way = self.skew.bound(open.rate.period);
        for entry in self.entries.iter_mut().filter(|entry| entry.lane == lane) {
            let units = units_of(unit, &entry.cost);
            let mut take = Take::new(account, units);
            match entry.phase {
                _ if units == 0 => continue,
                Phase::Free | Phase::Refused(_) => continue,
                Phase::Waiting { .. } => open.backlog += u128::from(units),
                Phase::Granted | Phase::Held => open.take(now, way, &mut take),
                Phase::Sent(_) => {
                    open.take(now, way, &mut take);
                    open.sent(now, way, &mut take);
                }
            }
            open.holders += 1;
            entry.takes.push(take);
        }
    }

    // ===== what it shows =====

    pub(crate) fn queued(&self) -> (usize, u64) {
        (self.queue.len(), self.queue_bytes)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
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

fn units_of(unit: Unit, cost: &Cost) -> u64 {
    match unit {
        Unit::Requests => cost.requests,
        Unit::Tokens => cost.tokens,
        Unit::InputTokens => cost.input,
        Unit::OutputTokens => cost.output,
    }
}

fn index_of(ticket: u64) -> usize {
    (ticket & u64::from(u32::MAX)) as usize
}

fn ticket_of(generation: u32, id: usize) -> u64 {
    u64::from(generation) << 32 | id as u64
}

/// Adds a flow; one that is there already may come twice, for a while.
fn push_new(list: &mut Vec<u32>, flow: u32) {
    if list.len() >= 64 && list.len().is_power_of_two() {
        list.sort_unstable();
        list.dedup();
    }
    if list.last() != Some(&flow) {
        list.push(flow);
    }
}
