//! A request among all others: who shuts the gate, who waits at it, and for how long.
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use tollgate_core::{
    call::WaitReason,
    clock,
    extensions::{GaveUp, GaveUpReason, Reason, Refused},
    wire::{
        estimate::Estimate,
        limits,
        outcome::{Outcome, Verdict},
    },
};

use crate::{
    WhenShut,
    decide::Decision,
    delay,
    gates::{Gates, Key, Place},
    run::Run,
};

/// What is left at least of a call's time when its wait is over.
const MOMENT: Duration = Duration::from_millis(1);

impl<S, C> Run<S, C> {
    /// What the others have to do with it: shuts the gate for them, and finds a place among them.
    pub(super) fn pace(
        &mut self,
        decision: Decision,
        verdict: &Verdict,
        headers: Option<&HeaderMap>,
        now: Instant,
    ) -> Decision {
        let shared = self.shared.clone();
        let policy = &shared.policy;
        let limited = matches!(
            verdict.outcome,
            Outcome::RateLimited {
                never_fits: false,
                ..
            }
        );
        let held = limited.then(|| self.call().gate_held()).flatten();
        if !limited {
            self.served(verdict, headers);
        }
        self.placed = false;
        let Decision::Retry {
            wait,
            reason,
            asked,
        } = decision
        else {
            // Not retried, but a fact about the key all the same; one beyond the cap holds up nobody, for who
            // asks then has his answer at once.
            let stated = delay::stated(verdict).filter(|(wait, _)| *wait <= policy.wait_cap);
            if let (true, None, Some((wait, _))) = (limited, held, stated) {
                self.shut(now, wait, headers);
            }
            return decision;
        };
        if let Some(budget) = &policy.retry_budget {
            if !budget.withdraw(now) {
                // There are no retries left for this one; all the more the others must not run into it.
                if let (true, None, Some((stated, _))) = (limited, held, delay::stated(verdict)) {
                    self.shut(now, stated, headers);
                }
                let empty = GaveUp::new(GaveUpReason::RetryBudgetEmpty);
                return Decision::GiveUp(empty.wait(wait));
            }
        }
        let queues = held
            .is_some_and(|shut| !shut.is_zero() && (reason == WaitReason::Backoff || shut >= wait));
        if queues {
            return Decision::Retry {
                wait: Duration::ZERO,
                reason: WaitReason::Queue,
                asked,
            };
        }
        let time_left = self.call().time_left(now);
        let wait = match reason {
            WaitReason::Backoff => wait,
            _ => {
                let spread = delay::spread(wait, fastrand::f64());
                // The jitter does not carry it to the deadline.
                time_left.map_or(spread, |left| {
                    spread.min(left.saturating_sub(MOMENT)).max(wait)
                })
            }
        };
        if limited && held.is_none() {
            self.shut(now, wait, headers);
        }
        match self.place(now, Duration::ZERO) {
            Place::Now => Decision::Retry {
                wait,
                reason,
                asked,
            },
            // Who waits longer for another reason than for the gate lets his place go by.
            Place::In(place) => Decision::Retry {
                wait: wait.max(place),
                reason: if limited || wait >= place {
                    reason
                } else {
                    WaitReason::Gate
                },
                asked,
            },
            Place::TooLate(wait) => {
                if let Some(budget) = &policy.retry_budget {
                    budget.refund();
                }
                let cap = self.call().max_queue_wait();
                let cap = cap.map_or(policy.wait_cap, |most| most.min(policy.wait_cap));
                let (reason, limit) = match time_left {
                    Some(left) if left <= cap => (GaveUpReason::WaitBeyondDeadline, left),
                    _ => (GaveUpReason::WaitBeyondCap, cap),
                };
                Decision::GiveUp(GaveUp::new(reason).wait(wait).limit(limit))
            }
        }
    }

    /// An answer that is no refusal for the rate: what is let go one by one may go faster.
    fn served(&self, verdict: &Verdict, headers: Option<&HeaderMap>) {
        let Some(gates) = self.shared.gates.as_ref().filter(|gates| gates.watches()) else {
            return;
        };
        // A server that fails says nothing of its limits.
        if verdict.outcome == Outcome::Ok {
            let states = |headers| !limits::from_headers(headers, clock::wall()).is_empty();
            gates.served(self.key(gates), self.sent, headers.is_some_and(states));
        }
    }

    /// Shuts the gate for all who share the key.
    fn shut(&self, now: Instant, wait: Duration, headers: Option<&HeaderMap>) {
        if self.elsewhere {
            // A fallback further in asked another model: the request's own key was not refused.
            return;
        }
        if let Some(gates) = &self.shared.gates {
            let key = self.key(gates);
            let explained = headers.is_some_and(|headers| {
                let limits = limits::from_headers(headers, clock::wall());
                delay::lacks(&limits, &Estimate::of(self.facts()))
            });
            gates.refused(key, now, wait, self.shared.policy.wait_cap, explained);
        }
    }

    /// Takes a place at the gate, after having waited for so long.
    fn place(&mut self, now: Instant, waited: Duration) -> Place {
        let Some(gates) = &self.shared.gates else {
            return Place::Now;
        };
        if !gates.busy() {
            return Place::Now;
        }
        let key = self.key(gates);
        if self.placed && !gates.shut(key, now) {
            // Its turn has come, whoever waits behind it.
            return Place::Now;
        }
        let call = self.call();
        let cap = self.shared.policy.wait_cap.saturating_sub(waited);
        let cap = call.max_queue_wait().map_or(cap, |most| cap.min(most));
        // A wait up to the very deadline leaves no time for an answer.
        let left = call.time_left(now).map(|left| left.saturating_sub(MOMENT));
        let place = gates.place(key, now, left.map_or(cap, |left| left.min(cap)));
        self.placed = matches!(place, Place::In(_));
        place
    }

    fn key(&self, gates: &Gates) -> Key {
        let request = self.request.as_ref().expect("the request was read");
        gates.key(&request.parts, request.facts.model.as_deref())
    }

    /// A first attempt is about to be sent, or a wait is over: how long it is still held up because others were
    /// refused.
    ///
    /// # Errors
    ///
    /// The refusal of a first attempt that would be held up for too long.
    pub(crate) fn held(&mut self, waited: Duration) -> Result<Option<Duration>, Refused> {
        match self.place(Instant::now(), waited) {
            Place::Now => Ok(None),
            Place::In(wait) => Ok(Some(wait)),
            // Who has been refused before has no answer any more to give back: he asks for a new one.
            Place::TooLate(_) if self.made > 0 => Ok(None),
            Place::TooLate(wait) => match self.shared.policy.when_shut {
                WhenShut::Pass => Ok(None),
                WhenShut::Refuse => {
                    self.shared.stats.refused();
                    let refused = Refused::new(Reason::WaitTooLong).limit("gate");
                    Err(refused.retry_after(wait))
                }
            },
        }
    }
}
