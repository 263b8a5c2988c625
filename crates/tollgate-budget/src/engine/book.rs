//! One limit's book, whichever discipline it follows.
use super::{
    bucket::Bucket,
    calendar::Period,
    evidence::{Evidence, Reading},
    fixed::Fixed,
    rate::{Nanos, Rate, Span, narrow},
    rolling::Rolling,
};
use crate::limit::Enforcement;

/// A book of one discipline; `Auto` keeps two of them, so that it can change over at any time.
#[derive(Clone, Debug)]
pub(crate) enum Book {
    Bucket {
        bucket: Bucket,
        burst: Option<u64>,
    },
    Rolling(Rolling),
    Fixed(Fixed),
    Calendar(Period),
    Quantised {
        slice: Nanos,
        short: Rolling,
        long: Rolling,
    },
    Auto {
        rolling: Rolling,
        bucket: Bucket,
        evidence: Evidence,
    },
}

/// When the provider counted.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Since {
    /// Not before this, and its clock may be behind ours by the way.
    NotBefore(Nanos),
    /// Then, as nearly as it matters.
    Exactly(Nanos),
}

/// What one answer's headers say of a limit, in the units of our own book.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Correction {
    /// Units left, by the provider's count.
    pub(crate) left: u64,
    /// When it counted, at the earliest.
    pub(crate) since: Since,
    /// It counted then, or earlier.
    pub(crate) until: Nanos,
    /// The most that our own entries can have in that count.
    pub(crate) own: u128,
    /// Units that strangers may have used since, where there are any.
    pub(crate) margin: u64,
    /// In what time it says that the limit is full, or its window ends.
    pub(crate) reset: Option<Nanos>,
}

impl Book {
    pub(crate) fn new(enforcement: Enforcement, period: Nanos) -> Self {
        match enforcement {
            Enforcement::Bucket { burst } => Self::Bucket {
                bucket: Bucket::default(),
                burst,
            },
            Enforcement::Rolling => Self::Rolling(Rolling::new(period)),
            Enforcement::Fixed => Self::Fixed(Fixed::default()),
            Enforcement::Quantised { slice } => {
                let slice = narrow(slice.as_nanos());
                Self::Quantised {
                    slice,
                    short: Rolling::new(slice),
                    long: Rolling::new(period),
                }
            }
            Enforcement::Auto => Self::Auto {
                rolling: Rolling::new(period),
                bucket: Bucket::default(),
                evidence: Evidence::default(),
            },
        }
    }

    /// The discipline in force.
    pub(crate) fn enforcement(&self, told: Enforcement) -> Enforcement {
        match self {
            Self::Bucket { burst, .. } => Enforcement::Bucket { burst: *burst },
            Self::Rolling(_) => Enforcement::Rolling,
            Self::Fixed(_) | Self::Calendar(_) => Enforcement::Fixed,
            Self::Quantised { .. } => told,
            Self::Auto { evidence, .. } if evidence.bucket() => Enforcement::Bucket {
                burst: evidence.holds(),
            },
            Self::Auto { .. } => Enforcement::Rolling,
        }
    }

    /// The most that one request may take.
    pub(crate) fn capacity(&self, rate: Rate) -> u64 {
        match self {
            Self::Bucket { burst, .. } => burst.unwrap_or(rate.amount).min(rate.amount),
            _ => rate.amount,
        }
    }

    /// What may go at once.
    fn burst(&self, rate: Rate) -> u64 {
        match self {
            Self::Auto { evidence, .. } => evidence.holds().unwrap_or(rate.amount).min(rate.amount),
            _ => self.capacity(rate),
        }
    }

    /// Ways to the provider differ by so much.
    pub(crate) fn ways_differ(&mut self, by: Nanos, rate: Rate) {
        // Of a small bucket, too much would be set apart.
        let most = rate.time_of(self.burst(rate)) / 4;
        if let Self::Bucket { bucket, .. } | Self::Auto { bucket, .. } = self {
            bucket.ways_differ(by.min(most));
        }
    }

    fn headroom(&self) -> Nanos {
        match self {
            Self::Bucket { bucket, .. } | Self::Auto { bucket, .. } => bucket.headroom(),
            _ => 0,
        }
    }

    /// For how long after one grant the next may wait without loss.
    pub(crate) fn grain(&self, rate: Rate) -> Nanos {
        match self {
            Self::Bucket { .. } => Bucket::grain(rate, self.burst(rate)),
            Self::Auto { evidence, .. } if evidence.bucket() => {
                Bucket::grain(rate, self.burst(rate))
            }
            _ => 0,
        }
    }

