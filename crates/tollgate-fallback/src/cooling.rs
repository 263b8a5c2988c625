//! The arithmetic of one cool-down.
use std::time::Duration;

use tokio::time::Instant;
use tollgate_core::wire::outcome::Outcome;

use crate::{TargetState, health::Report};

/// How long to stay away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) first: Duration,
    pub(crate) most: Duration,
    pub(crate) dead: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(5),
            most: Duration::from_secs(300),
            dead: Duration::from_secs(60),
        }
    }
}

/// `wait` after `now`; decades, where a setting is too long to be added.
pub(crate) fn after(now: Instant, wait: Duration) -> Instant {
    let decades = Duration::from_secs(30 * 365 * 86_400);
    now + wait.min(decades)
}

/// A target that failed.
#[derive(Clone, Debug)]
pub(crate) struct Cooling {
    /// The first failure of the row.
    pub(crate) since: Instant,
    /// The latest failure.
    pub(crate) failed: Instant,
    /// Nobody tries it before; only ever later, until a probe is given back.
    pub(crate) until: Instant,
    pub(crate) failures: u32,
    /// It was found not to exist, at some time since.
    pub(crate) gone: bool,
    pub(crate) reason: Outcome,
    key_refused: bool,
    interval: Duration,
    /// The probe under way, and when it was due.
    probe: Option<(u64, Instant)>,
}

impl Cooling {
    pub(crate) fn new(now: Instant, reason: &Outcome) -> Self {
        Self {
            since: now,
            failed: now,
            until: now,
            failures: 0,
            gone: false,
            reason: reason.clone(),
            key_refused: false,
            interval: Duration::ZERO,
            probe: None,
        }
    }

    pub(crate) fn fail(&mut self, report: Report, begun: Instant, now: Instant, pace: &Pace) {
        // Attempts that were under way together fail together: that is one failure, not a hundred.
        let in_a_row = self.failures == 0 || begun > self.failed;
        if in_a_row {
            self.failures = self.failures.saturating_add(1);
        }
        self.gone |= report == Report::Gone;
        self.key_refused = report == Report::KeyRefused;
        let wait = match report {
            Report::Limited(Some(stated)) => stated.min(pace.most),
            Report::Gone | Report::KeyRefused => pace.dead,
            _ => {
                if self.interval.is_zero() {
                    self.interval = pace.first;
                } else if in_a_row {
                    self.interval = self.interval.saturating_mul(2).min(pace.most);
                }
                self.interval
            }
        };
        self.failed = now;
        self.probe = None;
        // A shorter wait, stated later, takes nothing back.
        self.until = self.until.max(after(now, wait));
    }

    /// One call tries it; the others stay away as long as they would if it failed now.
    pub(crate) fn begin_probe(&mut self, number: u64, now: Instant) {
        let away = self.interval.max(Duration::from_secs(1));
        self.probe = Some((number, self.until.min(now)));
        self.until = self.until.max(after(now, away));
    }

    /// The probe has found nothing out.
    pub(crate) fn give_back_probe(&mut self, number: u64) {
        if let Some((_, due)) = self.probe.take_if(|(probe, _)| *probe == number) {
            self.until = due;
        }
    }

    pub(crate) fn state(&self, now: Instant) -> TargetState {
        if self.probe.is_some() {
            TargetState::Probing
        } else if self.until <= now {
            TargetState::Due
        } else if self.key_refused {
            TargetState::CredentialDead
        } else if self.reason == Outcome::ModelGone {
            TargetState::Gone
        } else {
            TargetState::CoolingDown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn failed(times: u32) -> (Cooling, Instant) {
        let pace = Pace::default();
        let mut now = Instant::now();
        let mut cooling = Cooling::new(now, &Outcome::ServerError);
        for _ in 0..times {
            now = now.max(cooling.until);
            cooling.fail(Report::Failed, now, now, &pace);
        }
        (cooling, now)
    }

    #[test]
    fn each_failed_probe_doubles_the_cool_down_up_to_five_minutes() {
        for (times, secs) in [(1, 5), (2, 10), (3, 20), (7, 300), (40, 300)] {
            let (cooling, now) = failed(times);
            assert_eq!(cooling.until - now, secs * S, "after {times}");
        }
    }

    // F16
    #[test]
    fn a_second_failure_extends_the_deadline_and_a_shorter_statement_does_not_shorten_it() {
        let (mut cooling, now) = failed(1);
        let pace = Pace::default();
        cooling.fail(Report::Failed, now + S, now + 2 * S, &pace);
        let extended = cooling.until;
        assert!(extended > now + 7 * S, "{extended:?}");
        cooling.fail(Report::Limited(Some(S)), now + 2 * S, now + 3 * S, &pace);
        assert_eq!(cooling.until, extended);
    }

    #[test]
    fn failures_that_were_under_way_together_count_once() {
        let (mut cooling, now) = failed(1);
        let begun = now - S;
        for _ in 0..100 {
            cooling.fail(Report::Failed, begun, now + S, &Pace::default());
        }
        assert_eq!((cooling.failures, cooling.until), (1, now + 6 * S));
    }

    #[test]
    fn a_hostile_wait_is_cut_at_the_longest_cool_down() {
        let now = Instant::now();
        let mut cooling = Cooling::new(now, &Outcome::Overloaded);
        let forever = Report::Limited(Some(Duration::MAX));
        cooling.fail(forever, now, now, &Pace::default());
        assert_eq!(cooling.until, now + 300 * S);
    }

    #[test]
    fn a_probe_that_is_given_back_may_be_made_at_once() {
        let (mut cooling, now) = failed(1);
        let due = cooling.until;
        cooling.begin_probe(1, due);
        assert!(cooling.until > due && cooling.state(due) == TargetState::Probing);
        cooling.give_back_probe(1);
        assert_eq!((cooling.until, cooling.state(due)), (due, TargetState::Due));
        assert!(due > now);
    }
}
