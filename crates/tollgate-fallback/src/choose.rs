//! Which candidate is tried next.
use std::{cmp::Reverse, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, header, request::Parts};
use tokio::time::Instant;
use tollgate_core::{
    call::{Call, Skipped},
    extensions::AskedForUsage,
    wire::{
        estimate::Estimate,
        prompt::{Facts, RequestFacts},
    },
};

use crate::{
    Candidate, FallbackHealth,
    chain::Route,
    credential::KeyId,
    fit::{Key, TooLong},
    health::{Probe, Slot},
    path,
    pool::UnderWay,
    rewrite::rewrite,
    target,
};

/// The way of one request through its candidates.
pub(crate) struct Choice {
    head: Parts,
    body: Bytes,
    pub(crate) facts: Facts,
    pub(crate) route: Route,
    /// Position of the next candidate to look at.
    next: usize,
    /// Keys that were refused in this call.
    pub(crate) dead: Vec<KeyId>,
    pub(crate) too_long: Option<TooLong>,
    /// Where the request goes by itself, and by which key.
    pub(crate) origin: u64,
    pub(crate) key: KeyId,
    /// Prompt and answer, as far as can be told without a tokenizer.
    pub(crate) tokens: u64,
}

/// The candidate that is tried.
pub(crate) struct Chosen {
    pub(crate) position: usize,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) target: Option<Arc<str>>,
    window: Option<u64>,
    pub(crate) slot: Option<Slot>,
    pub(crate) probe: Option<Probe>,
    /// Of a pool: counted while it is under way.
    pub(crate) under_way: Option<UnderWay>,
    pub(crate) facts: Facts,
    pub(crate) begun: Instant,
}

/// A candidate with the request for it.
pub(crate) type Send = (Chosen, Parts, Bytes);

impl Choice {
    pub(crate) fn new(
        head: Parts,
        body: Bytes,
        facts: Facts,
        route: Route,
        health: &FallbackHealth,
        now: Instant,
    ) -> Self {
        let (scheme, authority) = path::origin_of(&head.uri, &head.headers);
        let origin = target::origin(scheme, authority);
        let key = KeyId::of_request(&head.headers, &head.uri, origin);
        let cap = facts.max_output_tokens.unwrap_or(0);
        let tokens = Estimate::of(&facts).input.saturating_add(cap);
        let mut choice = Self {
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
        };
        choice.order_pools(health, now);
        choice
    }

    /// Whether what comes after an answer may be another attempt: there is another candidate, or
    /// perhaps another key.
    pub(crate) fn has_more(&self) -> bool {
        let keys = |position| {
            let place = self.route.get(position).place.as_ref();
            place.is_some_and(|place| place.credential.is_some())
        };
        self.route.len() > 1 || keys(0)
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
        let fit = rest.filter(|position| self.may_fit(*position, health, now));
        u32::try_from(fit.count()).unwrap_or(u32::MAX)
    }

    /// Whether another one of the same pool could be tried at once.
    pub(crate) fn has_sibling(
        &self,
        position: usize,
        health: &FallbackHealth,
        now: Instant,
    ) -> bool {
        let pool = self.route.get(position).pool;
        pool.is_some()
            && (self.next..self.route.len())
                .take_while(|next| self.route.get(*next).pool == pool)
                .any(|next| self.may_fit(next, health, now))
    }

    /// The key of a candidate was refused: not again in this call. Another one of the same target
    /// is tried next, if there is one.
    pub(crate) fn key_was_refused(
        &mut self,
        chosen: &Chosen,
        health: &FallbackHealth,
        now: Instant,
    ) {
        self.dead.extend(chosen.slot.as_ref().map(|slot| slot.key));
        if self.fit(chosen.position, health, now).is_ok() {
            self.next = chosen.position;
        }
    }

    /// A recorder further out has asked for usage in the caller's place, and a candidate may not
    /// know the question: it is taken back, and the same candidate is tried once more. False: there
    /// is none.
    pub(crate) fn take_back_question(&mut self, chosen: &Chosen) -> bool {
        let asked = self.head.extensions.remove::<AskedForUsage>();
        let Some(original) = asked.and_then(|asked| asked.original_of(&self.body).cloned()) else {
            return false;
        };
        let head = &mut self.head;
        if head.headers.contains_key(header::CONTENT_LENGTH) {
            let length = HeaderValue::from(original.len());
            head.headers.insert(header::CONTENT_LENGTH, length);
        }
        let read = RequestFacts::read(&head.method, &head.uri, &head.headers, &original);
        self.facts = Facts::new(read);
        self.head.extensions.insert(self.facts.clone());
        self.body = original;
        self.next = chosen.position;
        true
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
            let candidate = self.route.get(position);
            let key = self.best_key(candidate, health, now)?;
            let slot = self.slot(candidate, key.id);
            let cooling = health.cooling_until(&slot, now);
            cooling.max(health.dead_until(slot.key, now))
        };
        let mut fit: Vec<usize> = Vec::new();
        let mut small: Vec<usize> = Vec::new();
        for position in 0..self.route.len() {
            match self.may_ever_fit(position) {
                Ok(()) => fit.push(position),
                Err(Skipped::TooSmall) => small.push(position),
                Err(_) => {}
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
                under_way: None,
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
        let candidate = self.route.get(position);
        let Key { id, put } = if force || alone {
            let key = self.best_key(candidate, health, now);
            key.ok_or(Skipped::DeadCredential)?
        } else {
            self.fit(position, health, now)?
        };
        let other_hands = self.in_other_hands(candidate);
        let (parts, bytes, facts) = rewrite(
            &self.head,
            &self.body,
            &self.facts,
            candidate,
            other_hands,
            put.as_ref(),
        )
        .ok_or(Skipped::CannotRewrite)?;
        let slot = self.slot(candidate, id);
        let probe = if alone {
            None
        } else {
            // Another call may have begun the probe since we looked.
            let entered = health.enter(&slot, now, force);
            entered.map_err(|_| Skipped::CoolingDown)?
        };
        let pooled = candidate.pool.is_some();
        let under_way = pooled.then(|| health.begin(&slot, self.tokens));
        let (model, target) = self.names(candidate);
        let chosen = Chosen {
            position,
            model,
            target,
            window: candidate.window,
            slot: Some(slot),
            probe,
            under_way,
            facts,
            begun: now,
        };
        Ok((chosen, parts, bytes))
    }

    /// What a candidate is called in the list of attempts: model and target.
    fn names(&self, candidate: &Candidate) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let model = candidate.model.clone().or_else(|| self.facts.model.clone());
        (model, candidate.name.clone())
    }

    pub(crate) fn origin(&self, candidate: &Candidate) -> u64 {
        let place = candidate.place.as_ref();
        place.map_or(self.origin, |place| place.origin())
    }

    /// Whether the request gets into other hands than those that the caller's key was meant for.
    pub(crate) fn in_other_hands(&self, candidate: &Candidate) -> bool {
        let place = candidate.place.as_ref();
        place.is_some_and(|place| place.credential.is_some() || place.origin() != self.origin)
    }

    pub(crate) fn slot(&self, candidate: &Candidate, key: KeyId) -> Slot {
        let (model, target) = self.names(candidate);
        Slot {
            target,
            model,
            origin: self.origin(candidate),
            key,
        }
    }
}