    /// When `units` fit that take up to `way` to arrive; more than the capacity fits when all is free.
    pub(crate) fn fits_at(&mut self, now: Nanos, way: Nanos, rate: Rate, units: u64) -> Nanos {
        let burst = self.burst(rate);
        let at = match self {
            Self::Bucket { bucket, .. } => bucket.fits_at(now, rate, burst, units),
            Self::Rolling(log) => log.fits_at(now, rate.amount, units),
            Self::Fixed(fixed) => fixed.fits_at(now, way, rate, units),
            Self::Calendar(period) => period.fits_at(now, rate, units),
            Self::Quantised { slice, short, long } => short
                .fits_at(now, quantum(rate, *slice), units)
                .max(long.fits_at(now, rate.amount, units)),
            Self::Auto {
                bucket, evidence, ..
            } if evidence.bucket() => bucket.fits_at(now, rate, burst, units),
            Self::Auto { rolling, .. } => rolling.fits_at(now, rate.amount, units),
        };
        at.max(now)
    }

    /// Units that are left in a bucket for the sake of the way.
    pub(crate) fn spare(&self, rate: Rate) -> u64 {
        let units = u128::from(self.headroom()) * u128::from(rate.amount);
        narrow(units.div_ceil(u128::from(rate.period)))
    }

    /// When the last of so many units would be through, if all of them waited in line.
    pub(crate) fn drained_at(&mut self, now: Nanos, rate: Rate, units: u128) -> Nanos {
        let burst = self.burst(rate);
        let at = match self {
            Self::Bucket { bucket, .. } => bucket.drained_at(now, rate, burst, units),
            Self::Rolling(log) => log.drained_at(now, rate.amount, units),
            Self::Fixed(fixed) => fixed.drained_at(now, rate, units),
            Self::Calendar(period) => period.drained_at(now, rate, units),
            Self::Quantised { slice, short, long } => short
                .drained_at(now, quantum(rate, *slice), units)
                .max(long.drained_at(now, rate.amount, units)),
            Self::Auto {
                bucket, evidence, ..
            } if evidence.bucket() => bucket.drained_at(now, rate, burst, units),
            Self::Auto { rolling, .. } => rolling.drained_at(now, rate.amount, units),
        };
        at.max(now)
    }

    pub(crate) fn take(&mut self, now: Nanos, rate: Rate, span: Span, units: u64) {
        match self {
            Self::Bucket { bucket, .. } => bucket.take(now, rate, units),
            Self::Rolling(log) => log.put(now, span.hi, units, rate.amount),
            Self::Fixed(fixed) => fixed.put(now, rate, span, units),
            Self::Calendar(period) => period.put(now, span, units),
            Self::Quantised { slice, short, long } => {
                short.put(now, span.hi, units, quantum(rate, *slice));
                long.put(now, span.hi, units, rate.amount);
            }
            Self::Auto {
                rolling, bucket, ..
            } => {
                bucket.take(now, rate, units);
                rolling.put(now, span.hi, units, rate.amount);
            }
        }
    }

    /// An entry, booked at the rate `was`, is dated anew, or costs more or less.
    pub(crate) fn change(
        &mut self,
        now: Nanos,
        rate: Rate,
        was: Rate,
        (old_span, old): (Span, u64),
        (new_span, new): (Span, u64),
    ) {
        if let Self::Bucket { bucket, .. } | Self::Auto { bucket, .. } = self {
            if new < old {
                bucket.give_back(rate, old - new);
            } else if new > old {
                bucket.take(now, rate, new - old);
            }
        }
        // More than a limit is spread over windows: it is taken out as it was put in, under the limit of then.
        let log = |log: &mut Rolling, was: u64, limit: u64| {
            log.take_out(now, old_span.hi, old, was);
            log.put(now, new_span.hi, new, limit);
        };
        match self {
            Self::Bucket { .. } => {}
            Self::Rolling(rolling) | Self::Auto { rolling, .. } => {
                log(rolling, was.amount, rate.amount);
            }
            Self::Fixed(fixed) => {
                fixed.take_out(now, rate, old_span, old);
                fixed.put(now, rate, new_span, new);
            }
            Self::Calendar(period) => {
                period.take_out(now, old_span, old);
                period.put(now, new_span, new);
            }
            Self::Quantised { slice, short, long } => {
                log(short, quantum(was, *slice), quantum(rate, *slice));
                log(long, was.amount, rate.amount);
            }
        }
    }

