//! Which targets are left alone for a while, shared by all clones.
use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use tollgate_core::wire::outcome::Verdict;

use crate::{
    cooling::{Cooling, Pace, after},
    credential::KeyId,
    decide::report,
    news::News,
    pool::Load,
    snapshot::{HealthSnapshot, TargetSnapshot},
};

/// Most targets and keys that are remembered; of more the one that is due first is forgotten.
const MOST_KEPT: usize = 10_000;

/// Which targets are left alone for a while: the memory of a fallback, made first and passed in.
///
/// Clones share it, and it may be shared between stacks. A target that fails is left alone for 5 s,
/// then 10 s, and so on up to 5 min; when that time has passed one call, and no more, tries it. A
/// limited target is left alone as long as it says itself, at most 5 min. A key that was refused or
/// has no money left is dead for a minute. A cool-down is only ever extended, and ends with the
/// first answer of an attempt that began after the failure.
///
/// Where a request goes by its own key, the cool-down is for that key alone: the limit of one
/// tenant says nothing about another.
///
/// ```
/// use std::time::Duration;
/// use tollgate_fallback::{FallbackHealth, ModelChain, ModelFallbackLayer};
///
/// let health = FallbackHealth::new().cool_down(Duration::from_secs(1), Duration::from_secs(60));
/// let layer = ModelFallbackLayer::new(ModelChain::new(["gpt-5", "gpt-5-mini"])?).health(health.clone());
/// assert!(health.snapshot().targets.is_empty(), "all are served");
/// # Ok::<(), tollgate_fallback::InvalidChain>(())
/// ```
#[derive(Clone)]
pub struct FallbackHealth {
    shared: Arc<Shared>,
    pace: Pace,
}

#[derive(Default)]
struct Shared {
    /// Entries in both maps: nothing else is looked at while all is well.
    troubles: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    targets: HashMap<Slot, Cooling>,
    dead: HashMap<KeyId, Dead>,
    probes: u64,
    /// Of targets in pools.
    pub(crate) loads: HashMap<Slot, Load>,
    pub(crate) turns: u64,
    /// Targets by whatever key, of which was told that they are deprecated, and when.
    deprecated: HashMap<Slot, Instant>,
}

struct Dead {
    since: Instant,
    until: Instant,
}

/// What a cool-down is kept for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Slot {
    pub(crate) target: Option<Arc<str>>,
    pub(crate) model: Option<Arc<str>>,
    pub(crate) origin: u64,
    pub(crate) key: KeyId,
}

/// What became of an attempt, as far as others should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// It answered, if only to say no.
    Alive,
    /// It failed.
    Failed,
    /// It is limited; the wait that it stated.
    Limited(Option<Duration>),
    /// It does not exist.
    Gone,
    /// The key was refused.
    KeyRefused,
}

impl Slot {
    /// Whether it is the same model at the same place, by whatever key.
    fn is_as(&self, other: &Self) -> bool {
        (&self.target, &self.model, self.origin) == (&other.target, &other.model, other.origin)
    }
}

