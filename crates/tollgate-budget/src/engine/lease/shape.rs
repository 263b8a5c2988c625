//! What a store is to keep for a limit, and what is set apart for the time between buying and arriving.
use crate::{
    engine::rate::{Nanos, Rate, narrow},
    limit::{Enforcement, Wall},
};

/// How long what is bought may be kept, and what ways differ by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    pub(crate) hold: Nanos,
    pub(crate) spread: Nanos,
}

impl Holding {
    /// The same for a limit that is too fine for it.
    fn within(self, most: Nanos) -> Self {
        let spread = self.spread.min(most / 4);
        let hold = self.hold.min(most - spread).max(1);
        Self { hold, spread }
    }

    fn span(self) -> Nanos {
        self.hold.saturating_add(self.spread)
    }
}

/// What a store is to keep for a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A bucket of so many units that refills at the limit's rate.
    Bucket { burst: u64 },
    /// So many units in any window.
    Rolling { amount: u64, window: Nanos },
    /// So many until the period ends.
    Cap { ends: Wall },
}

impl Shape {
    /// What the store keeps for a limit of the provider's, and for how long a chunk lasts.
    pub(crate) fn of(enforcement: Enforcement, rate: Rate, told: Holding) -> (Self, Holding) {
        match enforcement {
            Enforcement::Bucket { burst } => {
                let burst = burst.unwrap_or(rate.amount).min(rate.amount);
                // Half of the burst is left whatever is set apart.
                let holding = told.within(rate.time_of(burst) / 2);
                let apart = u128::from(holding.span()) * u128::from(rate.amount);
                let apart = narrow(apart.div_ceil(u128::from(rate.period)));
                let burst = burst.saturating_sub(apart).max(1);
                (Self::Bucket { burst }, holding)
            }
            Enforcement::Quantised { slice } => {
                let slice = narrow(slice.as_nanos()).max(1);
                let amount = (rate.amount / rate.period.div_ceil(slice)).max(1);
                Self::rolling(amount, slice, told)
            }
            // Safe under a fixed window too, wherever it begins.
            Enforcement::Auto | Enforcement::Rolling | Enforcement::Fixed => {
                Self::rolling(rate.amount, rate.period, told)
            }
        }
    }

    fn rolling(amount: u64, period: Nanos, told: Holding) -> (Self, Holding) {
        let holding = told.within(period / 10);
        let window = period.saturating_add(holding.span());
        (Self::Rolling { amount, window }, holding)
    }

    /// The most that one request may take.
    pub(crate) fn capacity(self, rate: Rate) -> u64 {
        match self {
            Self::Bucket { burst } => burst,
            Self::Rolling { amount, .. } => amount,
            Self::Cap { .. } => rate.amount,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{HOLD, MINUTE},
        *,
    };
    use crate::engine::rate::SECOND;

    #[test]
    fn a_limit_that_is_finer_than_a_hold_is_held_for_less() {
        let second = Rate {
            amount: 100,
            period: SECOND,
        };
        let (shape, holding) = Shape::of(Enforcement::Rolling, second, HOLD);
        assert!(holding.span() <= SECOND / 10);
        assert_eq!(
            shape,
            Shape::Rolling {
                amount: 100,
                window: SECOND + holding.span()
            }
        );
        let (shape, _) = Shape::of(Enforcement::Bucket { burst: Some(10) }, second, HOLD);
        assert_eq!(shape, Shape::Bucket { burst: 5 });
        let slices = Enforcement::Quantised {
            slice: std::time::Duration::from_secs(7),
        };
        let (shape, _) = Shape::of(slices, MINUTE, HOLD);
        assert_eq!(
            shape.capacity(MINUTE),
            6000 / 9,
            "nine slices can lie in a minute"
        );
    }
}
