//! The life of an admitted request: sent, answered, settled.
use std::task::Waker;

use super::{Core, Entry, Head, PROBE, Phase, Probe, SLACK, Said, index_of};
use crate::{
    charging::Cost,
    engine::{
        book::Since,
        headers::Stated,
        rate::{NEVER, Nanos, Rate, SECOND, Span},
        witness::{Charged, Lone},
    },
    limit::Unit,
    store::Settlement,
    telemetry::Event,
};

impl Core {
    /// It is being sent.
    pub(crate) fn sent(&mut self, now: Nanos, ticket: u64, wakes: &mut Vec<Waker>) {
        if self.entry(ticket).is_none() {
            return;
        }
        let id = index_of(ticket);
        self.turns += 1;
        let entry = &mut self.entries[id];
        entry.phase = Phase::Sent(now);
        entry.alone = (self.in_flight == 1).then_some(self.turns);
        let mut crowded = false;
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let way = self.rules[account.rule as usize].way(&self.skew, account.rate);
            crowded |= account.sent(now, way, take);
        }
        if crowded && !self.queue.is_empty() {
            self.unpark_of(id);
            self.pump(now, wakes);
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
        if self.bounds.own {
            // What the provider says of its limits concerns none of ours; nor do its refusals, which hold for one of
            // several targets, perhaps.
            return;
        }
        let id = index_of(ticket);
        self.skew.see(sent, now, head.processing);
        self.redate(now);
        let latency = now.saturating_sub(sent);
        // When a bucket was counted, at the earliest. The time stated leaves little room; without it, when it was sent.
        let since = match head.processing.filter(|&p| p <= latency) {
            Some(processing) => sent.max((now - processing).saturating_sub(SLACK)),
            None => sent,
        };
        let mut longest = 0;
        let mut blamed_any = false;
        let mut explained = false;
        let mut witnessed = None;
        let mut refused_tokens = false;
        // A refusal of one model says nothing of a limit for all of them, unless others have shown the same limit.
        let shares = head.refusal.is_some() && self.shares(lane, head.stated);
        let alone = self.lane_of.len() <= 2;
        let apart = head.refusal.is_some() && !shares && !alone;
        let turn = self.entries[id].alone.filter(|&turn| turn == self.turns);
        let entry = &mut self.entries[id];
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let rule = &self.rules[account.rule as usize];
            if !rule.is_the_providers() {
                // Our own books are kept by our own clock.
                continue;
            }
            longest = longest.max(account.rate.period);
            let before = (
                account.rate.amount,
                account.book.enforcement(rule.enforcement),
            );
            let arrival = self
                .skew
                .arrival(sent, now, head.processing, account.rate.period);
            let spread = self.skew.spread(account.rate.period);
            if let Some(leases) = &mut self.leases {
                leases.touch(take.account);
            }
            account.book.ways_differ(spread, account.rate);
            account.date(now, Span::at(arrival), take);
            let stated = head.stated.iter().filter(|stated| stated.unit == rule.unit);
            let mut stated = stated.map(|stated| stated.in_parts(rule.parts));
            for stated in stated.clone().filter(|_| !(apart && rule.is_shared())) {
                let since = if head.refusal.is_some() {
                    // Ours was ahead of theirs: no benefit of the doubt.
                    Since::Exactly(now)
                } else {
                    Since::NotBefore(since)
                };
                account.hear(now, sent, since, arrival, take, &stated);
                // Where units are weighed, a sum of tokens says little.
                let tokens =
                    rule.unit == Unit::Tokens && rule.parts == 1 && account.concerns(&stated);
                if let Some(turn) = turn.filter(|_| tokens && head.refusal.is_none()) {
                    let lone = Lone {
                        ticket,
                        turn,
                        arrival,
                        used: stated.used() as u64,
                        cost: Cost {
                            tokens: entry.tokens,
                            ..entry.cost
                        },
                        first: take.was_first(),
                    };
                    let amount = stated.amount();
                    let rate = Rate {
                        amount,
                        ..account.rate
                    };
                    witnessed = Some((lone, rate));
                }
            }
            if let Some((what, wait)) = head.refusal {
                let stated = stated.next();
                // The headers say so, or our own books do: others wait for room, or there is little of it.
                explained |= !self.queue.is_empty()
                    || stated.is_some_and(|stated| stated.left() < take.units)
                    || account.used(now) > u128::from(account.capacity()) / 4 * 3;
                // Where it does not say which limit it was, it was none that has enough left.
                let blamed = match what {
                    Some(unit) => unit == rule.unit,
                    None => stated.is_none_or(|stated| stated.left() < take.units),
                };
                if blamed {
                    blamed_any = true;
                    refused_tokens |= rule.unit == Unit::Tokens;
                    account.refused(now, sent, take.units, wait, stated.as_ref());
                }
            }
            let model = &self.lanes[lane as usize].model;
            if account.rate.amount != before.0 {
                self.events.push(Event::LimitChanged {
                    limit: rule.name.clone(),
                    from: rule.whole(before.0.into()),
                    to: rule.whole(account.rate.amount.into()),
                    model: model.clone(),
                });
            }
            let by = account.book.enforcement(rule.enforcement);
            if by != before.1 {
                self.events.push(Event::Enforced {
                    limit: rule.name.clone(),
                    by: rule.shown(by),
                    model: model.clone(),
                });
            }
        }
        let told = if entry.settles {
            Charged::Settles
        } else {
            Charged::Sum
        };
        let own = lane;
        let lane = &mut self.lanes[own as usize];
        let found = match witnessed {
            Some((lone, rate)) => lane.witness.hear(lone, rate, told),
            None if refused_tokens => lane.witness.refused(told),
            None => None,
        };
        self.said.extend(found.map(|verdict| Said {
            model: lane.model.clone(),
            verdict,
        }));
        for stated in head.stated {
            let seen = (stated.unit, stated.amount(), stated.left());
            match lane.stated.iter_mut().find(|old| old.0 == seen.0) {
                Some(old) => *old = seen,
                None => lane.stated.push(seen),
            }
        }
        let longest = if longest == 0 { 120 * SECOND } else { longest };
        match head.refusal {
            Some((_, wait)) => {
                let shut = lane.gate.shut_for(now).is_some();
                let gate = &mut lane.gate;
                let holds = if explained {
                    gate.refused(now, sent, wait, longest);
                    true
                } else {
                    gate.refused_unexplained(now, sent, wait, longest)
                };
                if let Some(wait) = lane.gate.shut_for(now).filter(|_| !shut) {
                    let model = lane.model.clone();
                    self.events.push(Event::GateShut { model, wait });
                }
                self.tell_others(now, own);
                if shares && holds {
                    self.refused_too(now, sent, own, head.stated, wait, longest);
                }
            }
            None => {
                let careful = lane.gate.is_careful();
                lane.gate.served(sent, !head.stated.is_empty());
                if careful && !lane.gate.is_careful() {
                    let model = lane.model.clone();
                    self.events.push(Event::GateOpened { model });
                }
            }
        }
        let look = self.looking(own);
        let lane = &mut self.lanes[look];
        if matches!(lane.probe, Probe::Since { since, .. } if sent >= since) {
            lane.probe = Probe::Done;
        }
        if !head.stated.is_empty() {
            lane.heard_at = now;
        }
        if blamed_any {
            lane.doubted_until = now.saturating_add(longest.saturating_mul(10));
        }
        let lane = self.entries[id].lane;
        if self.bounds.learn {
            self.learn(now, lane, head.stated);
        } else if head.stated.iter().any(|stated| self.is_longer(stated)) {
            let longer = head.stated.iter().filter(|stated| self.is_longer(stated));
            let longer: Vec<_> = longer.copied().collect();
            self.learn(now, lane, &longer);
        }
        if !self.queue.is_empty() {
            // Dating an entry loosens, and so may the rest of it.
            self.unpark_of(id);
            self.pump(now, wakes);
        }
    }

    /// Whether another model's last answer has shown the limit of this refusal, and as little left of it.
    fn shares(&self, lane: u32, refused: &[Stated]) -> bool {
        self.lane_of
            .values()
            .any(|&other| other != lane && self.is_same(other, refused))
    }

    /// Two models share a limit, as far as can be seen, if it is as large for both and as little is left of it.
    fn is_same(&self, lane: u32, refused: &[Stated]) -> bool {
        self.lanes[lane as usize]
            .stated
            .iter()
            .any(|&(unit, amount, left)| {
                refused.iter().any(|stated| {
                    stated.unit == unit
                        && stated.amount() == amount
                        && stated.left() <= amount / 10
                        && left.abs_diff(stated.left()) <= amount / 10
                })
            })
    }

    /// Shuts the gates of those that share the limit too.
    fn refused_too(
        &mut self,
        now: Nanos,
        sent: Nanos,
        refused: u32,
        stated: &[Stated],
        wait: Option<Nanos>,
        longest: Nanos,
    ) {
        let lanes: Vec<u32> = self.lane_of.values().copied().collect();
        for lane in lanes {
            if lane != refused && self.is_same(lane, stated) {
                let gate = &mut self.lanes[lane as usize].gate;
                gate.refused(now, sent, wait, longest);
            }
        }
    }

    /// For how long the gate of its lane stays shut; 0 if it is open.
    pub(crate) fn gate_of(&self, now: Nanos, ticket: u64) -> Option<Nanos> {
        if self.bounds.shadow || self.bounds.own {
            // It holds nobody, so whoever asks again must wait by himself.
            return None;
        }
        let entry = self.entry(ticket)?;
        Some(
            self.lanes[entry.lane as usize]
                .gate
                .shut_for(now)
                .unwrap_or(0),
        )
    }

    /// Dates those that are under way anew, when the longest way that must be reckoned with has changed by much.
    ///
    /// Where answers take longer than the window, most places are held by requests of which nothing is known but that.
    fn redate(&mut self, now: Nanos) {
        let bound = self.skew.bound(NEVER);
        if bound.abs_diff(self.reckoned) <= self.reckoned / 4 {
            return;
        }
        self.reckoned = bound;
        for entry in &mut self.entries {
            if !matches!(entry.phase, Phase::Sent(_)) {
                continue;
            }
            for take in &mut entry.takes {
                let account = &mut self.accounts[take.account as usize];
                let way = self.skew.bound(account.rate.period);
                account.redate(now, way, take);
            }
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
        let lane = &mut self.lanes[entry.lane as usize];
        let seen = lane.witness.verdict();
        // By what is seen of the provider, where that is not what the profile says.
        let tokens_how = match how {
            Settlement::Actual(cost) => {
                lane.witness.over(ticket, cost.input, cost.output);
                match seen {
                    Some(Charged::Settles) | None => how,
                    Some(_) => Settlement::Used(cost.used),
                }
            }
            Settlement::Used(used) => {
                let input = used.input.saturating_sub(used.cached_input);
                lane.witness.over(ticket, input, used.output);
                match seen {
                    Some(Charged::Settles) => {
                        Settlement::Actual(Cost::request().tokens(input, used.output).using(used))
                    }
                    _ => how,
                }
            }
            _ => how,
        };
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            let rule = &self.rules[account.rule as usize];
            let tokens = rule.unit == Unit::Tokens && rule.is_the_providers();
            let units = rule.settled(take.units, if tokens { tokens_how } else { how });
            less |= account.settle(now, units, take);
            if let Some(leases) = &mut self.leases {
                leases.touch(take.account);
            }
        }
        if matches!(entry.phase, Phase::Sent(_)) {
            lane.learner.over(match tokens_how {
                Settlement::AllBack => Cost::default(),
                Settlement::Actual(cost) => cost,
                Settlement::TokensBack => Cost::request(),
                Settlement::Keep | Settlement::Used(_) => entry.cost,
            });
        }
        let learning = lane.in_flight >= PROBE && !lane.learner.done();
        lane.in_flight = lane.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        let look = self.looking(self.entries[id].lane);
        let probing = learning || matches!(self.lanes[look].probe, Probe::Since { .. });
        if !self.queue.is_empty() && (less || probing) {
            self.unpark_of(id);
            self.leave_entry(id);
            self.pump(now, wakes);
        } else {
            self.leave_entry(id);
        }
    }

    /// Lines that wait for what this request has just let go may try again.
    pub(super) fn unpark_of(&mut self, id: usize) {
        let entry = &self.entries[id];
        let mut lines = std::mem::take(&mut self.lanes[entry.lane as usize].parked);
        for take in &entry.takes {
            lines.append(&mut self.accounts[take.account as usize].parked);
        }
        for line in lines {
            self.queue.unpark(line);
        }
    }

    /// Frees an entry's place.
    pub(super) fn leave_entry(&mut self, id: usize) {
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

    pub(super) fn entry(&self, ticket: u64) -> Option<&Entry> {
        self.entries
            .get(index_of(ticket))
            .filter(|entry| u64::from(entry.generation) == ticket >> 32)
    }
}