impl FallbackHealth {
    /// Nothing is known yet, so all are well.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            pace: Pace::default(),
        }
    }

    /// How long a target that failed is left alone: at first, and at most. Default 5 s and 5 min;
    /// each failed probe doubles it.
    #[must_use]
    pub fn cool_down(mut self, first: Duration, most: Duration) -> Self {
        self.pace.first = first;
        self.pace.most = most.max(first);
        self
    }

    /// How long a key is not used that was refused or has no money left, and a model that does not
    /// exist. Default 1 min.
    #[must_use]
    pub fn dead_for(mut self, time: Duration) -> Self {
        self.pace.dead = time;
        self
    }

    /// What is left alone now.
    #[must_use]
    pub fn snapshot(&self) -> HealthSnapshot {
        let now = Instant::now();
        let state = self.state();
        let mut targets: Vec<_> = state
            .targets
            .iter()
            .map(|(slot, cooling)| TargetSnapshot {
                target: slot.target.clone(),
                model: slot.model.clone(),
                state: cooling.state(now),
                since: cooling.since,
                next_probe: cooling.until,
                failures: cooling.failures,
                reason: cooling.reason.clone(),
            })
            .collect();
        let dead_keys = state.dead.values().filter(|dead| dead.until > now).count();
        let mut members: Vec<_> = state
            .loads
            .iter()
            .map(|(slot, load)| load.show(slot, now))
            .collect();
        drop(state);
        targets.sort_by(|a, b| (a.since, &a.model).cmp(&(b.since, &b.model)));
        members.sort_by(|a, b| a.left.total_cmp(&b.left));
        HealthSnapshot {
            targets,
            dead_keys,
            members,
        }
    }

    /// Whether nothing at all is in trouble.
    pub(crate) fn is_quiet(&self) -> bool {
        self.shared.troubles.load(Ordering::SeqCst) == 0
    }

    /// Until when a target is left alone; `None` if it may be tried.
    pub(crate) fn cooling_until(&self, slot: &Slot, now: Instant) -> Option<Instant> {
        let until = self.state().targets.get(slot)?.until;
        (until > now).then_some(until)
    }

    /// Until when a key is not used; `None` if it may be.
    pub(crate) fn dead_until(&self, key: KeyId, now: Instant) -> Option<Instant> {
        let until = self.state().dead.get(&key)?.until;
        (until > now).then_some(until)
    }

    /// Enters a target that may be tried: with nothing if it is well, else with the probe that
    /// this attempt is; until it is done, others stay away.
    ///
    /// `force`: enter it also before its time.
    ///
    /// # Errors
    ///
    /// Until when it is left alone.
    pub(crate) fn enter(
        &self,
        slot: &Slot,
        now: Instant,
        force: bool,
    ) -> Result<Option<Probe>, Instant> {
        if self.is_quiet() {
            return Ok(None);
        }
        let mut state = self.state();
        let number = state.probes;
        let Some(cooling) = state.targets.get_mut(slot) else {
            return Ok(None);
        };
        if cooling.until > now && !force {
            return Err(cooling.until);
        }
        cooling.begin_probe(number, now);
        state.probes += 1;
        Ok(Some(Probe {
            health: self.clone(),
            slot: slot.clone(),
            number,
        }))
    }

    /// Takes down how an attempt ended that began at `begun`, and says what is new.
    pub(crate) fn report(
        &self,
        slot: &Slot,
        verdict: &Verdict,
        begun: Instant,
        now: Instant,
    ) -> Option<News> {
        let report = report(verdict)?;
        if report == Report::Alive && self.is_quiet() {
            return None;
        }
        let mut state = self.state();
        let mut news = None;
        match report {
            Report::Alive => {
                // One that began before the failure tells of the time before it.
                let later = |failed: Instant| begun >= failed;
                if state.targets.get(slot).is_some_and(|c| later(c.failed)) {
                    state.targets.remove(slot);
                    news = Some(News::Back);
                }
                if state.dead.get(&slot.key).is_some_and(|d| later(d.since)) {
                    state.dead.remove(&slot.key);
                }
            }
            _ => {
                if report == Report::KeyRefused {
                    let until = after(now, self.pace.dead);
                    keep_within(&mut state.dead, |dead| dead.until, &slot.key);
                    let dead = state.dead.entry(slot.key);
                    let dead = dead.or_insert(Dead { since: now, until });
                    dead.since = now;
                    dead.until = until.max(dead.until);
                }
                keep_within(&mut state.targets, |cooling| cooling.until, slot);
                // Also told of another key: a thousand tenants need no thousand warnings.
                let told = report == Report::Gone
                    && state.targets.iter().any(|(s, c)| c.gone && s.is_as(slot));
                let well = !state.targets.contains_key(slot);
                let cooling = state.targets.entry(slot.clone());
                let cooling = cooling.or_insert_with(|| Cooling::new(now, &verdict.outcome));
                cooling.fail(report, begun, now, &self.pace);
                cooling.reason.clone_from(&verdict.outcome);
                news = match report {
                    Report::Gone => (!told).then_some(News::Gone),
                    _ => well.then_some(News::LeftAlone(cooling.until)),
                };
            }
        }
        let troubles = state.targets.len() + state.dead.len();
        self.shared.troubles.store(troubles, Ordering::SeqCst);
        news
    }

    /// A target says that it is deprecated; news the first time.
    pub(crate) fn deprecated(&self, slot: &Slot, now: Instant) -> Option<News> {
        let slot = Slot {
            key: KeyId::none(slot.origin),
            ..slot.clone()
        };
        let mut state = self.state();
        keep_within(&mut state.deprecated, |since| *since, &slot);
        let told = state.deprecated.insert(slot, now).is_some();
        (!told).then_some(News::Deprecated)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, so a poisoned one is as good as any.
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more, at the cost of the one that is due first.
pub(crate) fn keep_within<K: Clone + Eq + Hash, V, D: Ord>(
    map: &mut HashMap<K, V>,
    due: impl Fn(&V) -> D,
    key: &K,
) {
    if map.len() < MOST_KEPT || map.contains_key(key) {
        return;
    }
    let first = map.iter().min_by_key(|(_, value)| due(value));
    if let Some(first) = first.map(|(key, _)| key.clone()) {
        map.remove(&first);
    }
}

impl Default for FallbackHealth {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FallbackHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("FallbackHealth")
            .field("targets", &snapshot.targets)
            .field("dead_keys", &snapshot.dead_keys)
            .finish_non_exhaustive()
    }
}

