//! The task that keeps a budget in step with its server.
//!
//! One visit at a time: what is due is asked and told together. The task ends when the budget, and all that it had
//! admitted, is gone; the last visit tells what was used of caps.
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use redis::{RedisError, Script};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};
use tollgate_budget::leases::{Gated, Grant, Leases, Order};
use tollgate_core::{clock::wall, principal::Principal};

use crate::{
    keys::{self, Keys},
    place::Place,
    remembered::Remembered,
    server::{Link, trouble},
    status::{Status, TARGET},
    trip::{Answer, Granted, Line, Trip, grain, micros},
};

/// How long after a failure the server is tried again: at first, and at most.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const MOST_RETRY: Duration = Duration::from_millis(1000);
/// A process shows itself so often, and hears of gates, also while it asks for nothing.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// And so often while it may be needed to tell what it was granted lately.
const LIVELY: Duration = Duration::from_secs(1);
/// The least by which two clocks may seem to differ.
const DRIFT: Duration = Duration::from_millis(10);
/// The longest that a start waits for others to tell.
const MOST_QUIET: Duration = Duration::from_secs(10);
/// A connection may take so many visits' time.
const LINK: u32 = 4;
/// Limits in the last visits.
const LAST: usize = 128;
/// Limits in one visit that only tells what is remembered, and grants of them.
const TELL: usize = 64;
const TELL_GRANTS: usize = 2048;
/// The most processes that were there in such a time count.
const LATELY: Duration = Duration::from_secs(60);
/// Refusals that wait to be told.
const MOST_GATES: usize = 16;
/// Models whose digests are kept.
const MOST_MODELS: usize = 16_384;

pub(crate) struct Driver {
    pub(crate) leases: Leases,
    pub(crate) place: Place,
    pub(crate) keys: Keys,
    pub(crate) script: Script,
    pub(crate) timeout: Duration,
    pub(crate) horizon: Duration,
    pub(crate) hold: Duration,
    pub(crate) spread: Duration,
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) holder: String,
    pub(crate) link: Option<Link>,
    /// This connection has been used; and its server was asked for its settings.
    pub(crate) known: bool,
    pub(crate) checked: bool,
    pub(crate) epoch: i64,
    pub(crate) server_time: i64,
    /// When it was visited last, how long that took, for how long it grants nothing, and when units were granted last.
    pub(crate) visited: Instant,
    pub(crate) took: Duration,
    pub(crate) quiet: Duration,
    pub(crate) granted: Option<Instant>,
    pub(crate) started: Instant,
    pub(crate) number: u64,
    pub(crate) remembered: Remembered,
    pub(crate) telling: Option<Telling>,
    /// The most that were there lately, and when that was.
    pub(crate) processes: (u32, Instant),
    /// Refusals that no visit has told yet, and when the gate opens.
    pub(crate) gates: Vec<(Gated, Instant)>,
    /// Those that gates may be named by.
    pub(crate) models: HashMap<String, Arc<str>>,
    /// Failures in a row, and when to try again.
    pub(crate) failures: u32,
    pub(crate) retry: Option<Instant>,
    /// Since when it is away, and how soon after a visit the server was told that the next one would come.
    pub(crate) down: Option<Instant>,
    pub(crate) promised: Duration,
    /// Who wants the budget to be closed.
    pub(crate) closers: mpsc::Receiver<Closer>,
}

/// Hears whether the server was told.
pub(crate) type Closer = oneshot::Sender<bool>;

/// What is still to be told of an epoch: it goes on from there where it broke off.
pub(crate) struct Telling {
    epoch: i64,
    rest: Vec<(String, Line)>,
}

/// Why a visit failed.
enum Failure {
    Late,
    Server(RedisError),
    /// It loses its state faster than it is told.
    Restless,
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Server(error)
    }
}