    /// Tightens by what headers say; never loosens.
    pub(crate) fn correct(&mut self, now: Nanos, rate: Rate, seen: Correction) {
        // Where less was told than the provider allows, what is left over is not ours to use, nor used up.
        let used = rate.amount.saturating_sub(seen.left);
        let burst = self.burst(rate);
        let at = match seen.since {
            Since::NotBefore(at) => at.saturating_sub(self.headroom()),
            // A small bucket would seem empty for ever if all answers were dated later than it takes to fill.
            Since::Exactly(at) => at.min(seen.until.saturating_add(rate.time_of(burst) / 4)),
        };
        if let Self::Bucket { bucket, .. } | Self::Auto { bucket, .. } = self {
            bucket.correct(at, rate, burst.saturating_sub(seen.left));
        }
        if let Self::Auto {
            bucket, evidence, ..
        } = self
        {
            // What `remaining` cannot show, a debt, the reset of a bucket does.
            if let Some(reset) = seen.reset.filter(|_| evidence.bucket()) {
                let reset = reset.min(rate.period.saturating_mul(2));
                bucket.not_full_before(at.saturating_add(reset), rate);
            }
        }
        let strangers = match narrow(u128::from(used).saturating_sub(seen.own)) {
            0 => 0,
            units => units.saturating_add(seen.margin),
        };
        match self {
            Self::Bucket { .. } | Self::Calendar(_) => {}
            Self::Rolling(log) | Self::Auto { rolling: log, .. } => {
                log.stranger(now, seen.until, strangers);
            }
            // What is left of a slice says nothing of the whole: it would seem used up by somebody else for a window.
            Self::Quantised { slice, .. } if seen.reset.is_some_and(|reset| reset <= *slice) => {}
            Self::Quantised { long, .. } => long.stranger(now, seen.until, strangers),
            Self::Fixed(fixed) => {
                if let Some(reset) = seen.reset {
                    let (Since::NotBefore(since) | Since::Exactly(since)) = seen.since;
                    let (lo, hi) = (since.min(seen.until), seen.until);
                    fixed.align(now, rate.period, Span { lo, hi }, reset);
                }
                fixed.correct(now, rate.period, seen.until, used);
            }
        }
    }

    /// Hears what an answer proves of the discipline.
    pub(crate) fn hear(&mut self, now: Nanos, rate: Rate, seen: Reading) {
        if let Self::Auto {
            evidence, bucket, ..
        } = self
        {
            let held = evidence.holds();
            evidence.hear(seen, rate.period);
            if evidence.holds().is_some() && held.is_none() {
                // What the corrections took for use was never there. It says itself when it is full.
                bucket.full_at(now.saturating_add(seen.reset), rate);
            }
        }
    }

    /// The provider refused so many units, which were within our books; it said for how long, and when it is full.
    pub(crate) fn refused(
        &mut self,
        rate: Rate,
        units: u64,
        wait: Option<Nanos>,
        reset: Option<Nanos>,
    ) {
        if let Self::Auto { evidence, .. } = self {
            let refill = rate.time_of(units);
            // A bucket that was a little emptier than ours says so with a short wait. A window that has not rolled
            // yet says a long one.
            let short = wait
                .is_some_and(|wait| wait > 0 && wait <= refill.saturating_add(rate.period / 20));
            // In a bucket, even one in debt, what was asked for fits a whole refill less its own before it is full.
            let apart = wait
                .zip(reset)
                .map(|(wait, reset)| reset.saturating_sub(wait));
            let whole = rate.period.saturating_sub(refill);
            let in_debt = apart.is_some_and(|apart| apart.abs_diff(whole) <= rate.period / 50)
                && reset > Some(rate.period);
            evidence.refused(short || in_debt);
        }
    }

    pub(crate) fn rerate(&mut self, now: Nanos, old: Rate, new: Rate) {
        if let Self::Bucket { bucket, .. } | Self::Auto { bucket, .. } = self {
            bucket.rerate(now, old, new);
        }
    }

    /// Units used now, by the discipline in force.
    pub(crate) fn used(&mut self, now: Nanos, rate: Rate) -> u128 {
        match self {
            Self::Bucket { bucket, .. } => bucket.used(now, rate).into(),
            Self::Rolling(log) => log.used(now),
            Self::Fixed(fixed) => fixed.used(now, rate.period),
            Self::Calendar(period) => period.used(now),
            Self::Quantised { long, .. } => long.used(now),
            Self::Auto {
                bucket, evidence, ..
            } if evidence.bucket() => bucket.used(now, rate).into(),
            Self::Auto { rolling, .. } => rolling.used(now),
        }
    }

    /// Our own entries that the provider may still count now.
    pub(crate) fn own(&mut self, now: Nanos, rate: Rate) -> u128 {
        match self {
            Self::Rolling(log) | Self::Auto { rolling: log, .. } => log.own(now),
            Self::Quantised { long, .. } => long.own(now),
            Self::Bucket { .. } | Self::Fixed(_) | Self::Calendar(_) => self.used(now, rate),
        }
    }
}

/// What fits into one slice: at least one unit.
fn quantum(rate: Rate, slice: Nanos) -> u64 {
    let units = u128::from(rate.amount) * u128::from(slice) / u128::from(rate.period);
    narrow(units).max(1)
}
