//! One refusal shuts the gate for all who share the key.
//!
//! A 429 is a fact about the key and not about one request: whoever else is sent before the stated wait is over will be
//! refused too, and refusals count. When the gate opens, those who waited do not all run at once, for that is the
//! next refusal: they are let through at a pace, until an answer has stated what is left, or a period has
//! passed. Answers that state nothing let the pace grow, and end it after a few.
//!
//! Some refusals are no fact about the key: a provider that is short of capacity refuses one in thirty and serves the
//! others that come at the same moment. One that nothing explains, among many that were served, holds only the request
//! that was refused ([`Gate::refused_unexplained`]); else the whole key would go at the pace of its strays.
//!
//! It is arithmetic alone: no clock, no lock. Times are nanoseconds from any one instant.
//!
//! ```
//! use tollgate_core::gate::Gate;
//!
//! const SECOND: u64 = 1_000_000_000;
//! let mut gate = Gate::default();
//! // Sent at 0 s, refused at 1 s with a wait of 5 s; no wait is longer than a minute.
//! gate.refused(SECOND, 0, Some(5 * SECOND), 60 * SECOND);
//! assert!(!gate.is_open(5 * SECOND));
//! assert!(gate.is_open(6 * SECOND));
//!
//! // The first one passes, the next a tenth of a second later.
//! gate.pass(6 * SECOND, SECOND / 10);
//! assert_eq!(gate.opens_at(6 * SECOND), 6 * SECOND + SECOND / 10);
//! // An answer that states what is left ends the pace.
//! gate.served(6 * SECOND, true);
//! assert!(gate.is_open(6 * SECOND));
//! ```

/// A second in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// A gate that a refusal shuts. Times are nanoseconds; see the [module docs](self).
#[derive(Clone, Debug, Default)]
pub struct Gate {
    open_at: u64,
    paced_until: u64,
    next: u64,
    refusals: u32,
    served: u32,
    /// The last answers, the latest in the lowest bit: 1 for a refusal.
    answers: u64,
    /// How many of them there are.
    known: u32,
}

/// Answers without a statement of what is left, after which the pace ends.
const ENOUGH: u32 = 16;
/// Of the last 64 answers and this one, fewer than these are refusals where they are strays.
const FEW: u32 = 4;

impl Gate {
    /// When a request may pass; not after `now` if it may at once.
    #[must_use]
    pub fn opens_at(&self, now: u64) -> u64 {
        if now < self.paced_until {
            self.open_at.max(self.next)
        } else {
            self.open_at
        }
    }

    /// Whether a request may pass at `now`.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        self.opens_at(now) <= now
    }

    /// Whether the last refusal is not forgotten yet: it is shut, or passes at a pace.
    #[must_use]
    pub fn is_careful(&self) -> bool {
        self.paced_until > 0
    }

    /// For how long it stays shut; `None` if it is open, also if only one at a time may pass.
    #[must_use]
    pub fn shut_for(&self, now: u64) -> Option<u64> {
        self.open_at.checked_sub(now).filter(|&left| left > 0)
    }

    /// A request passes; the next one may after `step`, while the pace is kept.
    pub fn pass(&mut self, now: u64, step: u64) {
        if now < self.paced_until {
            self.next = now.saturating_add(step / u64::from(1 + self.served));
        }
    }

    /// Gives out a place in the line before the gate, at [`opens_at`](Self::opens_at): the next one is `step` later,
    /// and the pace is kept until all of the line is through.
    ///
    /// ```
    /// # use tollgate_core::gate::Gate;
    /// # const SECOND: u64 = 1_000_000_000;
    /// let mut gate = Gate::default();
    /// gate.refused(0, 0, Some(SECOND), SECOND);
    /// let places: Vec<_> = (0..30).map(|_| gate.take_place(0, SECOND / 10)).collect();
    /// assert_eq!(places[0], SECOND);
    /// assert_eq!(places[29], SECOND + 29 * SECOND / 10);
    /// ```
    pub fn take_place(&mut self, now: u64, step: u64) -> u64 {
        let at = self.opens_at(now).max(now);
        self.next = at.saturating_add(step / u64::from(1 + self.served));
        self.paced_until = self.paced_until.max(self.next.saturating_add(1));
        at
    }

    /// The provider refused a request that was sent at `sent`, and said how long to wait, or nothing.
    ///
    /// A shorter wait never undoes a longer one, none counts for more than `longest`, and without a statement it is
    /// half a second, doubling with every round of refusals up to eight seconds; every answer that is served takes one
    /// doubling back.
    pub fn refused(&mut self, now: u64, sent: u64, wait: Option<u64>, longest: u64) {
        self.note(true);
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

    /// The same of a refusal that nothing which was stated explains. False: it is one of few among many that were served,
    /// and holds nobody but who was refused; the gate stays open.
    ///
    /// That takes 64 answers: with the fourth refusal among so many the gate is shut. While it is shut nothing is a stray.
    ///
    /// ```
    /// # use tollgate_core::gate::Gate;
    /// # const SECOND: u64 = 1_000_000_000;
    /// let mut gate = Gate::default();
    /// for _ in 0..64 {
    ///     gate.served(0, false);
    /// }
    /// let shut = [(); 4].map(|()| gate.refused_unexplained(0, 0, None, SECOND));
    /// assert_eq!(shut, [false, false, false, true]);
    ///
    /// let mut new = Gate::default();
    /// assert!(new.refused_unexplained(0, 0, None, SECOND), "nothing is known of the key");
    /// ```
    pub fn refused_unexplained(
        &mut self,
        now: u64,
        sent: u64,
        wait: Option<u64>,
        longest: u64,
    ) -> bool {
        let few = self.known == u64::BITS && self.answers.count_ones() + 1 < FEW;
        if few && self.shut_for(now).is_none() {
            self.note(true);
            return false;
        }
        self.refused(now, sent, wait, longest);
        true
    }

    fn note(&mut self, refused: bool) {
        self.answers = self.answers << 1 | u64::from(refused);
        self.known = (self.known + 1).min(u64::BITS);
    }

    /// An answer that is no refusal came for a request that was sent at `sent`; `stated`: it says what is left.
    pub fn served(&mut self, sent: u64, stated: bool) {
        self.note(false);
        if sent >= self.open_at && self.paced_until > 0 {
            self.served += 1;
            self.refusals = self.refusals.saturating_sub(1);
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
