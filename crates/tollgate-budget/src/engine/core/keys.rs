//! Accounts of keys and lanes of models: opened when needed, learned, forgotten when idle.
use std::sync::Arc;

use super::{Arrival, Core, Key, LOOK, Lane, LaneKey, Phase};
use crate::{
    engine::{
        account::{Account, Take},
        headers::Stated,
        rate::Nanos,
        rule::Rule,
    },
    limit::Scope,
    telemetry::Event,
};

/// The key that the account of all those without a place is shown under.
pub(super) const OTHERS: &str = "*";
/// Learned limits of one unit; those that come then are kept as the nearest of them.
const MOST_LEARNED: usize = 16;

impl Core {
    pub(super) fn open(&mut self, rule: u32, key: Option<Arc<str>>) -> u32 {
        let mut account = Account::new(rule, &self.rules[rule as usize], key, self.epoch);
        if let Some(leases) = &mut self.leases {
            account.lease = leases.open(&self.rules[rule as usize]);
        }
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

    pub(super) fn account(
        &mut self,
        now: Nanos,
        rule: u32,
        arrival: &Arrival,
        lane: u32,
    ) -> Option<u32> {
        let told = &self.rules[rule as usize];
        if told.learned {
            let of_rule = |&&id: &&u32| self.accounts[id as usize].rule == rule;
            return self.lanes[lane as usize]
                .learned
                .iter()
                .find(of_rule)
                .copied();
        }
        if !told.concerns(arrival.model.as_deref()) {
            return None;
        }
        let keys = arrival.keys.as_deref();
        let key = match told.scope {
            Scope::Global => return self.global[rule as usize],
            Scope::Model => Key::Model(arrival.model.clone()),
            Scope::Principal => Key::Digest(arrival.principal),
            Scope::Tenant => Key::Digest(keys.and_then(|keys| keys.tenant)),
            Scope::Tag => Key::Digest(keys.and_then(|keys| keys.tag)),
            Scope::ApiKey => Key::Digest(keys.and_then(|keys| keys.api_key)),
            // No key: the limit does not concern it.
            Scope::Custom => Key::Digest(Some((*keys?.custom.get(told.key?)?)?)),
        };
        Some(self.keyed(now, rule, key))
    }

    /// The account of a key, which is opened if there is none.
    pub(super) fn keyed(&mut self, now: Nanos, rule: u32, key: Key) -> u32 {
        if let Some(&account) = self.keyed.get(&(rule, key.clone())) {
            return account;
        }
        if let Some(&account) = self.overflow.get(&rule) {
            // What this key has spent may be in it: an account of its own would let it spend that again.
            if !self.accounts[account as usize].is_idle(now) {
                return account;
            }
            self.overflow.remove(&rule);
            self.free_accounts.push(account);
        }
        if self.keyed.len() >= self.bounds.keys && !self.evict(now) {
            // All are in use. Those that come now share one account: less for each, never more.
            return self.shared(rule);
        }
        let name: Option<Arc<str>> = match &key {
            Key::Model(model) => model.clone(),
            Key::Digest(digest) => digest.map(|digest| digest.to_string().into()),
        };
        let account = self.open(rule, name);
        self.keyed.insert((rule, key), account);
        account
    }

    /// The account of all keys that no place was left for.
    pub(super) fn shared(&mut self, rule: u32) -> u32 {
        if let Some(&account) = self.overflow.get(&rule) {
            return account;
        }
        let account = self.open(rule, Some(OTHERS.into()));
        self.overflow.insert(rule, account);
        account
    }

    /// Forgets keys that nobody uses and that owe nothing. Never one in use.
    pub(super) fn evict(&mut self, now: Nanos) -> bool {
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

    pub(super) fn lane(&mut self, now: Nanos, arrival: &Arrival) -> u32 {
        let keys = arrival.keys.as_deref().filter(|_| self.by_key);
        self.lane_named(
            now,
            (arrival.model.clone(), keys.and_then(|keys| keys.api_key)),
        )
    }

    pub(super) fn lane_named(&mut self, now: Nanos, key: LaneKey) -> u32 {
        if key == (None, None) {
            return 0;
        }
        if let Some(&lane) = self.lane_of.get(&key) {
            return lane;
        }
        if self.lane_of.len() >= self.bounds.keys && !self.evict_lanes(now) {
            return 0;
        }
        let lane = Lane {
            model: key.0.clone(),
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
        self.lane_of.insert(key, id);
        id
    }

    /// Forgets a few lanes that nobody uses, whose gate is open and whose learned limits owe nothing.
    fn evict_lanes(&mut self, now: Nanos) -> bool {
        let all = self.lanes.len();
        let mut idle = Vec::new();
        for _ in 0..LOOK.min(all) {
            self.lane_hand = (self.lane_hand + 1) % all;
            let lane = &mut self.lanes[self.lane_hand];
            let mut learned = lane.learned.iter();
            let owes = |&id: &u32| !self.accounts[id as usize].is_idle(now);
            // The first is that of all who name no model.
            if self.lane_hand > 0
                && lane.entries == 0
                && lane.gate.is_open(now)
                && !learned.any(owes)
            {
                idle.push(self.lane_hand as u32);
            }
        }
        if idle.is_empty() {
            return false;
        }
        let before = self.lane_of.len();
        let free = &mut self.free_lanes;
        self.lane_of.retain(|_, lane| {
            let keep = !idle.contains(lane);
            if !keep {
                free.push(*lane);
            }
            keep
        });
        self.lane_of.len() < before
    }

    /// Whether headers speak of a limit that nobody told, beside those told: one of the same unit and a longer period (a
    /// day's beside the minute's).
    ///
    /// Only what cannot be about one that was told: a window by name, or a reset that is further away than any of them
    /// reaches.
    pub(super) fn is_longer(&self, stated: &Stated) -> bool {
        let told = self
            .rules
            .iter()
            .filter(|rule| !rule.learned && rule.is_the_providers() && rule.unit == stated.unit);
        let Some(longest) = told.map(|rule| rule.rate.period).max() else {
            return false;
        };
        let reaches = stated.window.or(stated.reset.map(|(reset, _)| reset));
        reaches.is_some_and(|reaches| reaches > longest.saturating_add(longest / 10))
    }

    pub(super) fn learn(&mut self, now: Nanos, lane: u32, stated: &[Stated]) {
        let learner = &mut self.lanes[lane as usize].learner;
        if learner.done() {
            return;
        }
        let found = learner.hear(stated, self.bounds.usual);
        let over = learner.over;
        for (unit, mut rate) in found {
            let near = |rule: &Rule| rule.rate.period.abs_diff(rate.period) <= rate.period / 20;
            let told = |rule: &Rule| {
                !rule.learned && rule.is_the_providers() && rule.unit == unit && near(rule)
            };
            if self.rules.iter().any(told) {
                continue;
            }
            // Each rule costs every request a look, and none is ever forgotten: no two are alike, and there are few.
            let learned = || {
                (0..)
                    .zip(&self.rules)
                    .filter(|(_, r)| r.learned && r.unit == unit)
            };
            let nearest = learned().min_by_key(|(_, r)| r.rate.period.abs_diff(rate.period));
            let full = learned().count() >= MOST_LEARNED;
            let rule = match nearest.filter(|(_, rule)| full || near(rule)) {
                Some((index, rule)) => {
                    rate.period = rule.rate.period;
                    index
                }
                None => {
                    self.rules.push(Rule::learned(unit, rate));
                    self.global.push(None);
                    self.rules.len() as u32 - 1
                }
            };
            let key = self.lanes[lane as usize].model.clone();
            let account = self.open(rule, key);
            let over = self.rules[rule as usize].units(&over).unwrap_or(0);
            self.accounts[account as usize].learned(now, rate, over);
            self.events.push(Event::LimitLearned {
                limit: self.rules[rule as usize].name.clone(),
                amount: rate.amount,
                period: rate.period,
                model: self.lanes[lane as usize].model.clone(),
            });
            self.lanes[lane as usize].learned.push(account);
            self.book_all(now, lane, account);
            for stated in stated.iter().filter(|stated| stated.unit == unit) {
                self.accounts[account as usize].left(now, stated);
            }
        }
    }

    /// A new account: books the requests of its lane that are on their way, and reckons with those that wait.
    pub(super) fn book_all(&mut self, now: Nanos, lane: u32, account: u32) {
        let open = &mut self.accounts[account as usize];
        let rule = &self.rules[open.rule as usize];
        let way = rule.way(&self.skew, open.rate);
        for entry in self.entries.iter_mut().filter(|entry| entry.lane == lane) {
            let units = rule.units(&entry.cost).unwrap_or(0);
            let mut take = Take::new(account, units);
            match entry.phase {
                _ if units == 0 => continue,
                Phase::Free | Phase::Refused(_) | Phase::Asking(_) => continue,
                Phase::Waiting { .. } => open.backlog += u128::from(units),
                Phase::Granted | Phase::Held => open.take(&mut take),
                Phase::Sent(_) => {
                    open.take(&mut take);
                    let _ = open.sent(now, way, &mut take);
                }
            }
            open.holders += 1;
            entry.takes.push(take);
        }
    }
}
