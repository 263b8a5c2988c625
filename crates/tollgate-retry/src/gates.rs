//! One refusal holds all who share the key: the gates of a layer, and who passes when.
use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::request::Parts;
use tokio::time::Instant;
use tollgate_core::gate::Gate;

/// Most keys with a gate.
const MOST: usize = 10_000;

/// For how long after a refusal answers are counted, in nanoseconds.
const WATCH: u64 = 60_000_000_000;

/// Where credentials and accounts stand.
const IDENTITY: [&str; 7] = [
    "authorization",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "openai-organization",
    "openai-project",
    "anthropic-workspace-id",
];

/// Origin, credential and model, as a digest keyed with a secret of this layer: no name and no key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key(u64);

/// The gates of all services of a layer.
pub(crate) struct Gates {
    start: OnceLock<Instant>,
    /// Nobody has to look at a gate after this; 0: no gate was ever shut. All that a call costs while none is.
    busy_until: AtomicU64,
    /// Until then answers are counted, to tell a stray refusal from the next one that is none.
    watched_until: AtomicU64,
    gates: Mutex<HashMap<u64, Gate>>,
    digest: RandomState,
    /// From one that is let go to the next, in nanoseconds.
    step: u64,
}

/// When a request may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Now,
    /// After so long; the place is taken.
    In(Duration),
    /// After longer than it may take; no place is taken.
    TooLate(Duration),
}

impl Gates {
    pub(crate) fn new(release: u32) -> Self {
        Self {
            start: OnceLock::new(),
            busy_until: AtomicU64::new(0),
            watched_until: AtomicU64::new(0),
            gates: Mutex::default(),
            digest: RandomState::new(),
            step: 100_000_000 / u64::from(release.max(1)),
        }
    }

    pub(crate) fn key(&self, parts: &Parts, model: Option<&str>) -> Key {
        let mut hasher = self.digest.build_hasher();
        parts.uri.scheme().hash(&mut hasher);
        parts.uri.authority().hash(&mut hasher);
        for name in IDENTITY {
            parts.headers.get(name).hash(&mut hasher);
        }
        // Gemini's key may stand in the query; whatever else does only makes more keys.
        parts.uri.query().hash(&mut hasher);
        model.hash(&mut hasher);
        Key(hasher.finish())
    }

    /// Whether any gate holds anybody up: without it no request needs a key.
    pub(crate) fn busy(&self) -> bool {
        self.is_before(&self.busy_until)
    }

    /// Whether there was a refusal not long ago: without it nobody has to tell what was served.
    pub(crate) fn watches(&self) -> bool {
        self.is_before(&self.watched_until)
    }

    fn is_before(&self, until: &AtomicU64) -> bool {
        let until = until.load(Relaxed);
        until > 0 && self.nanos(Instant::now()) < until
    }

    /// The provider refused, and nobody is to ask again before `wait` is over; `explained`: what it states of its
    /// limits says why.
    pub(crate) fn refused(
        &self,
        key: Key,
        now: Instant,
        wait: Duration,
        longest: Duration,
        explained: bool,
    ) {
        let now = self.nanos(now);
        let mut gates = self.lock();
        if gates.len() >= MOST && !gates.contains_key(&key.0) {
            gates.retain(|_, gate| !gate.is_open(now));
            if gates.len() >= MOST {
                // All hold somebody up; this one's callers each wait on their own.
                return;
            }
        }
        let gate = gates.entry(key.0).or_default();
        self.watched_until
            .fetch_max(now.saturating_add(WATCH), Relaxed);
        let taken = gate.opens_at(now);
        let (wait, longest) = (Some(narrow(wait)), narrow(longest));
        if explained {
            gate.refused(now, now, wait, longest);
        } else if !gate.refused_unexplained(now, now, wait, longest) {
            return;
        }
        if taken > gate.opens_at(now) {
            // The places up to there are taken; nobody gets one a second time.
            gate.pass(taken, 0);
        }
        self.busy_until.fetch_max(gate.opens_at(now), Relaxed);
    }

    /// An answer that is no refusal came to a request that was sent then; `stated`: it says what is left.
    pub(crate) fn served(&self, key: Key, sent: Instant, stated: bool) {
        let sent = self.nanos(sent);
        if let Some(gate) = self.lock().get_mut(&key.0) {
            gate.served(sent, stated);
        }
    }

