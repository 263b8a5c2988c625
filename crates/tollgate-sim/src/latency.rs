//! How long things take.
use std::time::Duration;

use fastrand::Rng;

/// A time that is drawn anew for each request.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Log-normal: half are under `median`; `sigma` is the deviation of the logarithm
    /// (0.4: nineteen in twenty between 0.46 and 2.2 medians).
    LogNormal {
        /// The middle.
        median: Duration,
        /// The spread, from 0.
        sigma: f64,
    },
    /// Any from `min` to `max`, alike.
    Uniform {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
}

impl Latency {
    /// None at all.
    pub const ZERO: Self = Self::Fixed(Duration::ZERO);

    /// Draws one; never more than an hour.
    pub(crate) fn draw(self, rng: &mut Rng) -> Duration {
        const MOST: Duration = Duration::from_secs(3600);
        let time = match self {
            Self::Fixed(time) => return time,
            Self::LogNormal { median, sigma } => {
                // Box and Muller; 1 - x is never zero.
                let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
                let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
                Duration::try_from_secs_f64(median.as_secs_f64() * (sigma * normal).exp())
            }
            Self::Uniform { min, max } => {
                return min + max.saturating_sub(min).mul_f64(rng.f64());
            }
        };
        time.unwrap_or(MOST).min(MOST)
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Duration> for Latency {
    fn from(time: Duration) -> Self {
        Self::Fixed(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_lognormal_draws_are_under_the_median() {
        let mut rng = Rng::with_seed(7);
        let median = Duration::from_millis(250);
        let latency = Latency::LogNormal { median, sigma: 0.4 };
        let under = (0..10_000)
            .filter(|_| latency.draw(&mut rng) < median)
            .count();
        assert!((4_800..5_200).contains(&under), "{under}");
    }
}
