//! The line: who goes next, who keeps the timer, who leaves.
use std::{cmp::Reverse, task::Waker};

use tollgate_core::extensions::Reason;

use super::{
    Blocker, Core, Fit, Heard, LATE, LOOK_UP, MOST_STEP, Phase, Probe, STEP, index_of, push_new,
    ticket_of,
};
use crate::{
    engine::rate::{NEVER, Nanos, SECOND},
    store::Settlement,
};

impl Core {
    pub(super) fn admit(&mut self, now: Nanos, id: usize) {
        let entry = &mut self.entries[id];
        let mut pace = None;
        for take in &mut entry.takes {
            let account = &mut self.accounts[take.account as usize];
            account.take(take);
            if let Some(leases) = &mut self.leases {
                account.spend(now, take);
                leases.touch(take.account);
            }
            // The provider's pace is that of its shortest limit; a limit a day has none, nor has a user's quota.
            if self.rules[account.rule as usize].is_the_providers() {
                let step = Reverse(account.rate.time_of(take.units).min(MOST_STEP));
                let (period, most) = pace.unwrap_or((NEVER, step));
                pace = Some((account.rate.period, step).min((period, most)));
            }
        }
        let lane = &mut self.lanes[entry.lane as usize];
        lane.gate
            .pass(now, pace.map_or(STEP, |(_, Reverse(step))| step));
        if lane.in_flight == 0 {
            lane.began = now;
        }
        lane.in_flight += 1;
        self.in_flight += 1;
        if let Some(time) = self.probe {
            let look = self.looking(self.entries[id].lane);
            let lane = &mut self.lanes[look];
            // Where others use the key, what was heard goes stale.
            let stale = now < lane.doubted_until && now.saturating_sub(lane.heard_at) > time;
            let first = lane.probe == Probe::Due;
            if first || (stale && lane.probe == Probe::Done) {
                lane.probe = Probe::Since {
                    since: now,
                    time,
                    widens: first,
                };
            }
        }
    }

    /// Lets go whoever may go now, and says when the next one may.
    ///
    /// To be called when time has passed or anything has changed that somebody may wait for.
    pub(super) fn pump(&mut self, now: Nanos, wakes: &mut Vec<Waker>) {
        self.queue.unpark_due(now);
        self.give_up(now, now.saturating_sub(1), wakes);
        let mut next = self.grant(now, wakes);
        // Who is to wait until now may still go now; and a place that is given up may be what the next one needs.
        while self.give_up(now, now, wakes) {
            next = self.grant(now, wakes);
        }
        next = next.min(self.queue.next_due().unwrap_or(NEVER));
        if let Some(&(at, _)) = self.deadlines.first() {
            next = next.min(at);
        }
        if self.bounds.epoch.is_some() && !self.queue.is_empty() {
            // The wall clock may be set meanwhile, and nobody says so.
            next = next.min(now.saturating_add(LOOK_UP));
        }
        self.next = next;
        self.hand_over(wakes);
    }

    /// Refuses those who were to wait until `last` at most; whether there was one.
    fn give_up(&mut self, now: Nanos, last: Nanos, wakes: &mut Vec<Waker>) -> bool {
        let mut any = false;
        while let Some(&(until, ticket)) = self.deadlines.first() {
            if until > last {
                break;
            }
            any = true;
            let id = index_of(ticket);
            let (wait, account) = match self.fit(now, id) {
                Fit::Later { at, account, .. } => {
                    let wait = (at < NEVER).then(|| at.saturating_sub(now));
                    (wait, account)
                }
                Fit::Refuse(account, at) => (Some(at.saturating_sub(now)), Some(account)),
                Fit::Down(account) => (None, Some(account)),
                _ => (None, None),
            };
            let refused = self.refusal(Reason::WaitTooLong, account, wait);
            wakes.extend(self.out_of_line(id, Phase::Refused(refused)));
        }
        any
    }

    /// Lets go whoever may go now; when the one who holds up all others may.
    fn grant(&mut self, now: Nanos, wakes: &mut Vec<Waker>) -> Nanos {
        while let Some((line, ticket)) = self.queue.first() {
            let id = index_of(ticket);
            match self.fit(now, id) {
                Fit::Now => {
                    self.queue.pop(line);
                    self.granted = now;
                    self.admit(now, id);
                    wakes.extend(self.out_of_line(id, Phase::Granted));
                }
                Fit::Later {
                    shared: true,
                    look_at,
                    grain,
                    ..
                } => return self.grouped(look_at, grain),
                Fit::Later {
                    look_at,
                    grain,
                    blocker,
                    ..
                } => {
                    self.queue.park(line, self.grouped(look_at, grain));
                    match blocker {
                        Some(Blocker::Account(account)) => {
                            push_new(&mut self.accounts[account as usize].parked, line);
                        }
                        Some(Blocker::Lane(lane)) => {
                            push_new(&mut self.lanes[lane as usize].parked, line);
                        }
                        None => {}
                    }
                }
                Fit::Down(account) => {
                    let refused = self.refusal(Reason::StoreDown, Some(account), Some(SECOND));
                    wakes.extend(self.out_of_line(id, Phase::Refused(refused)));
                }
                Fit::Never(account) => {
                    let refused = self.too_large(id, account);
                    wakes.extend(self.out_of_line(id, Phase::Refused(refused)));
                }
                Fit::Review(account, at) => {
                    let asked = self.asked(now, id, account, at);
                    wakes.extend(self.out_of_line(id, Phase::Asking(asked)));
                }
                Fit::Refuse(account, at) => {
                    let wait = Some(at.saturating_sub(now));
                    let refused = self.refusal(Reason::Exhausted, Some(account), wait);
                    wakes.extend(self.out_of_line(id, Phase::Refused(refused)));
                }
            }
        }
        NEVER
    }

