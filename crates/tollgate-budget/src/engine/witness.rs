//! What does the provider charge? What the headers of lone requests show.
//!
//! A budget begins with the rule that the profile states. Two requests that were each alone at the provider, one after
//! the other, let that be checked: the second one's `used` is the first one's, less what has come back of it, plus its
//! own charge. Each rule that may hold predicts a figure, under a counter that does not refill between them and under
//! one that does, and the one that comes true has a vote.
//!
//! * A rule that charges **less** than what is reserved needs four votes in a row, and each of them with a difference
//!   that cannot be taken for rounding. A wrong change is paid with refusals; waiting for proof costs throughput.
//! * One that charges **more** is followed at once.
//! * A refusal while less is reserved than the profile says undoes the change, and twice as many votes are needed then.
//!
//! Strangers on the key change `used` too, but not four times in a row by what a rule predicts.
use super::rate::{Nanos, Rate};
use crate::charging::Cost;

/// Votes in a row for a rule that charges less.
const ENOUGH: u32 = 4;
const MOST_NEEDED: u32 = 64;

/// What the provider is seen to charge, where that is not what the profile says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Charged {
    /// Prompt and output cap together, and nothing comes back.
    Sum,
    /// The larger of the prompt and the output cap, and nothing comes back.
    Larger,
    /// The prompt, and nothing for the output.
    Prompt,
    /// Prompt and output cap, put right by the real usage when the answer has ended.
    Settles,
}

const RULES: [Charged; 4] = [
    Charged::Sum,
    Charged::Larger,
    Charged::Prompt,
    Charged::Settles,
];

impl Charged {
    /// Units of tokens on arrival.
    fn on_arrival(self, cost: &Cost) -> u64 {
        match self {
            Self::Sum | Self::Settles => cost.input.saturating_add(cost.output),
            Self::Larger => cost.input.max(cost.output),
            Self::Prompt => cost.input,
        }
    }

    /// How much room it leaves: a rule with a larger number never needs more than one with a smaller.
    fn room(self) -> u8 {
        match self {
            Self::Sum => 0,
            Self::Larger | Self::Settles => 1,
            Self::Prompt => 2,
        }
    }
}

/// What is kept of a request that was alone.
#[derive(Clone, Copy, Debug)]
struct Before {
    ticket: u64,
    turn: u64,
    arrival: Nanos,
    used: u64,
    cost: Cost,
    /// Its real usage, input and output together, when it is known.
    actual: Option<u64>,
}

/// A lone request's answer, as it stands in the headers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lone {
    pub(crate) ticket: u64,
    /// How many had been sent with it.
    pub(crate) turn: u64,
    pub(crate) arrival: Nanos,
    pub(crate) used: u64,
    /// As the profile states it.
    pub(crate) cost: Cost,
    /// Nothing of ours was in the books before it.
    pub(crate) first: bool,
}

/// A change of mind, to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) charged: Charged,
    /// Back to what the profile says.
    pub(crate) as_told: bool,
}

/// The case, for one model.
#[derive(Clone, Debug)]
pub(crate) struct Witness {
    before: Option<Before>,
    /// For each of [`RULES`].
    votes: [u32; 4],
    needed: u32,
    verdict: Option<Charged>,
    /// What is charged beside the prompt's estimate: a little for each message.
    extra: u64,
    /// Lone answers that showed another charge than the profile's.
    pub(crate) mismatches: u64,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            before: None,
            votes: [0; 4],
            needed: ENOUGH,
            verdict: None,
            extra: 0,
            mismatches: 0,
        }
    }
}

impl Witness {
    /// The rule in force, if it is not the profile's.
    pub(crate) fn verdict(&self) -> Option<Charged> {
        self.verdict
    }

    /// A cost as it is charged; the profile's own rules that are no sum are left as they are.
    pub(crate) fn applied(&self, cost: Cost) -> Cost {
        match self.verdict {
            Some(rule) if is_sum(&cost) => {
                let extra = if rule == Charged::Prompt {
                    self.extra
                } else {
                    0
                };
                let tokens = rule.on_arrival(&cost).saturating_add(extra);
                Cost { tokens, ..cost }
            }
            _ => cost,
        }
    }

    /// The last lone request has ended, and has used so much.
    pub(crate) fn over(&mut self, ticket: u64, input: u64, output: u64) {
        if let Some(before) = self.before.as_mut().filter(|b| b.ticket == ticket) {
            before.actual = Some(input.saturating_add(output));
        }
    }

