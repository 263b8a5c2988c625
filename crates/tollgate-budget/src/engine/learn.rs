//! Limits that nobody told, read from the first answers.
//!
//! Headers state how much and how much is left, and not in what time. A bucket gives its period away: it is
//! `limit × reset / used`, the same in each answer. Where answers do not agree on that, the reset is a date and the
//! period is the shortest usual one that reaches it.
use super::{
    headers::{Stated, USUAL},
    rate::{Nanos, Rate, SECOND},
};
use crate::{charging::Cost, limit::Unit};

/// Answers that are heard before a period is settled on.
const ENOUGH: usize = 3;
/// Answers that taught nothing, after which there is nothing to wait for.
const SILENT: u32 = 16;
/// A reset further ahead is a mistake: no provider's limit is kept for longer than a month.
const LONGEST_RESET: Nanos = 32 * DAY;
/// No period is longer.
const LONGEST_PERIOD: Nanos = 366 * DAY;
const DAY: Nanos = 86_400 * SECOND;

#[derive(Clone, Debug)]
struct Candidate {
    unit: Unit,
    window: Option<Nanos>,
    periods: Vec<f64>,
    /// Of each answer that stated one.
    resets: Vec<Nanos>,
    heard: usize,
    settled: bool,
}

/// What the answers to one model's requests have taught.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learner {
    candidates: Vec<Candidate>,
    silent: u32,
    done: bool,
    /// What was used by requests that were over before it was done.
    pub(crate) over: Cost,
}

impl Learner {
    /// Whether enough is known to let more requests go.
    pub(crate) fn done(&self) -> bool {
        self.done
    }

    /// A request that was sent is over, and has cost this much.
    pub(crate) fn over(&mut self, cost: Cost) {
        if !self.done {
            self.over = self.over.plus(cost);
        }
    }

    /// Hears the headers of one answer, and gives the limits that are known now and were not before.
    pub(crate) fn hear(&mut self, seen: &[Stated], usual: Nanos) -> Vec<(Unit, Rate)> {
        let mut found = Vec::new();
        let mut taught = false;
        for stated in seen {
            let same = |c: &&mut Candidate| c.unit == stated.unit && c.window == stated.window;
            let candidate = match self.candidates.iter_mut().find(same) {
                Some(candidate) => candidate,
                None => {
                    if self.candidates.len() >= 8 {
                        continue;
                    }
                    self.candidates.push(Candidate {
                        unit: stated.unit,
                        window: stated.window,
                        periods: Vec::new(),
                        resets: Vec::new(),
                        heard: 0,
                        settled: false,
                    });
                    self.candidates.last_mut().expect("just pushed")
                }
            };
            if candidate.settled {
                continue;
            }
            taught = true;
            if let Some(period) = candidate.hear(stated, usual) {
                candidate.settled = true;
                let amount = stated.amount();
                found.push((stated.unit, Rate { amount, period }));
            }
        }
        // One that was stated once and never again is never settled: nobody waits for it for ever.
        self.silent += u32::from(!taught);
        let settled = !seen.is_empty() && self.candidates.iter().all(|candidate| candidate.settled);
        self.done |= settled || self.silent >= SILENT;
        found
    }
}

impl Candidate {
    fn hear(&mut self, stated: &Stated, usual: Nanos) -> Option<Nanos> {
        if let Some(window) = self.window {
            return Some(window.clamp(1_000_000, LONGEST_PERIOD));
        }
        self.heard += 1;
        if let Some((reset, _)) = stated.reset.filter(|&(reset, _)| reset <= LONGEST_RESET) {
            self.resets.push(reset);
            self.periods.extend(stated.bucket_period());
        }
        if self.heard < ENOUGH {
            return None;
        }
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 0.04;
        if let Some(&period) = self.periods.first() {
            if self.periods.len() >= ENOUGH && self.periods.iter().all(|&p| near(p, period)) {
                let usual = USUAL.iter().chain([&usual]);
                let known = usual.copied().find(|&p| near(period, p as f64));
                let period = known.unwrap_or_else(|| two_digits(period as Nanos));
                return Some(period.clamp(1_000_000, LONGEST_PERIOD));
            }
        }
        // One answer alone does not make it long: it may be a mistake, and it would hold for good.
        self.resets.sort_unstable();
        let longest = match self.resets[..] {
            [.., second, _] => second,
            [only] => only,
            [] => 0,
        };
        if longest <= usual.saturating_add(usual / 50) {
            return Some(usual);
        }
        let reaches = |&&p: &&Nanos| longest <= p + p / 50;
        let known = USUAL.iter().find(reaches).copied();
        Some(known.unwrap_or_else(|| two_digits(longest)))
    }
}

