//! A request comes: does it fit, will it wait, how long?
use std::task::Waker;

use tollgate_core::{
    extensions::{Reason, Refused},
    principal::Principal,
};

use super::{
    Arrival, Arrived, Asked, Blocker, Core, DOUBLINGS, Entry, Fit, Lane, Look, PROBE, Phase, Probe,
    index_of, ticket_of,
};
use crate::{
    charging::Cost,
    engine::{
        account::Take,
        lease::Hand,
        queue::FlowKey,
        rate::{NEVER, Nanos, SECOND, narrow},
        rule::{Rule, Unknown},
    },
    limit::{Enforcement, Exhausted, Unit},
    review::Review,
    telemetry::Event,
};

/// What is to become of a request that comes.
enum Turn {
    Now,
    Waits {
        flow: FlowKey,
        until: Nanos,
        /// As predicted; `None`: nobody knows.
        wait: Option<Nanos>,
        /// It waits longer than it would, for what the store has not been asked yet: until the store has answered, and
        /// then until this time.
        patient: Option<Nanos>,
    },
    Refused(Refused),
    /// Somebody is to be asked about this account; when it would fit.
    Review(u32, Option<Nanos>),
}

/// Requests of up to a 64th of the scarcest limit, a 16th, a quarter, and above.
fn size_class(share: u64) -> u8 {
    let above = |part: &u64| share > (1 << 32) / part;
    [64, 16, 4].iter().filter(|part| above(part)).count() as u8
}