    /// A request that was alone has its answer. `told`: the profile's own rule.
    pub(crate) fn hear(&mut self, lone: Lone, rate: Rate, told: Charged) -> Option<Verdict> {
        let before = self.before.replace(Before {
            ticket: lone.ticket,
            turn: lone.turn,
            arrival: lone.arrival,
            used: lone.used,
            cost: lone.cost,
            actual: None,
        });
        // What came between says nothing of this one.
        let before = before.filter(|before| before.turn + 1 == lone.turn);
        if !is_sum(&lone.cost) {
            return None;
        }
        let tells = RULES.map(|rule| predicts(rule, &lone, before.as_ref(), rate));
        // What matches more than one rule is a vote for none but the strictest.
        let slack_of = |rule| match rule {
            Charged::Prompt => 32 + lone.cost.input / 4,
            _ => 0,
        };
        let nearest = |rule: Charged| {
            tells[rule as usize]
                .into_iter()
                .flatten()
                .filter(|&used| lone.used + slack(used) >= used)
                .filter(|&used| lone.used <= used + slack(used) + slack_of(rule))
                .min_by_key(|used| used.abs_diff(lone.used))
        };
        let matches = RULES.map(|rule| nearest(rule).is_some());
        let apart = |a: Charged, b: Charged| {
            let pairs = tells[a as usize].into_iter().flatten();
            pairs.clone().count() > 0
                && pairs
                    .zip(tells[b as usize].into_iter().flatten())
                    .all(|(a, b)| a.abs_diff(b) > 4 * slack(a.max(b)))
        };
        let now = self.verdict.unwrap_or(told);
        let Some(strictest) = RULES
            .into_iter()
            .filter(|&rule| matches[rule as usize])
            .min_by_key(|rule| rule.room())
        else {
            self.mismatches += 1;
            return None;
        };
        if strictest.room() < now.room() {
            // More than is reserved, unless both are as good.
            if matches[now as usize] {
                return None;
            }
            self.votes = [0; 4];
            self.mismatches += 1;
            return self.decide(strictest, told);
        }
        for rule in RULES {
            let good = rule.room() > now.room()
                && matches[rule as usize]
                && !matches[now as usize]
                && apart(rule, now);
            if good {
                self.votes[rule as usize] += 1;
                if let Some(used) = nearest(rule).filter(|_| rule == Charged::Prompt) {
                    self.extra = self.extra.max(lone.used.saturating_sub(used));
                }
            } else if matches[now as usize] && apart(rule, now) {
                self.votes[rule as usize] = 0;
            }
        }
        self.mismatches += u64::from(!matches[now as usize]);
        let proven = RULES
            .into_iter()
            .filter(|&rule| self.votes[rule as usize] >= self.needed)
            .min_by_key(|rule| rule.room())?;
        self.votes = [0; 4];
        self.decide(proven, told)
    }

    /// The provider refused. `told`: the profile's own rule.
    pub(crate) fn refused(&mut self, told: Charged) -> Option<Verdict> {
        self.before = None;
        let rule = self.verdict?;
        if rule.room() <= told.room() {
            return None;
        }
        self.votes = [0; 4];
        self.needed = (self.needed * 2).min(MOST_NEEDED);
        self.decide(told, told)
    }

    fn decide(&mut self, rule: Charged, told: Charged) -> Option<Verdict> {
        let as_told = rule == told;
        self.verdict = (!as_told).then_some(rule);
        Some(Verdict {
            charged: rule,
            as_told,
        })
    }
}

/// What `used` will be under a rule: under a counter that keeps what it has, and under one that refills.
fn predicts(rule: Charged, lone: &Lone, before: Option<&Before>, rate: Rate) -> [Option<u64>; 2] {
    let own = rule.on_arrival(&lone.cost);
    if lone.first {
        return [Some(own), None];
    }
    let Some(before) = before else {
        return [None, None];
    };
    let passed = lone.arrival.saturating_sub(before.arrival);
    if passed >= rate.period {
        return [None, None];
    }
    let left = match rule {
        Charged::Settles => {
            let Some(actual) = before.actual else {
                return [None, None];
            };
            let held = rule.on_arrival(&before.cost);
            before.used.saturating_add(actual).saturating_sub(held)
        }
        _ => before.used,
    };
    let refill = u128::from(passed) * u128::from(rate.amount) / u128::from(rate.period);
    let refilled = left.saturating_sub(refill as u64);
    [Some(left + own), Some(refilled + own)]
}

/// Rounding, and a little that the provider counts for itself.
fn slack(used: u64) -> u64 {
    4 + used / 100
}

fn is_sum(cost: &Cost) -> bool {
    cost.output > 0 && cost.tokens == cost.input.saturating_add(cost.output)
}

#[cfg(test)]
mod tests {
    use super::{super::rate::SECOND, *};