impl Failure {
    fn text(&self) -> &'static str {
        match self {
            Self::Late => "it does not answer in time",
            Self::Server(error) => trouble(error),
            Self::Restless => "it loses its state again and again",
        }
    }
}

impl Driver {
    /// The first visit: the server is known, or known to be away, before the first request comes.
    pub(crate) async fn begin(&mut self) {
        self.leases.share_among(self.processes.0);
        self.lock().processes = self.processes.0;
        self.visit(Vec::new(), false).await;
        self.check().await;
        if self.retry.is_none() {
            sleep(self.quiet.min(MOST_QUIET)).await;
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            if let Ok(closer) = self.closers.try_recv() {
                self.close(closer).await;
            }
            let Some(todo) = self.leases.collect() else {
                break;
            };
            let now = Instant::now();
            let gates = todo.gated.into_iter();
            self.gates
                .extend(gates.map(|gate| (gate.clone(), now + gate.wait)));
            self.gates.retain(|&(_, opens)| opens > now);
            self.gates.truncate(MOST_GATES);
            let waits = self.retry.is_some_and(|at| at > now);
            let beat = self.visited + self.beat(now).min(self.promised);
            let beats = beat <= now;
            let news = !self.gates.is_empty() || self.retry.is_some();
            if waits {
                for order in &todo.orders {
                    self.leases.failed(order);
                }
            } else if news || beats || !todo.orders.is_empty() {
                self.visit(todo.orders, false).await;
                self.check().await;
                // Something may be due by now.
                continue;
            }
            let until = match (self.retry, todo.due) {
                (Some(at), _) => at,
                (None, Some(due)) => due.min(beat),
                (None, None) => beat,
            };
            if let Some(closer) = self.rests(until).await {
                self.close(closer).await;
            }
        }
        let last = self.leases.last();
        if self.retry.is_none() {
            self.tell_all(last, true).await;
        }
    }

    /// How long after a visit the next one is made at the latest: soon while the others may need what is remembered here.
    fn beat(&self, now: Instant) -> Duration {
        let buys = self.granted.is_some_and(|at| at + HEARTBEAT > now);
        let passed = now.saturating_duration_since(self.visited).as_micros();
        let server_time = self
            .server_time
            .saturating_add(i64::try_from(passed).unwrap_or(i64::MAX));
        // Who is new has much to hear: there may be others as new.
        let young = self.started + 2 * HEARTBEAT > now;
        if buys || young || self.remembered.needed() > server_time {
            self.lively()
        } else {
            HEARTBEAT
        }
    }

    /// Until then, or until it rings, or somebody wants it closed.
    async fn rests(&mut self, until: Instant) -> Option<Closer> {
        let mut rings = pin!(timeout_at(until, self.leases.rings()));
        poll_fn(|cx| {
            // `None`: the last handle is gone, which the next to be collected shows.
            if let Poll::Ready(Some(closer)) = self.closers.poll_recv(cx) {
                return Poll::Ready(Some(closer));
            }
            rings.as_mut().poll(cx).map(|_| None)
        })
        .await
    }

    async fn close(&mut self, closer: Closer) {
        let left = self.leases.close();
        let told = self.tell_all(left, false).await;
        // Who has gone needs no answer.
        let _ = closer.send(told);
    }

    /// Tells all of it, also if the server is thought to be away; whether it has heard.
    async fn tell_all(&mut self, mut left: Vec<Order>, bye: bool) -> bool {
        loop {
            let rest = left.split_off(left.len().min(LAST));
            let told = self.visit(left, bye && rest.is_empty()).await;
            if !told {
                rest.iter().for_each(|order| self.leases.failed(order));
            }
            if !told || rest.is_empty() {
                return told;
            }
            left = rest;
        }
    }

    /// Whoever holds units for long shows itself less often; then all wait longer for those who remember.
    fn lively(&self) -> Duration {
        LIVELY.max(self.hold).min(HEARTBEAT)
    }