    /// The time for which to set the timer: a little after the last grant, for those who are due until then go too.
    ///
    /// Whatever else is heard until then lets go whoever is due, so that hardly anybody waits for the timer at all.
    /// Nobody gives up meanwhile.
    fn grouped(&self, at: Nanos, grain: Nanos) -> Nanos {
        let first = self.deadlines.first();
        let ends = first.map_or(NEVER, |&(until, _)| until.saturating_sub(LATE));
        at.max(self.granted.saturating_add(grain).min(ends))
    }

    /// Makes sure that somebody keeps the timer, and keeps it early enough.
    pub(super) fn hand_over(&mut self, wakes: &mut Vec<Waker>) {
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
            if let Phase::Waiting { waker, .. } = &mut self.entries[index_of(keeper)].phase {
                // It leaves another one when it is polled.
                wakes.extend(waker.take());
            }
        }
    }

    /// Takes a request out of its line; `phase` is what it will hear. Who is to be woken for that.
    fn out_of_line(&mut self, id: usize, phase: Phase) -> Option<Waker> {
        let entry = &mut self.entries[id];
        let ticket = ticket_of(entry.generation, id);
        let Phase::Waiting {
            place,
            until,
            bytes,
            waker,
        } = std::mem::replace(&mut entry.phase, phase)
        else {
            return None;
        };
        for take in &entry.takes {
            let account = &mut self.accounts[take.account as usize];
            account.backlog = account.backlog.saturating_sub(u128::from(take.units));
        }
        self.queue.remove(place);
        self.queue_bytes = self.queue_bytes.saturating_sub(bytes);
        self.deadlines.remove(&(until, ticket));
        waker
    }

    /// It waits no longer than until then.
    pub(super) fn waits_until(&mut self, ticket: u64, time: Nanos) {
        if let Phase::Waiting { until, .. } = &mut self.entries[index_of(ticket)].phase {
            if time < *until {
                self.deadlines.remove(&(*until, ticket));
                self.deadlines.insert((time, ticket));
                *until = time;
            }
        }
    }

    /// Refuses those who can never go any more, wherever they stand in their lines.
    pub(super) fn turn_away(&mut self, now: Nanos, wakes: &mut Vec<Waker>) {
        for id in 0..self.entries.len() {
            if !matches!(self.entries[id].phase, Phase::Waiting { .. }) {
                continue;
            }
            if let Fit::Never(account) = self.fit(now, id) {
                let refused = self.refusal(Reason::NeverFits, Some(account), None);
                wakes.extend(self.out_of_line(id, Phase::Refused(refused)));
            }
        }
    }

    /// A waiting request asks how it stands, and leaves its waker.
    ///
    /// Wakers are foreign code: none is cloned or dropped in here, for a lock is held. What is not needed, or was
    /// replaced, is left in `own`.
    pub(crate) fn poll(
        &mut self,
        now: Nanos,
        ticket: u64,
        own: &mut Option<Waker>,
        wakes: &mut Vec<Waker>,
    ) -> Heard {
        if self.keeper == Some(ticket) && self.next <= now {
            self.pump(now, wakes);
        }
        let id = index_of(ticket);
        match &mut self.entries[id].phase {
            Phase::Waiting { waker, .. } => {
                match (&waker, &own) {
                    (Some(old), Some(new)) if old.will_wake(new) => {}
                    _ => std::mem::swap(waker, own),
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
            Phase::Asking(_) => {
                let Phase::Asking(asked) =
                    std::mem::replace(&mut self.entries[id].phase, Phase::Free)
                else {
                    unreachable!("looked at just now")
                };
                self.leave_entry(id);
                Heard::Review(asked)
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

    /// A waiting request was dropped. Its waker, which is to be dropped where no lock is held.
    pub(crate) fn leave(
        &mut self,
        now: Nanos,
        ticket: u64,
        wakes: &mut Vec<Waker>,
    ) -> Option<Waker> {
        match self.entry(ticket)?.phase {
            Phase::Waiting { .. } => {
                let id = index_of(ticket);
                let own = self.out_of_line(id, Phase::Free);
                self.leave_entry(id);
                self.tick(now, wakes);
                return own;
            }
            Phase::Refused(_) | Phase::Asking(_) => self.leave_entry(index_of(ticket)),
            _ => self.settle(now, ticket, Settlement::AllBack, wakes),
        }
        None
    }
}
