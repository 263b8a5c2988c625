//! What changes while a budget is in use: limits, the wall clock, what was spent before.
use std::task::Waker;

use tollgate_core::principal::Principal;

use super::{Core, Key, keys::OTHERS};
use crate::{
    engine::{
        book::Book,
        rate::{NEVER, Nanos, SECOND},
        rule::Rule,
    },
    limit::{Scope, Wall},
    spent::Spent,
};

impl Core {
    /// Limits have changed: all who wait are looked at anew.
    pub(super) fn reconsider(&mut self, now: Nanos, wakes: &mut Vec<Waker>) {
        self.queue.unpark_due(NEVER);
        self.tick(now, wakes);
    }

    /// Another amount for the limit of this name, in its units.
    pub(crate) fn set_limit(
        &mut self,
        now: Nanos,
        name: &str,
        meant: impl Fn(&Rule) -> bool,
        amount: u64,
        wakes: &mut Vec<Waker>,
    ) -> Result<(), String> {
        let index = self.named(name, meant)?;
        let rule = &mut self.rules[index as usize];
        let parts = u128::from(amount) * u128::from(rule.parts);
        if amount == 0 {
            return Err(format!("{name}: a limit must be above zero"));
        }
        if parts > 1 << 62 {
            return Err(format!(
                "{name}: a limit must be below 2^62 (with weights: in the smallest part of a unit)"
            ));
        }
        rule.rate.amount = parts as u64;
        for account in self.accounts.iter_mut().filter(|a| a.rule == index) {
            account.told(now, parts as u64);
        }
        self.turn_away(now, wakes);
        self.reconsider(now, wakes);
        Ok(())
    }

    /// The one limit of this name that was told and is meant.
    fn named(&self, name: &str, meant: impl Fn(&Rule) -> bool) -> Result<u32, String> {
        let named = |rule: &Rule| !rule.learned && *rule.name == *name && meant(rule);
        let mut found = (0..).zip(&self.rules).filter(|(_, rule)| named(rule));
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Ok(index),
            (None, _) => Err(format!("no such limit is named {name:?}")),
            _ => Err(format!(
                "several limits are named {name:?}; name them apart"
            )),
        }
    }

    /// What the wall clock showed when our own began, as far as is known now.
    pub(crate) fn wall_is(&mut self, now: Nanos, epoch: Wall, wakes: &mut Vec<Waker>) {
        // Clocks are read one after the other, and one of them is trimmed all the time.
        if self.epoch.abs_diff(epoch) < SECOND {
            return;
        }
        self.epoch = epoch;
        for account in &mut self.accounts {
            if let Book::Calendar(period) = &mut account.book {
                period.set(now, epoch);
            }
        }
        self.reconsider(now, wakes);
    }

    /// Puts back what was spent of caps, all of it or nothing; `wall` is the wall clock now.
    pub(crate) fn restore(
        &mut self,
        now: Nanos,
        wall: Wall,
        spent: &[(Spent, Option<Wall>)],
    ) -> Result<(), String> {
        let mut found = Vec::new();
        for (spent, until) in spent {
            let rule = self.named(&spent.limit, |rule| rule.calendar.is_some())?;
            let others = spent.key.as_deref() == Some(OTHERS);
            let key = match others && self.rules[rule as usize].scope != Scope::Global {
                true => None,
                false => self.key_named(rule, spent.key.as_deref())?,
            };
            if until.is_none_or(|until| until > wall) {
                found.push((rule, key, spent.units));
            }
        }
        // The account of those without a place comes last: once something is in it, new keys find no place.
        found.sort_by_key(|(_, key, _)| key.is_none());
        for (rule, key, units) in found {
            let account = match (key, self.global[rule as usize]) {
                (Some(key), _) => self.keyed(now, rule, key),
                (None, Some(account)) => account,
                (None, None) => self.shared(rule),
            };
            let units = units.saturating_mul(self.rules[rule as usize].parts);
            if let Book::Calendar(period) = &mut self.accounts[account as usize].book {
                period.add(now, units);
            }
        }
        Ok(())
    }

    fn key_named(&self, rule: u32, key: Option<&str>) -> Result<Option<Key>, String> {
        let rule = &self.rules[rule as usize];
        Ok(match (rule.scope, key) {
            (Scope::Global, None) => None,
            (Scope::Global, Some(_)) => {
                return Err(format!("{}: it is one for all, and has no key", rule.name));
            }
            (Scope::Model, model) => Some(Key::Model(model.map(Into::into))),
            (_, None) => Some(Key::Digest(None)),
            (_, Some(text)) => match u64::from_str_radix(text, 16) {
                Ok(digest) => Some(Key::Digest(Some(Principal::from_digest(digest)))),
                Err(_) => {
                    return Err(format!(
                        "{}: a key is sixteen hexadecimal digits",
                        rule.name
                    ));
                }
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        charging::Cost,
        engine::core::{Arrival, Arrived, Bounds, Heard},
        limit::{Calendar, Limit},
    };

    // T31
    #[test]
    fn who_waits_for_midnight_goes_when_the_machine_wakes_up_after_it() {
        let hour = 3600 * SECOND;
        let cap = Limit::requests(1).per_calendar(Calendar::day("UTC"));
        let bounds = Bounds {
            queue_len: 10,
            queue_bytes: u64::MAX,
            max_wait: NEVER,
            run_alone: false,
            learn: false,
            usual: 60 * SECOND,
            keys: 10,
            size_classes: false,
            shadow: false,
            own: false,
            epoch: Some(0),
        };
        let mut core = Core::new(vec![Rule::told(&cap)], bounds);
        let arrival = Arrival {
            cost: Cost::request(),
            model: None,
            principal: None,
            keys: None,
            weight: 4,
            until: NEVER,
            deadline: NEVER,
            bytes: 1,
            settles: false,
            allowed: Vec::new(),
        };
        let wakes = &mut Vec::new();
        let Arrived::Admitted(first) = core.arrive(hour, &arrival, wakes) else {
            panic!("the day is free");
        };
        core.sent(hour, first, wakes);
        let Arrived::Waiting(second) = core.arrive(hour, &arrival, wakes) else {
            panic!("the day is used up");
        };
        let waker = Some(Waker::noop().clone());
        let waits = core.poll(hour, second, &mut waker.clone(), wakes);
        let Heard::Waiting(Some(until)) = waits else {
            panic!("it keeps the timer");
        };
        assert!(
            until <= hour + 60 * SECOND,
            "it looks at the wall clock meanwhile"
        );
        // The machine sleeps until two in the morning, and our clock with it.
        wakes.clear();
        core.wall_is(hour, (25 * hour).try_into().unwrap(), wakes);
        assert_eq!(wakes.len(), 1, "it is woken");
        assert!(matches!(
            core.poll(hour, second, &mut waker.clone(), wakes),
            Heard::Admitted
        ));
    }
}
