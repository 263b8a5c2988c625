//! A seeded mix of faults, in shares of all requests.
use std::time::Duration;

use fastrand::Rng;

use crate::{fault::Fault, limit::Unit};

/// Shares, in per cent of all requests; what is left goes well.
///
/// [`standard`](Self::standard) is the mix by which clients are compared: 19 in 100.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FaultMix {
    /// The connection is reset before an answer.
    pub reset: f64,
    /// The body stalls for two seconds and then breaks.
    pub stall: f64,
    /// The JSON document ends in its middle.
    pub cut_json: f64,
    /// The body breaks in its middle.
    pub cut_body: f64,
    /// The headers come a second late.
    pub slow_headers: f64,
    /// The headers hold nonsense.
    pub garbage_headers: f64,
    /// 500.
    pub status_500: f64,
    /// 503.
    pub status_503: f64,
    /// 529.
    pub status_529: f64,
    /// A 429 without cause; half of them state a wait of one second, half none.
    pub stray_429: f64,
}

impl FaultMix {
    /// 2 % resets, 1 % stalls, 1 % cut JSON, 1 % cut bodies, 2 % slow and 2 % garbage headers, 3 % 500,
    /// 2 % 503, 2 % 529, 3 % stray 429.
    #[must_use]
    pub fn standard() -> Self {
        Self {
            reset: 2.0,
            stall: 1.0,
            cut_json: 1.0,
            cut_body: 1.0,
            slow_headers: 2.0,
            garbage_headers: 2.0,
            status_500: 3.0,
            status_503: 2.0,
            status_529: 2.0,
            stray_429: 3.0,
        }
    }

    /// The same shares of each other, scaled to `percent` of all requests.
    #[must_use]
    pub fn scaled_to(self, percent: f64) -> Self {
        let sum: f64 = self.shares().iter().sum();
        if sum <= 0.0 {
            return self;
        }
        let by = percent / sum;
        Self {
            reset: self.reset * by,
            stall: self.stall * by,
            cut_json: self.cut_json * by,
            cut_body: self.cut_body * by,
            slow_headers: self.slow_headers * by,
            garbage_headers: self.garbage_headers * by,
            status_500: self.status_500 * by,
            status_503: self.status_503 * by,
            status_529: self.status_529 * by,
            stray_429: self.stray_429 * by,
        }
    }

    fn shares(&self) -> [f64; 10] {
        [
            self.reset,
            self.stall,
            self.cut_json,
            self.cut_body,
            self.slow_headers,
            self.garbage_headers,
            self.status_500,
            self.status_503,
            self.status_529,
            self.stray_429,
        ]
    }

    /// Draws one request's fate.
    pub(crate) fn draw(&self, rng: &mut Rng) -> Fault {
        let mut point = rng.f64() * 100.0;
        let hit = self.shares().iter().position(|share| {
            point -= share;
            point < 0.0
        });
        let bytes = rng.usize(1..200);
        match hit {
            Some(0) => Fault::Reset,
            Some(1) => Fault::StallBody {
                bytes,
                cut_after: Some(Duration::from_secs(2)),
            },
            Some(2) => Fault::CutJson,
            Some(3) => Fault::CutBody { bytes },
            Some(4) => Fault::SlowHeaders(Duration::from_secs(1)),
            Some(5) => Fault::GarbageHeaders,
            Some(6) => Fault::Status(500),
            Some(7) => Fault::Status(503),
            Some(8) => Fault::Status(529),
            Some(9) => Fault::RateLimited {
                unit: Unit::Requests,
                retry_after: rng.bool().then(|| Duration::from_secs(1)),
            },
            _ => Fault::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_each_fault_in_its_share() {
        let mut rng = Rng::with_seed(3);
        let mix = FaultMix::standard();
        let draws: Vec<_> = (0..20_000).map(|_| mix.draw(&mut rng)).collect();
        let count = |is: fn(&Fault) -> bool| draws.iter().filter(|fault| is(fault)).count();
        assert!((340..460).contains(&count(|f| matches!(f, Fault::Reset))));
        assert!((520..680).contains(&count(|f| matches!(f, Fault::Status(500)))));
        assert!((15_900..16_500).contains(&count(Fault::is_none)));
    }

    #[test]
    fn scaling_keeps_the_proportions() {
        let mix = FaultMix::standard().scaled_to(38.0);
        assert_eq!(mix.reset, 4.0);
        assert_eq!(mix.shares().iter().sum::<f64>(), 38.0);
    }
}
