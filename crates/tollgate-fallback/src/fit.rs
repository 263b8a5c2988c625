//! Whether a candidate may be tried for a request, and by which key.
use std::sync::Arc;

use tokio::time::Instant;
use tollgate_core::call::Skipped;

use crate::{Candidate, Credential, FallbackHealth, choose::Choice, credential::KeyId, path};

/// The key by which a candidate is used.
pub(crate) struct Key {
    pub(crate) id: KeyId,
    /// What is put into the request; `None`: the request's own, or none at all.
    pub(crate) put: Option<Credential>,
}

/// The last candidate that the request was too long for.
pub(crate) struct TooLong {
    pub(crate) window: Option<u64>,
    pub(crate) model: Option<Arc<str>>,
}

impl Choice {
    /// The key by which a candidate can be tried now.
    ///
    /// # Errors
    ///
    /// Why it cannot be tried.
    pub(crate) fn fit(
        &self,
        position: usize,
        health: &FallbackHealth,
        now: Instant,
    ) -> Result<Key, Skipped> {
        self.may_ever_fit(position)?;
        let candidate = self.route.get(position);
        if health.is_quiet() {
            return self
                .key_not_refused(candidate)
                .ok_or(Skipped::DeadCredential);
        }
        let key = self.living_key(candidate, health, now);
        let key = key.ok_or(Skipped::DeadCredential)?;
        match health.cooling_until(&self.slot(candidate, key.id), now) {
            Some(_) => Err(Skipped::CoolingDown),
            None => Ok(key),
        }
    }

    /// The same without the key, while nobody is in trouble: keys are not asked for in vain.
    pub(crate) fn may_fit(&self, position: usize, health: &FallbackHealth, now: Instant) -> bool {
        if health.is_quiet() && self.dead.is_empty() {
            self.may_ever_fit(position).is_ok()
        } else {
            self.fit(position, health, now).is_ok()
        }
    }

    /// Whether a candidate can serve this request, keys and cool-downs aside.
    pub(crate) fn may_ever_fit(&self, position: usize) -> Result<(), Skipped> {
        let candidate = self.route.get(position);
        let facts = &self.facts;
        let speaks = candidate.speaks;
        if speaks.is_some_and(|dialect| dialect != path::family(facts.dialect())) {
            return Err(Skipped::OtherDialect);
        }
        if facts.pinned && self.origin(candidate) != self.origin(self.route.get(0)) {
            return Err(Skipped::Pinned);
        }
        let mut lacks = candidate.lacks.iter();
        if let Some(missing) = lacks.find(|capability| facts.needs(**capability)) {
            return Err(Skipped::Incapable(*missing));
        }
        if !self.is_large_enough(candidate) {
            return Err(Skipped::TooSmall);
        }
        Ok(())
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

    /// A candidate's key for who must try it, dead or alive.
    pub(crate) fn best_key(
        &self,
        candidate: &Candidate,
        health: &FallbackHealth,
        now: Instant,
    ) -> Option<Key> {
        let living = self.living_key(candidate, health, now);
        living.or_else(|| self.key_not_refused(candidate))
    }

    /// A candidate's key, if it has one that nobody found to be dead.
    fn living_key(
        &self,
        candidate: &Candidate,
        health: &FallbackHealth,
        now: Instant,
    ) -> Option<Key> {
        let alive = |id| !self.dead.contains(&id) && health.dead_until(id, now).is_none();
        self.key(candidate, &alive)
    }

    /// A candidate's key, if it has one that was not refused in this call.
    fn key_not_refused(&self, candidate: &Candidate) -> Option<Key> {
        self.key(candidate, &|id| !self.dead.contains(&id))
    }

    fn key(&self, candidate: &Candidate, usable: &dyn Fn(KeyId) -> bool) -> Option<Key> {
        let place = candidate.place.as_deref();
        let place = place.filter(|_| self.in_other_hands(candidate));
        let provider = place.and_then(|place| place.credential.as_deref());
        let key = match (place, provider) {
            (_, Some(provider)) => {
                let put = provider.credential(&|credential| usable(credential.id()))?;
                Key {
                    id: put.id(),
                    put: Some(put),
                }
            }
            (Some(place), None) => Key {
                id: KeyId::none(place.origin()),
                put: None,
            },
            (None, None) => Key {
                id: self.key,
                put: None,
            },
        };
        // Also where a provider does not care what it is asked for.
        usable(key.id).then_some(key)
    }
}
