//! So many units in a period, and time as the books count it.

/// Nanoseconds since the budget was made. 584 years fit.
pub(crate) type Nanos = u64;

/// Further away than anything that comes: "not before something happens".
pub(crate) const NEVER: Nanos = u64::MAX;

pub(crate) const MILLI: Nanos = 1_000_000;
pub(crate) const SECOND: Nanos = 1_000_000_000;

/// A limit as the books use it; both are above zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) amount: u64,
    pub(crate) period: Nanos,
}

impl Rate {
    /// The time in which so many units are refilled, rounded up.
    pub(crate) fn time_of(self, units: u64) -> Nanos {
        let time = u128::from(units) * u128::from(self.period);
        narrow(time.div_ceil(u128::from(self.amount)))
    }
}

/// When an entry reaches the provider: not before `lo`, and not after `hi`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) lo: Nanos,
    pub(crate) hi: Nanos,
}

impl Span {
    pub(crate) fn at(time: Nanos) -> Self {
        Self { lo: time, hi: time }
    }
}

pub(crate) fn narrow(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