    const RATE: Rate = Rate {
        amount: 60_000,
        period: 60 * SECOND,
    };

    /// A provider with a counter of its own.
    struct Provider {
        rule: Charged,
        refills: bool,
        used: u64,
        at: Nanos,
        turn: u64,
        rng: fastrand::Rng,
    }

    impl Provider {
        fn new(rule: Charged, refills: bool) -> Self {
            Self {
                rule,
                refills,
                used: 0,
                at: 0,
                turn: 0,
                rng: fastrand::Rng::with_seed(7),
            }
        }

        /// One request after the other.
        fn serve(&mut self, witness: &mut Witness, told: Charged) -> Option<Verdict> {
            let passed = SECOND / 4 + self.rng.u64(..SECOND / 4);
            self.at += passed;
            if self.refills {
                let refill = passed * RATE.amount / RATE.period;
                self.used = self.used.saturating_sub(refill);
            }
            let input = self.rng.u64(50..800);
            let output = self.rng.u64(200..2000);
            let cost = Cost::request().tokens(input, output);
            self.used += match self.rule {
                Charged::Prompt => input + 6,
                rule => rule.on_arrival(&cost),
            };
            self.turn += 1;
            let lone = Lone {
                ticket: self.turn,
                turn: self.turn,
                arrival: self.at,
                used: self.used,
                cost,
                first: self.turn == 1,
            };
            let verdict = witness.hear(lone, RATE, told);
            if self.rule == Charged::Settles {
                self.used = self.used + output / 3 - output;
            }
            witness.over(self.turn, input, output / 3);
            verdict
        }
    }

    #[test]
    fn each_rule_is_found_out_under_a_counter_that_refills_and_one_that_does_not() {
        for rule in [Charged::Larger, Charged::Prompt, Charged::Settles] {
            for refills in [false, true] {
                let mut witness = Witness::default();
                let mut provider = Provider::new(rule, refills);
                let mut heard = 0;
                while witness.verdict().is_none() {
                    provider.serve(&mut witness, Charged::Sum);
                    heard += 1;
                    assert!(heard < 30, "{rule:?} {refills}");
                }
                assert!(heard >= 4, "{rule:?}: proven by {heard}");
                assert_eq!(witness.verdict(), Some(rule));
            }
        }
    }

    #[test]
    fn the_profiles_own_rule_is_never_doubted() {
        for rule in [Charged::Sum, Charged::Settles] {
            for refills in [false, true] {
                let mut witness = Witness::default();
                let mut provider = Provider::new(rule, refills);
                for _ in 0..1000 {
                    assert_eq!(provider.serve(&mut witness, rule), None);
                }
            }
        }
    }

    #[test]
    fn a_rule_that_charges_more_is_followed_at_once() {
        let mut witness = Witness::default();
        let mut provider = Provider::new(Charged::Sum, false);
        let verdicts: Vec<_> = (0..4)
            .filter_map(|_| provider.serve(&mut witness, Charged::Settles))
            .collect();
        assert_eq!(verdicts.len(), 1);
        assert_eq!(witness.verdict(), Some(Charged::Sum));
    }

    #[test]
    fn a_refusal_undoes_what_was_proven_and_asks_for_more() {
        let mut witness = Witness::default();
        let mut provider = Provider::new(Charged::Prompt, false);
        for _ in 0..8 {
            provider.serve(&mut witness, Charged::Sum);
        }
        assert_eq!(witness.verdict(), Some(Charged::Prompt));
        let back = witness.refused(Charged::Sum).unwrap();
        assert!(back.as_told);
        assert_eq!(witness.verdict(), None);
        let mut heard = 0;
        while witness.verdict().is_none() {
            provider.serve(&mut witness, Charged::Sum);
            heard += 1;
            assert!(heard < 60);
        }
        assert!(heard >= 8, "{heard}");
    }

    #[test]
    fn strangers_on_the_key_prove_nothing() {
        let mut witness = Witness::default();
        let mut provider = Provider::new(Charged::Sum, false);
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..1000 {
            provider.used += rng.u64(1..3000);
            provider.serve(&mut witness, Charged::Sum);
            assert_eq!(witness.verdict(), None);
        }
    }

    #[test]
    fn what_is_charged_for_messages_is_reserved_with_the_prompt() {
        let mut witness = Witness::default();
        let mut provider = Provider::new(Charged::Prompt, false);
        for _ in 0..8 {
            provider.serve(&mut witness, Charged::Sum);
        }
        let cost = witness.applied(Cost::request().tokens(100, 900));
        assert_eq!((cost.tokens, cost.output), (106, 900));
    }
}