    /// Takes a place behind all who wait already, if it may pass within `most`.
    pub(crate) fn place(&self, key: Key, now: Instant, most: Duration) -> Place {
        if !self.busy() {
            return Place::Now;
        }
        let now = self.nanos(now);
        let mut gates = self.lock();
        let Some(gate) = gates.get_mut(&key.0) else {
            return Place::Now;
        };
        let at = gate.opens_at(now);
        if at <= now {
            return Place::Now;
        }
        let wait = Duration::from_nanos(at - now);
        if wait > most {
            return Place::TooLate(wait);
        }
        gate.take_place(now, self.step);
        self.busy_until.fetch_max(gate.opens_at(now), Relaxed);
        Place::In(wait)
    }

    /// Whether the gate was shut again while somebody waited for his place.
    pub(crate) fn shut(&self, key: Key, now: Instant) -> bool {
        self.busy() && {
            let now = self.nanos(now);
            let gates = self.lock();
            gates
                .get(&key.0)
                .is_some_and(|gate| gate.shut_for(now).is_some())
        }
    }

    /// How many gates are shut, or let go one by one.
    pub(crate) fn count(&self, now: Instant) -> usize {
        if !self.busy() {
            return 0;
        }
        let now = self.nanos(now);
        self.lock()
            .values()
            .filter(|gate| !gate.is_open(now))
            .count()
    }

    fn nanos(&self, at: Instant) -> u64 {
        let start = *self.start.get_or_init(|| at);
        narrow(at.saturating_duration_since(start))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Gate>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn narrow(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Gates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gates")
            .field("keys", &self.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    fn parts(uri: &str, key: &str) -> Parts {
        let request = Request::post(uri).header("authorization", key).body(());
        request.unwrap().into_parts().0
    }

    #[test]
    fn origin_credential_and_model_make_the_key() {
        let gates = Gates::new(10);
        let key = |uri, credential, model| gates.key(&parts(uri, credential), Some(model));
        let one = key("https://a.example/v1/chat", "k1", "m");
        assert_eq!(one, key("https://a.example/v1/responses", "k1", "m"));
        assert_ne!(one, key("https://b.example/v1/chat", "k1", "m"));
        assert_ne!(one, key("https://a.example/v1/chat", "k2", "m"));
        assert_ne!(one, key("https://a.example/v1/chat", "k1", "n"));
        assert_ne!(
            one,
            Gates::new(10).key(&parts("https://a.example/v1/chat", "k1"), Some("m"))
        );
    }

    // R17
    #[tokio::test(start_paused = true)]
    async fn places_are_taken_one_after_another_and_none_twice() {
        let gates = Gates::new(10);
        let now = Instant::now();
        let key = Key(1);
        gates.refused(key, now, SECOND, MINUTE, false);
        let step = Duration::from_millis(10);
        assert_eq!(gates.place(key, now, MINUTE), Place::In(SECOND));
        assert_eq!(gates.place(key, now, MINUTE), Place::In(SECOND + step));
        // Another refusal of the same round takes nobody's place away.
        gates.refused(key, now, SECOND, MINUTE, false);
        assert_eq!(gates.place(key, now, MINUTE), Place::In(SECOND + 2 * step));
        assert_eq!(
            gates.place(key, now, SECOND),
            Place::TooLate(SECOND + 3 * step)
        );
        assert_eq!(gates.place(key, now, MINUTE), Place::In(SECOND + 3 * step));
        assert_eq!(gates.place(Key(2), now, MINUTE), Place::Now, "another key");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_open_again_is_forgotten_and_costs_nothing() {
        let gates = Gates::new(10);
        let now = Instant::now();
        for key in 0..MOST as u64 {
            gates.refused(Key(key), now, SECOND, MINUTE, false);
        }
        gates.refused(Key(u64::MAX), now, SECOND, MINUTE, false);
        assert_eq!(
            gates.place(Key(u64::MAX), now, MINUTE),
            Place::Now,
            "no room for its gate"
        );
        assert_eq!(gates.count(now), MOST);
        tokio::time::advance(2 * SECOND).await;
        assert!(!gates.busy());
        let now = Instant::now();
        gates.refused(Key(u64::MAX), now, SECOND, MINUTE, false);
        assert_eq!(gates.count(now), 1);
        assert_eq!(gates.lock().len(), 1, "idle ones are evicted");
    }
}
