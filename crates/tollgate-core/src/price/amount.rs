//! Amounts of money, exact.
use std::{fmt, iter::Sum, ops::Add, str::FromStr};

/// An amount of money in 10⁻¹² US dollars. Sums saturate and never wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pico(u128);

impl Pico {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// Pico in a dollar.
    pub const PER_DOLLAR: u128 = 1_000_000_000_000;

    /// An amount in pico.
    #[must_use]
    pub const fn new(pico: u128) -> Self {
        Self(pico)
    }

    /// The amount in pico.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The amount in nano-dollars, rounded up: for what is reserved.
    #[must_use]
    pub const fn nanos_up(self) -> u128 {
        self.0.div_ceil(1000)
    }

    /// This price, so many times.
    #[must_use]
    pub const fn times(self, n: u64) -> Self {
        Self(self.0.saturating_mul(n as u128))
    }
}

impl Add for Pico {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for Pico {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// In dollars, exact: `0.00042`.
impl fmt::Display for Pico {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (dollars, rest) = (self.0 / Self::PER_DOLLAR, self.0 % Self::PER_DOLLAR);
        if rest == 0 {
            return write!(f, "{dollars}");
        }
        let rest = format!("{rest:012}");
        write!(f, "{dollars}.{}", rest.trim_end_matches('0'))
    }
}

/// From dollars in decimal: digits, and at most twelve after the point.
impl FromStr for Pico {
    type Err = InvalidPrice;

    fn from_str(text: &str) -> Result<Self, InvalidPrice> {
        scaled(text, 12).map(Self)
    }
}

/// `text` × 10^`places`, exactly.
pub(super) fn scaled(text: &str, places: usize) -> Result<u128, InvalidPrice> {
    let invalid = || InvalidPrice(text.chars().take(40).collect());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty())
        || !digits(whole)
        || !digits(fraction)
        || fraction.len() > places
    {
        return Err(invalid());
    }
    let number = format!("{whole}{fraction:0<places$}");
    number.parse().map_err(|_| invalid())
}

/// A price that cannot be read, or not exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPrice(Box<str>);

impl fmt::Display for InvalidPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a price must be a decimal number of dollars such as 0.075, and {:?} is not",
            self.0
        )
    }
}

impl std::error::Error for InvalidPrice {}

/// What something cost. Unknown is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cost {
    /// No price or no usage.
    #[default]
    Unknown,
    /// At least this: the usage is a lower bound, or a part of the answer has no price.
    AtLeast(Pico),
    /// This.
    Exact(Pico),
}

impl Cost {
    /// The amount, exact or bound.
    #[must_use]
    pub fn get(self) -> Option<Pico> {
        match self {
            Self::Unknown => None,
            Self::AtLeast(pico) | Self::Exact(pico) => Some(pico),
        }
    }

    /// The same amount as a lower bound.
    #[must_use]
    pub fn at_least(self) -> Self {
        match self {
            Self::Exact(pico) => Self::AtLeast(pico),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_reads_as_it_is_written() {
        for text in ["0.075", "3", "0.000000000001", "12.5"] {
            assert_eq!(text.parse::<Pico>().unwrap().to_string(), text);
        }
        for text in [
            "",
            ".",
            "-1",
            "1e3",
            "0.0000000000001",
            "1.2.3",
            "NaN",
            &"9".repeat(60),
        ] {
            assert!(text.parse::<Pico>().is_err(), "{text:?} is no price");
        }
    }

    proptest! {
        // T40
        #[test]
        fn sums_lose_nothing(amounts in prop::collection::vec(0u64.., 0..100)) {
            let sum: Pico = amounts.iter().map(|&n| Pico::new(n.into())).sum();
            prop_assert_eq!(sum.get(), amounts.iter().map(|&n| u128::from(n)).sum::<u128>());
        }

        #[test]
        fn display_and_parse_are_inverse(pico in 0u128..u128::from(u64::MAX)) {
            prop_assert_eq!(Pico::new(pico).to_string().parse::<Pico>().unwrap(), Pico::new(pico));
        }
    }
}
