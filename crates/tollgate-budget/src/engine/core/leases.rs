//! What a store that processes share is asked and told, and what comes of its answers.
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, task::Waker};

use tollgate_core::principal::Principal;

use super::{Core, Fit, Lane, Phase, index_of};
use crate::engine::{
    account::Leased,
    lease::{Given, Holding, Lease, Shape, Wish, Without},
    rate::{NEVER, Nanos, Rate, SECOND},
    rule::Rule,
};

/// The longest that a refusal seen by another process shuts the gate.
const MOST_SHUT: Nanos = 120 * SECOND;
/// Refusals that wait to be told to the others; more are dropped, for one is as good as many.
const MOST_NEWS: usize = 16;

/// How limits are leased.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub(crate) holding: Holding,
    /// The longest visit to the store.
    pub(crate) visit: Nanos,
    pub(crate) rates: Without,
    pub(crate) caps: Without,
}

/// A refusal by the provider, for the other processes.
#[derive(Clone, Debug)]
pub(crate) struct Shut {
    pub(crate) model: Option<Arc<str>>,
    pub(crate) api_key: Option<Principal>,
    pub(crate) wait: Nanos,
}

/// One limit's part in what the store is asked.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) account: u32,
    pub(crate) lease: u64,
    pub(crate) rate: Rate,
    pub(crate) shape: Shape,
    pub(crate) holding: Holding,
    pub(crate) wish: Wish,
}

/// The leases of all limits.
#[derive(Debug)]
pub(super) struct Leases {
    terms: Terms,
    down: bool,
    /// For good.
    closed: bool,
    /// So many processes share the limits.
    processes: u32,
    issued: u64,
    /// Accounts whose leases have changed in this step.
    touched: Vec<u32>,
    /// When each of them is to be asked for.
    due: BTreeSet<(Nanos, u32)>,
    news: Vec<Shut>,
    /// Who may not wait so long waits for the store all the same, and until when he would have waited.
    patient: Vec<(u64, Nanos)>,
    /// Somebody is to come and ask.
    ring: bool,
}

impl Leases {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            down: false,
            closed: false,
            processes: 1,
            issued: 0,
            touched: Vec::new(),
            due: BTreeSet::new(),
            news: Vec::new(),
            patient: Vec::new(),
            ring: false,
        }
    }

    /// The lease of a new account; learned limits have none, for the provider's headers tell each process the same.
    pub(super) fn open(&mut self, rule: &Rule) -> Option<Box<Leased>> {
        if rule.learned {
            return None;
        }
        self.issued += 1;
        let without = match rule.is_hard() {
            _ if self.closed => Without::Closed,
            true => self.terms.caps,
            false => self.terms.rates,
        };
        let mut lease = Lease::new(self.issued, without, self.down);
        lease.holders = self.processes;
        Some(Box::new(Leased::new(
            lease,
            self.terms.holding,
            rule.enforcement,
        )))
    }

    pub(super) fn touch(&mut self, account: u32) {
        if self.touched.last() != Some(&account) {
            self.touched.push(account);
        }
    }

    /// The provider has refused.
    pub(super) fn refused(&mut self, shut: Shut) {
        if self.news.len() < MOST_NEWS {
            self.news.push(shut);
            self.ring = true;
        }
    }
}

impl Core {
    /// Limits are leased from now on; before anything else is done.
    pub(crate) fn lease(&mut self, terms: Terms) {
        let mut leases = Leases::new(terms);
        for account in &mut self.accounts {
            account.lease = leases.open(&self.rules[account.rule as usize]);
        }
        self.leases = Some(leases);
    }

    /// Puts those whose leases have changed where they belong; whether somebody is to come and ask the store.
    pub(crate) fn rings(&mut self, now: Nanos) -> bool {
        let Some(leases) = &mut self.leases else {
            return false;
        };
        let mut ring = std::mem::take(&mut leases.ring);
        while let Some(id) = leases.touched.pop() {
            let account = &mut self.accounts[id as usize];
            let Some((_, holding)) = account.shape(now) else {
                continue;
            };
            let backlog = account.backlog;
            let Some(leased) = &mut account.lease else {
                continue;
            };
            let lease = &mut leased.lease;
            let due = lease.due_at(now, holding, backlog);
            let before = std::mem::replace(&mut lease.due, due);
            if before != due {
                leases.due.remove(&(before, id));
                if due < NEVER {
                    let first = leases.due.first().map_or(NEVER, |&(at, _)| at);
                    leases.due.insert((due, id));
                    ring |= due < first;
                }
            }
        }
        ring
    }