/// Rounded up to two digits: what several lanes measure of one limit is the same then.
fn two_digits(period: Nanos) -> Nanos {
    let digits = period.checked_ilog10().unwrap_or(0);
    let unit = 10u64.pow(digits.saturating_sub(1));
    period.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::{super::rate::SECOND, *};

    const MINUTE: Nanos = 60 * SECOND;

    fn stated(used: f64, reset: Nanos) -> [Stated; 1] {
        [Stated {
            unit: Unit::Requests,
            limit: 10_000.0,
            remaining: 10_000.0 - used,
            reset: Some((reset, 1_000_000)),
            window: None,
            parts: 1,
        }]
    }

    fn learn(answers: impl IntoIterator<Item = (f64, Nanos)>) -> Option<(Unit, Rate)> {
        let mut learner = Learner::default();
        let mut found = answers
            .into_iter()
            .flat_map(|(used, reset)| learner.hear(&stated(used, reset), MINUTE))
            .collect::<Vec<_>>();
        found.pop()
    }

    #[test]
    fn a_bucket_gives_its_period_away() {
        let day = learn([
            (1.0, 8640 * 1_000_000),
            (2.0, 17_280 * 1_000_000),
            (3.0, 25_920 * 1_000_000),
        ]);
        assert_eq!(day.unwrap().1.period, 86_400 * SECOND);
        let minute = learn([
            (100.0, 600_000_000),
            (200.0, 1_200_000_000),
            (90.0, 540_000_000),
        ]);
        assert_eq!(minute.unwrap().1.period, MINUTE);
    }

    #[test]
    fn a_rolling_window_is_as_long_as_its_resets_say() {
        let minute = learn([(1.0, MINUTE), (2.0, MINUTE - SECOND), (3.0, MINUTE)]);
        assert_eq!(minute.unwrap().1.period, MINUTE);
        let hour = learn([
            (1.0, 3500 * SECOND),
            (2.0, 3500 * SECOND),
            (3.0, 3400 * SECOND),
        ]);
        assert_eq!(hour.unwrap().1.period, 3600 * SECOND);
    }

    #[test]
    fn one_absurd_reset_does_not_make_a_limit_last_for_ever() {
        for absurd in [Nanos::MAX, 40 * DAY, DAY] {
            let odd = learn([(1.0, 57 * SECOND), (5.0, absurd), (9.0, 55 * SECOND)]);
            assert_eq!(odd.unwrap().1.period, MINUTE, "{absurd}");
        }
        let only = learn([(1.0, Nanos::MAX), (2.0, Nanos::MAX), (3.0, Nanos::MAX)]);
        assert_eq!(only.unwrap().1.period, MINUTE, "nothing else is known");
        // A bucket of which next to nothing was used.
        let slow = |used| (used, 20 * DAY);
        let bucket = learn([slow(1.0), slow(1.0), slow(1.0)]).unwrap().1;
        assert!(bucket.period <= 366 * DAY, "{bucket:?}");
    }

    #[test]
    fn a_limit_that_was_stated_once_and_never_again_is_not_waited_for() {
        let mut learner = Learner::default();
        let minute = stated(1.0, MINUTE)[0];
        let stray = Stated {
            unit: Unit::Tokens,
            ..minute
        };
        learner.hear(&[minute, stray], MINUTE);
        let mut answers = 1;
        while !learner.done() {
            learner.hear(&[minute], MINUTE);
            answers += 1;
            assert!(answers < 100, "it is waited for still");
        }
        assert!(answers >= ENOUGH, "{answers}");
    }

    #[test]
    fn one_answer_is_not_enough_and_silence_is_an_answer_in_the_end() {
        assert!(learn([(1.0, 8640 * 1_000_000)]).is_none());
        let mut learner = Learner::default();
        for _ in 0..SILENT {
            assert!(!learner.done());
            learner.hear(&[], MINUTE);
        }
        assert!(learner.done());
    }
}