    /// After a loss nothing is granted for so long: all who are there, and those who thought that it was away, come by.
    fn patience(&self) -> Duration {
        let back = MOST_RETRY + self.timeout * 2;
        self.lively().mul_f64(1.5).max(back)
    }

    async fn visit(&mut self, orders: Vec<Order>, bye: bool) -> bool {
        let mut named: Vec<_> = orders
            .iter()
            .map(|order| {
                let name = Keys::limit(order);
                let mut line = Line::new(order, self.spread);
                line.known = self.remembered.knows(&name);
                (name, line)
            })
            .collect();
        let gates = std::mem::take(&mut self.gates);
        let asked = Instant::now();
        let known = self.link.is_some();
        let done = match self.ask(&named, &gates, bye).await {
            // A connection that broke while nobody looked is no outage yet. A good-bye may have been heard all the same.
            Err(Failure::Server(error)) if known && !bye && error.is_connection_dropped() => {
                self.link = None;
                named.iter_mut().for_each(|(_, line)| line.told_before());
                self.ask(&named, &gates, bye).await
            }
            done => done,
        };
        match done {
            Ok(answer) => {
                self.is_up();
                self.take(&orders, &named, &answer, asked);
                true
            }
            Err(failure) => {
                self.gates = gates;
                // First of all, or who waits would ask again.
                self.is_down(&failure, asked);
                for order in &orders {
                    self.leases.failed(order);
                }
                false
            }
        }
    }

    /// Asks, and tells what is remembered if that is asked for.
    async fn ask(
        &mut self,
        named: &[(String, Line)],
        gates: &[(Gated, Instant)],
        bye: bool,
    ) -> Result<Answer, Failure> {
        if self.link.is_none() {
            // Several round trips, and nobody waits for it but the start.
            let link = timeout(self.timeout * LINK, self.place.link(self.timeout)).await;
            self.link = Some(link.map_err(|_| Failure::Late)??);
            (self.known, self.checked) = (false, false);
        }
        for _ in 0..3 {
            let purpose = if bye { Purpose::Bye } else { Purpose::Buy };
            let answer = self.send(named, gates, purpose).await?;
            if !answer.remember {
                return Ok(answer);
            }
            self.tell(&answer).await?;
        }
        Err(Failure::Restless)
    }

    /// Tells all that is remembered, in parts.
    async fn tell(&mut self, asked: &Answer) -> Result<(), Failure> {
        let broken_off = self.telling.take().filter(|t| t.epoch == asked.epoch);
        let mut telling = broken_off.unwrap_or_else(|| {
            tracing::info!(target: TARGET, "the server has lost some of its state; it is told what this process knows");
            Telling {
                epoch: asked.epoch,
                rest: self.remembered.told(asked.since),
            }
        });
        loop {
            let part = telling.part();
            let more = part < telling.rest.len();
            let purpose = Purpose::Tell {
                epoch: telling.epoch,
                more,
            };
            // Also with nothing to tell: this epoch is known then.
            match self.send(&telling.rest[..part], &[], purpose).await {
                // By now there is another one.
                Ok(heard) if heard.remember => return Ok(()),
                Ok(heard) if !more => {
                    self.heard(&heard, Instant::now());
                    return Ok(());
                }
                Ok(_) => {
                    telling.rest.drain(..part);
                }
                Err(failure) => {
                    self.telling = Some(telling);
                    return Err(failure);
                }
            }
        }
    }