    /// What the store is to be asked now.
    pub(crate) fn lines(&mut self, now: Nanos, most: usize) -> Vec<Line> {
        let mut lines = Vec::new();
        let Some(leases) = &mut self.leases else {
            return lines;
        };
        let mut ids = Vec::new();
        while let Some(&(at, id)) = leases.due.first() {
            if at > now || ids.len() >= most {
                break;
            }
            leases.due.pop_first();
            ids.push(id);
        }
        if !ids.is_empty() {
            // One visit for requests and tokens, which run out a little after one another.
            for &id in self.global.iter().flatten() {
                let account = &mut self.accounts[id as usize];
                let shape = account.shape(now);
                let leased = account.lease.as_deref_mut();
                if let (Some((_, holding)), Some(leased)) = (shape, leased) {
                    if leased.lease.goes_along(now, holding) && !ids.contains(&id) {
                        leases.due.remove(&(leased.lease.due, id));
                        ids.push(id);
                    }
                }
            }
        }
        for id in ids {
            let account = &mut self.accounts[id as usize];
            let (rate, backlog) = (account.rate, account.backlog);
            let Some((shape, holding)) = account.shape(now) else {
                continue;
            };
            let Some(leased) = &mut account.lease else {
                continue;
            };
            leased.lease.due = NEVER;
            lines.push(Line {
                account: id,
                lease: leased.lease.id,
                rate,
                shape,
                holding,
                wish: leased.lease.ask(now, rate, shape, holding, backlog),
            });
        }
        lines
    }

    /// When there is something to ask next.
    pub(crate) fn asks_at(&self) -> Nanos {
        let leases = self.leases.as_ref();
        let first = leases.and_then(|leases| leases.due.first());
        first.map_or(NEVER, |&(at, _)| at)
    }

    /// The rule and the key of an account that is still the one that was asked for.
    pub(crate) fn leased(&self, account: u32, lease: u64) -> Option<(&Rule, Option<&Arc<str>>)> {
        let account = self.accounts.get(account as usize)?;
        let same = account.lease.as_ref().is_some_and(|l| l.lease.id == lease);
        same.then(|| (&self.rules[account.rule as usize], account.key.as_ref()))
    }

    /// The store has answered for one limit; `None`: it has not.
    pub(crate) fn answered(
        &mut self,
        now: Nanos,
        line: &Line,
        given: Option<Given>,
        wakes: &mut Vec<Waker>,
    ) {
        if self.leased(line.account, line.lease).is_none() {
            return;
        }
        let account = &mut self.accounts[line.account as usize];
        if let Some(leased) = &mut account.lease {
            match given {
                Some(given) => leased.lease.given(now, line.shape, given),
                None => leased.lease.unanswered(&line.wish),
            }
        }
        for line in std::mem::take(&mut account.parked) {
            self.queue.unpark(line);
        }
        if let Some(leases) = &mut self.leases {
            leases.touch(line.account);
        }
        self.hurry(now, Some(line.account));
        self.tick(now, wakes);
    }

    /// Until when somebody waits for the store who would wait until then, and lacks nothing else. Nobody is refused for
    /// what the store has not been asked yet.
    pub(super) fn visited_by(&self, now: Nanos, fit: &Fit, until: Nanos) -> Nanos {
        match (fit, &self.leases) {
            (Fit::Later { asks, .. }, Some(leases)) if asks.is_some_and(|at| at <= until) => {
                now.saturating_add(leases.terms.visit)
            }
            _ => 0,
        }
    }

    /// It would wait until then, and waits for the store's answer all the same.
    pub(super) fn waits_for_store(&mut self, ticket: u64, until: Nanos) {
        let Some(leases) = &mut self.leases else {
            return;
        };
        let mut patient = std::mem::take(&mut leases.patient);
        // Who has left meanwhile is still in it.
        if patient.len() > 2 * self.queue.len() {
            patient.retain(|&(ticket, _)| self.waits(ticket));
        }
        patient.push((ticket, until));
        if let Some(leases) = &mut self.leases {
            leases.patient = patient;
        }
    }

    fn waits(&self, ticket: u64) -> bool {
        let entry = self.entry(ticket);
        entry.is_some_and(|entry| matches!(entry.phase, Phase::Waiting { .. }))
    }

