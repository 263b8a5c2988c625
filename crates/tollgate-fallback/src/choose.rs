//! Which candidate is tried next.
use std::{cmp::Reverse, sync::Arc};

use bytes::Bytes;
use http::request::Parts;
use tokio::time::Instant;
use tollgate_core::{
    call::{Call, Skipped},
    wire::{estimate::Estimate, prompt::Facts},
};

use crate::{
    Candidate, FallbackHealth,
    chain::Route,
    credential::KeyId,
    health::{Probe, Slot},
    path,
    rewrite::rewrite,
    target,
};

/// The way of one request through its candidates.
pub(crate) struct Choice {
    head: Parts,
    body: Bytes,
    facts: Facts,
    route: Route,
    /// Position of the next candidate to look at.
    next: usize,
    /// Keys that were refused in this call.
    dead: Vec<KeyId>,
    too_long: Option<TooLong>,
    /// Where the request goes by itself, and by which key.
    origin: u64,
    key: KeyId,
    /// Prompt and answer, as far as can be told without a tokenizer.
    tokens: u64,
}

/// The candidate that is tried.
pub(crate) struct Chosen {
    pub(crate) position: usize,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) target: Option<Arc<str>>,
    window: Option<u64>,
    pub(crate) slot: Option<Slot>,
    pub(crate) probe: Option<Probe>,
    pub(crate) facts: Facts,
    pub(crate) begun: Instant,
}

/// A candidate with the request for it.
pub(crate) type Send = (Chosen, Parts, Bytes);

/// The last candidate that the request was too long for.
struct TooLong {
    window: Option<u64>,
    model: Option<Arc<str>>,
}

impl Choice {
    pub(crate) fn new(head: Parts, body: Bytes, facts: Facts, route: Route) -> Self {
        let (scheme, authority) = path::origin_of(&head.uri, &head.headers);
        let origin = target::origin(scheme, authority);
        let key = KeyId::of_request(&head.headers, &head.uri, origin);
        let cap = facts.max_output_tokens.unwrap_or(0);
        let tokens = Estimate::of(&facts).input.saturating_add(cap);
        Self {
            head,
            body,
            facts,
            route,
            next: 0,
            dead: Vec::new(),
            too_long: None,
            origin,
            key,
            tokens,
        }
    }

    /// Candidates in all.
    pub(crate) fn len(&self) -> usize {
        self.route.len()
    }

    /// The first candidate. There always is one.
    pub(crate) fn first(&mut self, call: &Call, health: &FallbackHealth, now: Instant) -> Send {
        match self.next(call, health, now) {
            Some(chosen) => chosen,
            None => self.last_resort(health, now),
        }
    }

    /// The next candidate that may be tried; the ledger is told why others are not.
    pub(crate) fn next(
        &mut self,
        call: &Call,
        health: &FallbackHealth,
        now: Instant,
    ) -> Option<Send> {
        while self.next < self.route.len() {
            let position = self.next;
            self.next += 1;
            match self.enter(position, health, now, false) {
                Ok(chosen) => return Some(chosen),
                Err(why) => {
                    let (model, target) = self.names(self.route.get(position));
                    call.skip(model, target, why);
                }
            }
        }
        None
    }

    /// How many candidates behind this one could be tried as things stand.
    pub(crate) fn further(&self, health: &FallbackHealth, now: Instant) -> u32 {
        let rest = self.next..self.route.len();
        let fit = rest.filter(|position| self.unfit(*position, health, now).is_none());
        u32::try_from(fit.count()).unwrap_or(u32::MAX)
    }

    /// The key of a candidate was refused: not again in this call.
    pub(crate) fn key_was_refused(&mut self, chosen: &Chosen) {
        self.dead.extend(chosen.slot.as_ref().map(|slot| slot.key));
    }

    /// The request was too long for a candidate.
    pub(crate) fn was_too_long(&mut self, chosen: &Chosen) {
        self.too_long = Some(TooLong {
            window: chosen.window,
            model: chosen.model.clone(),
        });
    }