    async fn send(
        &mut self,
        named: &[(String, Line)],
        gates: &[(Gated, Instant)],
        purpose: Purpose,
    ) -> Result<Answer, Failure> {
        self.number += 1;
        // The server's time then was not before it was asked; now it may be as much later as the question takes.
        let asked = Instant::now();
        let passed = asked.saturating_duration_since(self.visited) + self.took + DRIFT;
        let passed = passed.mul_f64(1.0001);
        let wall = wall().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let quiet = self.patience();
        self.promised = self.beat(asked);
        let bye = matches!(purpose, Purpose::Bye);
        let trip = Trip {
            h: &self.holder,
            e: self.epoch,
            t: self.server_time,
            p: micros(passed),
            a: match purpose {
                Purpose::Tell { epoch, .. } => epoch,
                _ => 0,
            },
            s: self.number,
            wall: wall.map_or(0, |wall| u64::try_from(wall.as_micros()).unwrap_or(0)),
            horizon: micros(self.horizon),
            quiet: micros(quiet),
            new: !self.known,
            down: self
                .down
                .map(|down| micros(asked.saturating_duration_since(down))),
            beat: (!bye && self.promised < HEARTBEAT)
                .then(|| micros(self.promised.mul_f64(1.5) + self.timeout * 2)),
            more: matches!(purpose, Purpose::Tell { more: true, .. })
                .then(|| micros(self.timeout * 2)),
            bye,
            g: gates
                .iter()
                .map(|(gate, opens)| {
                    let wait = opens.saturating_duration_since(asked);
                    (lane(gate), micros(wait))
                })
                .collect(),
            o: named.iter().map(|(_, line)| line.clone()).collect(),
        };
        let keys = self.keys.of(named.iter().map(|(name, _)| &**name));
        let Some(link) = &mut self.link else {
            return Err(Failure::Late);
        };
        let visit = link.visit(&self.script, &keys, &trip);
        let answer = timeout(self.timeout, visit)
            .await
            .map_err(|_| Failure::Late)??;
        self.known = true;
        self.lock().trips += 1;
        self.took = asked.elapsed();
        if !answer.remember && !matches!(purpose, Purpose::Tell { .. }) {
            self.heard(&answer, asked);
        }
        Ok(answer)
    }

    fn heard(&mut self, answer: &Answer, asked: Instant) {
        self.epoch = answer.epoch;
        self.server_time = answer.now;
        self.visited = asked;
        self.quiet = answer.quiet;
        let (most, at) = self.processes;
        if answer.processes >= most || at + LATELY <= asked {
            self.processes = (answer.processes.max(1), asked);
        }
        if self.processes.0 != most {
            self.lock().processes = self.processes.0;
            self.leases.share_among(self.processes.0);
        }
    }

    fn take(
        &mut self,
        orders: &[Order],
        named: &[(String, Line)],
        answer: &Answer,
        asked: Instant,
    ) {
        let mut looked_up = false;
        for (lane, wait) in &answer.gates {
            if let Some(gated) = self.gated(lane, *wait, &mut looked_up) {
                self.leases.shut(&gated);
            }
        }
        let now = Instant::now();
        let mut parts = answer.granted.iter();
        for (order, (name, line)) in orders.iter().zip(named) {
            let Some(part) = parts.next() else {
                self.leases.failed(order);
                continue;
            };
            self.remembered.granted(name, line, part, answer.now);
            if part.units > 0 {
                self.granted = Some(now);
            }
            let mut grant = grant(order, part, asked, now);
            grant.holders = self.processes.0;
            self.leases.granted(order, grant);
        }
    }

    /// The gate of that name on the server; `None`: of a model that nobody has asked for here. All digests are made anew once
    /// in a visit.
    fn gated(&mut self, lane: &str, wait: Duration, looked_up: &mut bool) -> Option<Gated> {
        let (key, model) = match lane.split_once('/') {
            Some((key, model)) => (key, Some(model)),
            None => (lane, None),
        };
        let unknown = model.is_some_and(|model| !self.models.contains_key(model));
        if unknown && !std::mem::replace(looked_up, true) {
            self.models.clear();
            let models = self.leases.models().into_iter().take(MOST_MODELS);
            self.models
                .extend(models.map(|model| (keys::model(&model), model)));
        }
        let model = match model {
            Some(model) => Some(Arc::clone(self.models.get(model)?)),
            None => None,
        };
        let key = match key {
            "" => None,
            key => Some(Principal::from_digest(u64::from_str_radix(key, 16).ok()?)),
        };
        Some(Gated::new(model, key, wait))
    }

