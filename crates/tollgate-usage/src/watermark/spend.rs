//! What was spent in a period.
use std::{fmt, time::UNIX_EPOCH};

use tollgate_core::price::Pico;

use super::{Crossing, Watermark};
use crate::UsageRecord;

/// The time in which spend is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpendPeriod {
    /// An hour of the wall clock.
    Hour,
    /// A day of UTC.
    Day,
    /// Since the watermarks were made.
    Total,
}

impl SpendPeriod {
    fn number(self, record: &UsageRecord) -> u64 {
        let since = record.ended().duration_since(UNIX_EPOCH);
        let seconds = since.unwrap_or_default().as_secs();
        match self {
            Self::Hour => seconds / 3_600,
            Self::Day => seconds / 86_400,
            Self::Total => 0,
        }
    }
}

impl fmt::Display for SpendPeriod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hour => "this hour",
            Self::Day => "today",
            Self::Total => "in all",
        })
    }
}

/// The sum of one period, and whether its threshold was crossed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spend {
    period: u64,
    sum: Pico,
    raised: bool,
}

impl Spend {
    pub(super) fn take(
        &mut self,
        record: &UsageRecord,
        (period, threshold): (SpendPeriod, Pico),
    ) -> Option<Crossing> {
        let number = period.number(record);
        if number > self.period {
            *self = Self {
                period: number,
                ..Self::default()
            };
        } else if number < self.period {
            // A clock was set back: the period is over.
            return None;
        }
        self.sum = self.sum + record.cost.get()?;
        if self.raised || self.sum <= threshold {
            return None;
        }
        self.raised = true;
        let watermark = Watermark::Spend {
            period,
            threshold,
            spent: self.sum,
        };
        Some(Crossing {
            watermark,
            raised: true,
        })
    }
}