impl Core {
    /// A request comes: it goes at once if nobody waits and it fits; else it waits, or is refused.
    pub(crate) fn arrive(
        &mut self,
        now: Nanos,
        arrival: &Arrival,
        wakes: &mut Vec<Waker>,
    ) -> Arrived {
        let unknown = self.unknown(arrival);
        if let (Some(refused), false) = (&unknown, self.bounds.shadow) {
            return Arrived::Refused(refused.clone());
        }
        let ticket = self.enter(now, arrival);
        let id = index_of(ticket);
        // What others wait for comes first, even if the timer is late.
        if !self.queue.is_empty() && self.next <= now {
            self.pump(now, wakes);
        }
        let turn = match unknown {
            Some(refused) => Turn::Refused(refused),
            None => self.turn(now, id, arrival),
        };
        if self.bounds.shadow {
            let turn = match turn {
                // Nobody is asked about what passes anyhow.
                Turn::Review(account, at) => {
                    let wait = at.map(|at| at.saturating_sub(now));
                    Turn::Refused(self.refusal(Reason::Exhausted, Some(account), wait))
                }
                turn => turn,
            };
            self.note(turn, arrival);
            self.admit(now, id);
            self.entries[id].phase = Phase::Held;
            return Arrived::Admitted(ticket);
        }
        match turn {
            Turn::Now => {
                self.admit(now, id);
                self.entries[id].phase = Phase::Held;
                Arrived::Admitted(ticket)
            }
            Turn::Refused(refused) => {
                self.leave_entry(id);
                Arrived::Refused(refused)
            }
            Turn::Review(account, at) => {
                let asked = self.asked(now, id, account, at);
                self.leave_entry(id);
                Arrived::Review(asked)
            }
            Turn::Waits {
                flow,
                until,
                patient,
                ..
            } => {
                self.wait_in_line(ticket, flow, arrival.bytes, until);
                if let Some(until) = patient {
                    self.waits_for_store(ticket, until);
                }
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
        }
    }

    /// Whether a request may go, is to wait, or is refused.
    fn turn(&mut self, now: Nanos, id: usize, arrival: &Arrival) -> Turn {
        let fit = self.fit(now, id);
        match fit {
            Fit::Never(account) => {
                return Turn::Refused(self.too_large(id, account));
            }
            Fit::Refuse(account, at) => {
                let wait = Some(at.saturating_sub(now));
                return Turn::Refused(self.refusal(Reason::Exhausted, Some(account), wait));
            }
            Fit::Down(account) => {
                let refused = self.refusal(Reason::StoreDown, Some(account), Some(SECOND));
                return Turn::Refused(refused);
            }
            Fit::Review(account, at) => return Turn::Review(account, at),
            Fit::Now if self.queue.is_empty() => return Turn::Now,
            Fit::Now | Fit::Later { .. } => {}
        }
        let flow = self.flow_key(id, arrival);
        let (at, account) = self.predict(now, id, flow, &fit);
        let wait = at.saturating_sub(now);
        let full = self.queue.len() >= self.bounds.queue_len
            || self.queue_bytes.saturating_add(arrival.bytes) > self.bounds.queue_bytes;
        // It was asked for a moment ago.
        let until = arrival.until.min(now.saturating_add(self.bounds.max_wait));
        let until = until.max(now);
        if full || at > until {
            let reason = if full {
                Reason::QueueFull
            } else {
                Reason::WaitTooLong
            };
            return Turn::Refused(self.refusal(reason, account, Some(wait)));
        }
        let wait = match fit {
            Fit::Later { at: NEVER, .. } => None,
            _ => Some(wait),
        };
        let visited = self.visited_by(now, &fit, until).min(arrival.deadline);
        Turn::Waits {
            flow,
            until: until.max(visited),
            wait,
            patient: (until < visited).then_some(until),
        }
    }

    /// Counts what would have been done.
    fn note(&mut self, turn: Turn, arrival: &Arrival) {
        let model = arrival.model.clone();
        match turn {
            Turn::Now => self.shadowed.admitted += 1,
            Turn::Waits { wait, .. } => {
                self.shadowed.waited += 1;
                self.shadowed.longest = self.shadowed.longest.max(wait.unwrap_or(0));
                self.events.push(Event::WouldWait { wait, model });
            }
            Turn::Refused(refused) => {
                self.shadowed.refused += 1;
                self.events.push(Event::WouldRefuse { refused, model });
            }
            Turn::Review(..) => {}
        }
    }

    /// The refusal of a request that a limit would have to know more of.
    fn unknown(&mut self, arrival: &Arrival) -> Option<Refused> {
        let refused = self.rules.iter().find_map(|rule| {
            if !rule.concerns(arrival.model.as_deref()) {
                return None;
            }
            let reason = match rule.units(&arrival.cost).err()? {
                Unknown::Price => Reason::Unpriced,
                Unknown::Unread => Reason::LengthRequired,
            };
            Some(Refused::new(reason).limit(rule.name.clone()))
        });
        let money = |rule: &Rule| rule.unit == Unit::Money;
        if arrival.cost.used.money.is_none() && self.rules.iter().any(money) {
            self.unpriced += u64::from(refused.is_none());
        }
        refused
    }

    pub(super) fn enter(&mut self, now: Nanos, arrival: &Arrival) -> u64 {
        let lane = self.lane(now, arrival);
        let id = match self.free.pop() {
            Some(id) => id as usize,
            None => {
                self.entries.push(Entry {
                    generation: 0,
                    phase: Phase::Free,
                    lane: 0,
                    cost: Cost::default(),
                    takes: Vec::new(),
                    tokens: 0,
                    settles: false,
                    alone: None,
                    allowed: Vec::new(),
                });
                self.entries.len() - 1
            }
        };
        self.lanes[lane as usize].entries += 1;
        let cost = self.lanes[lane as usize].witness.applied(arrival.cost);
        let mut takes = std::mem::take(&mut self.entries[id].takes);
        takes.clear();
        // Of a hundred thousand waiters each has its own.
        takes.reserve_exact(self.rules.len());
        for rule in 0..self.rules.len() as u32 {
            let Ok(units @ 1..) = self.rules[rule as usize].units(&cost) else {
                continue;
            };
            if let Some(account) = self.account(now, rule, arrival, lane) {
                self.accounts[account as usize].holders += 1;
                takes.push(Take::new(account, units));
            }
        }
        let entry = &mut self.entries[id];
        entry.generation = entry.generation.wrapping_add(1);
        entry.takes = takes;
        entry.lane = lane;
        entry.cost = cost;
        entry.tokens = arrival.cost.tokens;
        entry.settles = arrival.settles;
        entry.alone = None;
        entry.allowed.clone_from(&arrival.allowed);
        ticket_of(entry.generation, id)
    }

    pub(super) fn wait_in_line(&mut self, ticket: u64, flow: FlowKey, bytes: u64, until: Nanos) {
        let id = index_of(ticket);
        let share = self.share(id);
        for take in &self.entries[id].takes {
            self.accounts[take.account as usize].backlog += u128::from(take.units);
        }
        let lane = self.entries[id].lane;
        let place = self.queue.push(flow, lane, ticket, share);
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

    /// What a request costs of the scarcest limit, in 2^-32.
    fn share(&self, id: usize) -> u64 {
        let part = |take: &Take| {
            let amount = self.accounts[take.account as usize].rate.amount;
            narrow((u128::from(take.units) << 32) / u128::from(amount))
        };
        let takes = self.entries[id].takes.iter();
        takes.map(part).max().unwrap_or(0).max(1)
    }

    pub(super) fn flow_key(&self, id: usize, arrival: &Arrival) -> FlowKey {
        let (size, boost) = match self.bounds.size_classes {
            true => {
                let size = size_class(self.share(id));
                (size, [4, 3, 3, 2][usize::from(size)])
            }
            false => (0, 1),
        };
        FlowKey {
            principal: arrival.principal.map(Principal::digest),
            weight: arrival.weight.saturating_mul(boost),
            size,
        }
    }

    pub(super) fn fit(&mut self, now: Nanos, id: usize) -> Fit {
        let entry = &self.entries[id];
        let lane = &self.lanes[entry.lane as usize];
        let mut shared_at = now;
        let mut own_at = now;
        let mut blocker = None;
        let mut grain = 0;
        let (mut refuse, mut review, mut down) = (None, None, None);
        let (mut last_at, mut last) = (now, None);
        // As far as is known without asking the store.
        let (mut known_at, mut asks) = (now, false);
        let gate = lane.gate.opens_at(now);
        let look = self.probe(lane, now);
        let apart = self.apart();
        if look.at > now && !apart {
            shared_at = look.at;
        }
        let lane_at = if apart { gate.max(look.at) } else { gate };
        if lane_at > now {
            own_at = lane_at;
            blocker = Some(Blocker::Lane(entry.lane));
        }
        for take in &entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let rule = &self.rules[account.rule as usize];
            if !entry.allowed.is_empty() && entry.may_pass(account.rule, account.used(now)) {
                continue;
            }
            if take.units > account.capacity() && (!self.bounds.run_alone || rule.is_hard()) {
                if rule.exhausted == Exhausted::Review {
                    review = Some((take.account, None));
                    continue;
                }
                return Fit::Never(take.account);
            }
            let way = rule.way(&self.skew, account.rate);
            let mut at = account.fits_at(now, way, take.units);
            let proves_itself = rule.enforcement == Enforcement::Auto
                && rule.exhausted == Exhausted::Wait
                && rule.is_the_providers();
            if let Some(until) = look.halves.filter(|_| proves_itself) {
                let half = u128::from(account.rate.amount / 2);
                if account.used(now) + u128::from(take.units) > half {
                    at = at.max(until);
                }
            }
            // What other processes leave. Nobody is refused for what the store has not been asked yet.
            let mut unknown = false;
            if let Some(leases) = &mut self.leases {
                match account.in_hand(now, take.units) {
                    Hand::At(hand) | Hand::Empty(hand) => at = at.max(hand),
                    Hand::Unknown => {
                        leases.touch(take.account);
                        known_at = known_at.max(at);
                        (at, unknown, asks) = (NEVER, true, true);
                    }
                    Hand::Down => {
                        down = Some(take.account);
                        continue;
                    }
                }
            }
            if at <= now {
                continue;
            }
            if rule.exhausted != Exhausted::Wait && !unknown {
                let at = match at {
                    NEVER => account.drained_at(now, take.units.into()),
                    at => at,
                };
                if rule.exhausted == Exhausted::Review {
                    review.get_or_insert((take.account, Some(at)));
                } else if refuse.is_none_or(|(_, last)| at > last) {
                    refuse = Some((take.account, at));
                }
                continue;
            }
            if at > last_at {
                (last_at, last) = (at, Some(take.account));
            }
            if !unknown {
                known_at = known_at.max(at);
            }
            grain = account.grain();
            if rule.is_shared() {
                shared_at = shared_at.max(at);
            } else if at > own_at {
                own_at = at;
                blocker = Some(Blocker::Account(take.account));
            }
        }
        if let Some(account) = down {
            return Fit::Down(account);
        }
        if let Some((account, at)) = refuse {
            return Fit::Refuse(account, at);
        }
        if let Some((account, at)) = review {
            return Fit::Review(account, at);
        }
        if shared_at <= now && own_at <= now {
            return Fit::Now;
        }
        // What is its own comes first: while that lasts, others may pass. Then it waits as the others do, and is seen
        // when what all wait for comes earlier than was thought.
        let shared = own_at <= now;
        Fit::Later {
            at: shared_at.max(own_at),
            look_at: if shared { shared_at } else { own_at },
            grain,
            shared,
            blocker,
            account: last,
            asks: asks.then(|| known_at.max(gate).max(look.at)),
        }
    }

    /// Until when a lane's next request waits for the first answers.
    pub(super) fn probe(&self, lane: &Lane, now: Nanos) -> Look {
        let look = |at| Look { at, halves: None };
        let (probe, in_flight) = if self.apart() {
            (lane.probe, lane.in_flight)
        } else {
            let all = u32::try_from(self.in_flight).unwrap_or(u32::MAX);
            (self.lanes[0].probe, all)
        };
        if in_flight < PROBE {
            return look(now);
        }
        if self.bounds.learn && !lane.learner.done() {
            // While nothing is heard, twice as many may go each usual period: what never answers holds up nobody for ever.
            let patience = Probe::Since {
                since: lane.began,
                time: self.bounds.usual.saturating_mul(DOUBLINGS),
                widens: true,
            };
            return match patience.most(now) {
                (most, _) if in_flight < most => look(now),
                (_, until) => look(until),
            };
        }
        match probe.most(now) {
            (most, _) if in_flight < most => Look {
                at: now,
                halves: probe.ends(now),
            },
            (_, until) => look(until),
        }
    }

    /// Whether what one lane hears of its limits is nothing to the others.
    pub(super) fn apart(&self) -> bool {
        self.by_model || self.by_key
    }

    /// The lane that looks before the leap for this one.
    pub(super) fn looking(&self, lane: u32) -> usize {
        if self.apart() { lane as usize } else { 0 }
    }

    /// When a new request would be through, and which account is the last to let it.
    pub(super) fn predict(
        &mut self,
        now: Nanos,
        id: usize,
        flow: FlowKey,
        fit: &Fit,
    ) -> (Nanos, Option<u32>) {
        let (mut at, mut last) = match fit {
            Fit::Later { at, account, .. } if *at < NEVER => (*at, *account),
            _ => (now, None),
        };
        let (part, all) = self.queue.ahead(flow);
        for take in &self.entries[id].takes {
            let account = &mut self.accounts[take.account as usize];
            if self.rules[account.rule as usize].exhausted == Exhausted::Review {
                // It does not wait for that one: when its turn comes, somebody is asked.
                continue;
            }
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

    /// What a review is asked of a request.
    pub(super) fn asked(
        &mut self,
        now: Nanos,
        id: usize,
        account: u32,
        at: Option<Nanos>,
    ) -> Box<Asked> {
        let units = self.entries[id]
            .takes
            .iter()
            .find(|take| take.account == account);
        let units = units.map_or(0, |take| take.units);
        let of = &mut self.accounts[account as usize];
        let used = of.used(now);
        let rule = &self.rules[of.rule as usize];
        let review = Review {
            limit: rule.name.clone(),
            unit: rule.unit,
            key: of.key.clone(),
            amount: rule.whole(of.rate.amount.into()),
            used: rule.whole(used),
            asked: rule.whole(units.into()),
            wait: at.map(|at| std::time::Duration::from_nanos(at.saturating_sub(now))),
        };
        Box::new(Asked {
            rule: of.rule,
            used,
            review,
        })
    }

    /// The refusal of a request that the limit cannot hold: for good, if it is more than was told.
    pub(super) fn too_large(&self, id: usize, account: u32) -> Refused {
        let of = &self.accounts[account as usize];
        let takes = &mut self.entries[id].takes.iter();
        let units = takes.find(|take| take.account == account);
        let units = units.map_or(0, |take| take.units);
        if of.could_hold(units) {
            let wait = Some(of.rate.period);
            return self.refusal(Reason::WaitTooLong, Some(account), wait);
        }
        self.refusal(Reason::NeverFits, Some(account), None)
    }

    pub(super) fn refusal(
        &self,
        reason: Reason,
        account: Option<u32>,
        wait: Option<Nanos>,
    ) -> Refused {
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
}