    fn is_up(&mut self) {
        self.failures = 0;
        (self.retry, self.down) = (None, None);
        let was_down = {
            let mut status = self.lock();
            status.down.take().is_some()
        };
        if was_down {
            tracing::info!(target: TARGET, "the shared budget's server is back");
            self.leases.outage(false);
        }
    }

    fn is_down(&mut self, failure: &Failure, asked: Instant) {
        self.link = None;
        self.down.get_or_insert(asked);
        let wait = FIRST_RETRY
            .saturating_mul(1 << self.failures.min(8))
            .min(MOST_RETRY);
        self.failures = self.failures.saturating_add(1);
        // Many processes lose it at the same time.
        self.retry = Some(Instant::now() + wait.mul_f64(0.75 + fastrand::f64() / 4.0));
        let was_up = {
            let mut status = self.lock();
            status.failures += 1;
            status.down.replace(failure.text()).is_none()
        };
        if was_up {
            tracing::warn!(target: TARGET, { tollgate.reason = failure.text() }, "the shared budget's server is not to be had");
            self.leases.outage(true);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks once what the server of this connection does when its memory is full.
    async fn check(&mut self) {
        if std::mem::replace(&mut self.checked, true) {
            return;
        }
        let Some(link) = &mut self.link else {
            self.checked = false;
            return;
        };
        let Ok(policy) = timeout(self.timeout, link.maxmemory_policy()).await else {
            return;
        };
        if let Some(policy) = policy {
            let before = self.lock().maxmemory_policy.replace((*policy).into());
            if policy != "noeviction" && before.as_deref() != Some(&*policy) {
                tracing::warn!(
                    target: TARGET,
                    { tollgate.maxmemory_policy = policy },
                    "the server may evict the budget's state when its memory is full; set maxmemory-policy to noeviction",
                );
            }
        }
    }
}

/// What a visit is for.
#[derive(Clone, Copy)]
enum Purpose {
    Buy,
    /// What is remembered is told for this epoch.
    Tell {
        epoch: i64,
        more: bool,
    },
    Bye,
}

impl Telling {
    /// So many limits are told in the next visit.
    fn part(&self) -> usize {
        let mut grants = 0;
        let fits = |(_, line): &&(String, Line)| {
            grants += line.size();
            grants <= TELL_GRANTS
        };
        let part = self.rest.iter().take(TELL).take_while(fits).count();
        // One that is too large for any goes alone.
        part.max(1).min(self.rest.len())
    }
}

/// Without it nothing is bought any more: the budget does as without a server, and nobody waits for it.
impl Drop for Driver {
    fn drop(&mut self) {
        self.lock().down = Some("its task has ended");
        self.leases.outage(true);
    }
}

/// Units may be used from the server's date on, and the answer may have been on its way since then; they end a hold
/// after the date, and the question may have been on its way until then.
fn grant(order: &Order, part: &Granted, asked: Instant, now: Instant) -> Grant {
    let mut grant = Grant::default();
    grant.units = part.units.saturating_mul(grain(order));
    grant.usable = Some((now + part.wait, asked + part.wait + order.hold));
    grant.date = part.date;
    grant.back = (!part.back.is_zero()).then(|| now + part.back);
    grant.share = (part.share > 0.0).then(|| part.share * grain(order) as f64);
    grant
}

/// A gate's name on the server: the key's digest, and the model's.
fn lane(gated: &Gated) -> String {
    let key = gated.api_key.map(|key| key.to_string()).unwrap_or_default();
    match &gated.model {
        Some(model) => format!("{key}/{}", keys::model(model)),
        None => key,
    }
}