    /// All were passed over and none was tried: one is, all the same.
    ///
    /// The one that is due first; else the largest; else the request goes out as it came. "No
    /// target" is no answer.
    fn last_resort(&self, health: &FallbackHealth, now: Instant) -> Send {
        let due = |position: usize| {
            let slot = self.slot(self.route.get(position));
            let cooling = health.cooling_until(&slot, now);
            cooling.max(health.dead_until(slot.key, now))
        };
        let mut fit: Vec<usize> = Vec::new();
        let mut small: Vec<usize> = Vec::new();
        for position in 0..self.route.len() {
            match self.never_fits(position) {
                None => fit.push(position),
                Some(Skipped::TooSmall) => small.push(position),
                Some(_) => {}
            }
        }
        fit.sort_by_key(|position| due(*position));
        small.sort_by_key(|position| Reverse(self.route.get(*position).window));
        let entered = fit
            .into_iter()
            .chain(small)
            .find_map(|position| self.enter(position, health, now, true).ok());
        entered.unwrap_or_else(|| {
            let chosen = Chosen {
                position: 0,
                model: self.facts.model.clone(),
                target: None,
                window: None,
                slot: None,
                probe: None,
                facts: self.facts.clone(),
                begun: now,
            };
            (chosen, self.head.clone(), self.body.clone())
        })
    }

    /// Makes a candidate the one that is tried; `force`: whatever speaks against it now.
    fn enter(
        &self,
        position: usize,
        health: &FallbackHealth,
        now: Instant,
        force: bool,
    ) -> Result<Send, Skipped> {
        let alone = self.route.len() == 1;
        if !force && !alone {
            if let Some(why) = self.unfit(position, health, now) {
                return Err(why);
            }
        }
        let candidate = self.route.get(position);
        let other_hands = self.in_other_hands(candidate);
        let (parts, bytes, facts) =
            rewrite(&self.head, &self.body, &self.facts, candidate, other_hands)
                .ok_or(Skipped::CannotRewrite)?;
        let slot = self.slot(candidate);
        let probe = if alone {
            None
        } else {
            // Another call may have begun the probe since we looked.
            let entered = health.enter(&slot, now, force);
            entered.map_err(|_| Skipped::CoolingDown)?
        };
        let (model, target) = self.names(candidate);
        let chosen = Chosen {
            position,
            model,
            target,
            window: candidate.window,
            slot: Some(slot),
            probe,
            facts,
            begun: now,
        };
        Ok((chosen, parts, bytes))
    }

    /// Why a candidate cannot be tried now.
    fn unfit(&self, position: usize, health: &FallbackHealth, now: Instant) -> Option<Skipped> {
        let never = self.never_fits(position);
        if never.is_some() || health.is_quiet() {
            return never;
        }
        let slot = self.slot(self.route.get(position));
        if health.dead_until(slot.key, now).is_some() {
            return Some(Skipped::DeadCredential);
        }
        let cooling = health.cooling_until(&slot, now).is_some();
        cooling.then_some(Skipped::CoolingDown)
    }

    /// Why a candidate cannot serve this call, whatever time may bring.
    fn never_fits(&self, position: usize) -> Option<Skipped> {
        let candidate = self.route.get(position);
        let speaks = candidate.speaks;
        if speaks.is_some_and(|dialect| dialect != path::family(self.facts.dialect())) {
            return Some(Skipped::OtherDialect);
        }
        if self.facts.pinned && self.origin(candidate) != self.origin(self.route.get(0)) {
            return Some(Skipped::Pinned);
        }
        if self.dead.contains(&self.key(candidate)) {
            return Some(Skipped::DeadCredential);
        }
        (!self.is_large_enough(candidate)).then_some(Skipped::TooSmall)
    }

    fn is_large_enough(&self, candidate: &Candidate) -> bool {
        let fits = candidate.window.is_none_or(|window| self.tokens <= window);
        let larger = match &self.too_long {
            None => true,
            Some(failed) => match (failed.window, candidate.window) {
                (Some(failed), Some(window)) => window > failed,
                (Some(_), None) => false,
                // Nobody knows, so it may be; but a model is not larger than itself.
                (None, _) => candidate.model.is_some() && candidate.model != failed.model,
            },
        };
        fits && larger
    }

    fn names(&self, candidate: &Candidate) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let model = candidate.model.clone().or_else(|| self.facts.model.clone());
        (model, candidate.name.clone())
    }

    fn origin(&self, candidate: &Candidate) -> u64 {
        let place = candidate.place.as_ref();
        place.map_or(self.origin, |place| place.origin())
    }

    /// Whether the request gets into other hands than those that the caller's key was meant for.
    fn in_other_hands(&self, candidate: &Candidate) -> bool {
        let place = candidate.place.as_ref();
        place.is_some_and(|place| place.credential.is_some() || place.origin() != self.origin)
    }

    fn key(&self, candidate: &Candidate) -> KeyId {
        match &candidate.place {
            Some(place) if self.in_other_hands(candidate) => place.key(),
            _ => self.key,
        }
    }

    fn slot(&self, candidate: &Candidate) -> Slot {
        let (model, target) = self.names(candidate);
        Slot {
            target,
            model,
            origin: self.origin(candidate),
            key: self.key(candidate),
        }
    }
}
