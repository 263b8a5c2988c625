//! One refusal shuts the gate for all who share the key.
//!
//! A 429 is a fact about the key and not about one request: whoever else is sent before the stated wait is over will be
//! refused too, and refusals count. When the gate opens, those who waited do not all run at once, for that is the
//! next refusal: they are let through at the limit's own pace, until an answer has stated what is left, or a period has
//! passed. Answers that state nothing let the pace grow, and end it after a few.
use super::rate::{Nanos, SECOND};

/// A gate that a refusal shuts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    open_at: Nanos,
    paced_until: Nanos,
    next: Nanos,
    refusals: u32,
    served: u32,
}

/// Answers without a statement of what is left, after which the pace ends.
const ENOUGH: u32 = 16;

impl Gate {
    /// When a request may pass.
    pub(crate) fn opens_at(&self, now: Nanos) -> Nanos {
        if now < self.paced_until {
            self.open_at.max(self.next)
        } else {
            self.open_at
        }
    }

    pub(crate) fn is_open(&self, now: Nanos) -> bool {
        self.opens_at(now) <= now
    }

    /// For how long it stays shut.
    pub(crate) fn shut_for(&self, now: Nanos) -> Option<Nanos> {
        self.open_at.checked_sub(now).filter(|&left| left > 0)
    }

    /// A request passes; the next one may after `step`, while the pace is kept.
    pub(crate) fn pass(&mut self, now: Nanos, step: Nanos) {
        if now < self.paced_until {
            self.next = now.saturating_add(step / u64::from(1 + self.served));
        }
    }

    /// The provider refused, and said how long to wait, or nothing. A shorter wait never undoes a longer one.
    pub(crate) fn refused(&mut self, now: Nanos, sent: Nanos, wait: Option<Nanos>, longest: Nanos) {
        // One round of refusals counts once, however many were on their way.
        if sent >= self.open_at {
            self.refusals = self.refusals.saturating_add(1);
        }
        let unstated = (SECOND / 2) << self.refusals.saturating_sub(1).min(4);
        let wait = wait.filter(|&wait| wait > 0).unwrap_or(unstated);
        let open_at = now.saturating_add(wait.min(longest));
        self.open_at = self.open_at.max(open_at);
        self.paced_until = self.open_at.saturating_add(longest);
        self.next = self.open_at;
        self.served = 0;
    }

    /// An answer that is no refusal came for a request that was sent then; `stated`: it says what is left.
    pub(crate) fn served(&mut self, sent: Nanos, stated: bool) {
        if sent >= self.open_at && self.paced_until > 0 {
            self.served += 1;
            if stated || self.served >= ENOUGH {
                self.paced_until = 0;
                self.refusals = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_wait_never_undoes_a_longer_one() {
        let mut gate = Gate::default();
        gate.refused(0, 0, Some(5 * SECOND), 60 * SECOND);
        gate.refused(0, 0, Some(SECOND), 60 * SECOND);
        assert_eq!(gate.opens_at(0), 5 * SECOND);
    }

    #[test]
    fn a_hint_of_hours_is_cut_to_the_period() {
        let mut gate = Gate::default();
        gate.refused(0, 0, Some(86_400 * SECOND), 60 * SECOND);
        assert_eq!(gate.opens_at(0), 60 * SECOND);
    }

    #[test]
    fn the_release_is_paced_until_an_answer_shows_that_the_provider_takes_requests_again() {
        let mut gate = Gate::default();
        gate.refused(0, 0, Some(SECOND), 60 * SECOND);
        assert!(gate.is_open(SECOND));
        gate.pass(SECOND, SECOND / 10);
        assert_eq!(gate.opens_at(SECOND), SECOND + SECOND / 10);
        gate.served(0, true);
        assert!(!gate.is_open(SECOND), "sent before the gate was shut");
        gate.served(SECOND, true);
        assert!(gate.is_open(SECOND));
    }

    #[test]
    fn without_a_stated_wait_it_backs_off_once_a_round() {
        let mut gate = Gate::default();
        for _ in 0..100 {
            gate.refused(SECOND, 0, None, 60 * SECOND);
        }
        assert_eq!(gate.opens_at(SECOND), SECOND + SECOND / 2);
        gate.refused(3 * SECOND, 2 * SECOND, None, 60 * SECOND);
        assert_eq!(gate.opens_at(3 * SECOND), 4 * SECOND);
    }
}