/// An attempt that finds out whether a target is well again. Dropped without a report (the caller
/// left, a budget refused), it lets the next one try at once.
#[derive(Debug)]
pub(crate) struct Probe {
    health: FallbackHealth,
    slot: Slot,
    number: u64,
}

impl Drop for Probe {
    fn drop(&mut self) {
        let mut state = self.health.state();
        if let Some(cooling) = state.targets.get_mut(&self.slot) {
            cooling.give_back_probe(self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use tollgate_core::wire::outcome::Outcome;

    use super::*;

    fn slot(n: u64) -> Slot {
        Slot {
            target: None,
            model: None,
            origin: n,
            key: KeyId::none(n),
        }
    }

    fn broke() -> Verdict {
        Verdict::of(http::StatusCode::OK, Outcome::ServerError)
    }

    fn served() -> Verdict {
        Verdict::ok(http::StatusCode::OK)
    }

    // F15
    #[tokio::test(start_paused = true)]
    async fn of_two_that_come_together_one_is_the_probe() {
        let health = FallbackHealth::new();
        let begun = Instant::now();
        health.report(&slot(1), &broke(), begun, begun);
        let due = begun + Duration::from_secs(5);
        let first = health.enter(&slot(1), due, false);
        assert!(matches!(first, Ok(Some(_))));
        assert!(health.enter(&slot(1), due, false).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_before_the_failure_does_not_end_the_cool_down() {
        let health = FallbackHealth::new();
        let begun = Instant::now();
        let later = begun + Duration::from_secs(1);
        health.report(&slot(1), &broke(), begun, later);
        health.report(&slot(1), &served(), begun, later);
        assert!(health.cooling_until(&slot(1), later).is_some());
        health.report(&slot(1), &served(), later, later);
        assert!(health.cooling_until(&slot(1), later).is_none());
        assert!(health.is_quiet());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded() {
        let health = FallbackHealth::new();
        let now = Instant::now();
        let refused = Verdict::of(http::StatusCode::OK, Outcome::Unauthorized);
        for n in 0..MOST_KEPT as u64 + 10 {
            health.report(&slot(n), &refused, now, now);
        }
        let snapshot = health.snapshot();
        assert_eq!(
            (snapshot.targets.len(), snapshot.dead_keys),
            (MOST_KEPT, MOST_KEPT)
        );
    }
}