    /// The store has answered for one limit, or for all: who was waiting for that alone goes now, or waits no longer than
    /// he would have. A visit brings many answers: each is for those who wait for it.
    fn hurry(&mut self, now: Nanos, answered: Option<u32>) {
        let Some(leases) = &mut self.leases else {
            return;
        };
        let mut patient = std::mem::take(&mut leases.patient);
        patient.retain(|&(ticket, until)| {
            if !self.waits(ticket) {
                return false;
            }
            let mut takes = self.entries[index_of(ticket)].takes.iter();
            if answered.is_some_and(|id| takes.all(|take| take.account != id)) {
                return true;
            }
            let fit = self.fit(now, index_of(ticket));
            if matches!(fit, Fit::Later { asks: Some(_), .. }) {
                return true;
            }
            self.waits_until(ticket, until.max(now));
            false
        });
        if let Some(leases) = &mut self.leases {
            leases.patient = patient;
        }
    }

    /// The store cannot be reached, or can be again.
    pub(crate) fn outage(&mut self, now: Nanos, down: bool, wakes: &mut Vec<Waker>) {
        let Some(leases) = &mut self.leases else {
            return;
        };
        if leases.closed {
            return;
        }
        leases.down = down;
        for id in 0..self.accounts.len() {
            let account = &mut self.accounts[id];
            let rate = account.rate;
            if let Some(leased) = &mut account.lease {
                leased.lease.holders = leases.processes;
                leased.lease.outage(now, rate, down);
                leases.touch(id as u32);
            }
        }
        self.hurry(now, None);
        self.reconsider(now, wakes);
    }

    /// So many processes share the limits.
    pub(crate) fn share_among(&mut self, processes: u32) {
        if let Some(leases) = &mut self.leases {
            leases.processes = processes.max(1);
        }
    }

    /// Refusals that the other processes are to hear of.
    pub(crate) fn news(&mut self) -> Vec<Shut> {
        let leases = self.leases.as_mut();
        leases.map_or_else(Vec::new, |leases| std::mem::take(&mut leases.news))
    }

    /// The models that lanes are for.
    pub(crate) fn models(&self) -> Vec<Arc<str>> {
        let models = self.lanes.iter().filter_map(|lane| lane.model.clone());
        models.collect()
    }

    /// Another process was refused.
    pub(crate) fn shut(&mut self, now: Nanos, shut: Shut, wakes: &mut Vec<Waker>) {
        let lane = self.lane_named(now, (shut.model, shut.api_key));
        let gate = &mut self.lanes[lane as usize].gate;
        let wait = shut.wait.min(MOST_SHUT);
        if gate.shut_for(now).is_none_or(|left| left < wait) {
            gate.refused(now, now, Some(wait), MOST_SHUT);
            self.tick(now, wakes);
        }
    }

    /// What another process has found of the lanes' gates can be told by the model and the key.
    pub(super) fn tell_others(&mut self, now: Nanos, lane: u32) {
        if self.leases.is_none() {
            return;
        }
        let Lane { model, gate, .. } = &self.lanes[lane as usize];
        let Some(wait) = gate.shut_for(now) else {
            return;
        };
        let model = model.clone();
        let mut keys = self.lane_of.iter();
        let api_key = keys
            .find(|&(_, &id)| id == lane)
            .and_then(|((_, key), _)| *key);
        if let Some(leases) = &mut self.leases {
            leases.refused(Shut {
                model,
                api_key,
                wait,
            });
        }
    }

    /// Nothing is bought or spent any more; what is left to tell.
    pub(crate) fn close(&mut self, now: Nanos, wakes: &mut Vec<Waker>) -> Vec<Line> {
        let mut lines = Vec::new();
        let Some(leases) = &mut self.leases else {
            return lines;
        };
        (leases.closed, leases.down) = (true, true);
        for id in 0..self.accounts.len() {
            let account = &mut self.accounts[id];
            let rate = account.rate;
            let Some((shape, holding)) = account.shape(now) else {
                continue;
            };
            if let Some(leased) = &mut account.lease {
                let lease = leased.lease.id;
                let wish = leased.lease.close(now, shape);
                lines.extend(wish.map(|wish| Line {
                    account: id as u32,
                    lease,
                    rate,
                    shape,
                    holding,
                    wish,
                }));
                leases.touch(id as u32);
            }
        }
        self.reconsider(now, wakes);
        lines
    }
}
