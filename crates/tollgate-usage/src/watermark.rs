//! Watermarks: one event when something gets near its end, and one when it is well again.
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tollgate_core::{
    price::{Pico, Prices},
    principal::Principal,
    wire::limits::Dimension,
};

use crate::{Recorder, UsageRecord};

mod share;
mod spend;
mod state;

pub use self::spend::SpendPeriod;
use self::state::State;

/// What a watermark is about.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Watermark {
    /// Little is left of a limit that a provider states.
    Remaining {
        /// The model that the answer was of.
        model: Arc<str>,
        /// The digest of the key that it was asked with.
        key: Option<Principal>,
        /// What the limit counts.
        dimension: Dimension,
        /// The window that the header names, if it does.
        window: Option<Box<str>>,
        /// Units left.
        remaining: f64,
        /// Units in all.
        limit: f64,
    },
    /// More was spent than a threshold.
    Spend {
        /// In which time.
        period: SpendPeriod,
        /// The threshold.
        threshold: Pico,
        /// What was spent in that time so far.
        spent: Pico,
    },
    /// Many errors among the last calls of a model.
    Errors {
        /// The model.
        model: Arc<str>,
        /// Their share, from 0 to 1.
        share: f64,
    },
    /// Many answers of a model are cut at the output cap.
    Length {
        /// The model.
        model: Arc<str>,
        /// Their share, from 0 to 1.
        share: f64,
    },
    /// Many answers of a model are cut or refused by a filter.
    ContentFilter {
        /// The model.
        model: Arc<str>,
        /// Their share, from 0 to 1.
        share: f64,
    },
    /// A model was used that has no price.
    Unpriced {
        /// The model.
        model: Arc<str>,
    },
    /// A model was used that will not be served any more soon, or is not.
    Retiring {
        /// The model.
        model: Arc<str>,
        /// From that day on, as the price table has it (`2026-03-31`); `None`: the provider says
        /// that it is gone.
        day: Option<Box<str>>,
    },
}

/// A watermark was crossed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Crossing {
    /// Which.
    pub watermark: Watermark,
    /// True when it got bad, false when it is well again. What is told once for a model is only
    /// ever raised.
    pub raised: bool,
}

type Callback = dyn Fn(&Crossing) + Send + Sync;

/// Watches records and tells when a watermark is crossed, once for each crossing: a recorder.
///
/// A crossing is logged (`warn` when raised, `info` when well again; target
/// `tollgate::watermark`) and handed to the callback, which is called from within somebody's
/// response and must not block.
///
/// What was raised is well again only at a distance, so that values about the threshold do not
/// flicker: a limit at one and a half times its threshold, a share at half of it. A spend threshold
/// is raised at most once in its period and not taken back.
///
/// ```
/// use tollgate_usage::{Crossing, SpendPeriod, UsageRecorderLayer, UsageTotals, Watermark, Watermarks};
///
/// let watermarks = Watermarks::new(|crossing: &Crossing| {
///     if let (Watermark::Spend { spent, .. }, true) = (&crossing.watermark, crossing.raised) {
///         eprintln!("${spent} spent");
///     }
/// })
/// .spend_above(SpendPeriod::Day, "25".parse()?)
/// .remaining_below(0.1);
/// let layer = UsageRecorderLayer::new(UsageTotals::new()).and(watermarks);
/// # drop(layer);
/// # Ok::<(), tollgate_core::price::InvalidPrice>(())
/// ```
///
/// Defaults: below 20 % of a limit left; 20 % errors, 20 % cut at the output cap and 5 % filtered
/// among the last 100 records of a model, once there are 20; no spend threshold; models without a
/// price and models that retire within 30 days, once [`prices`](Self::prices) are set. 1,000 models
/// are watched each by themselves.
#[derive(Clone)]
pub struct Watermarks {
    settings: Settings,
    state: Arc<Mutex<State>>,
    callback: Arc<Callback>,
}

#[derive(Clone)]
struct Settings {
    remaining: f64,
    errors: f64,
    length: f64,
    content_filter: f64,
    spend: Vec<(SpendPeriod, Pico)>,
    prices: Option<Prices>,
}

impl Watermarks {
    /// Watermarks that are logged and handed to `callback`.
    pub fn new(callback: impl Fn(&Crossing) + Send + Sync + 'static) -> Self {
        Self {
            settings: Settings {
                remaining: 0.2,
                errors: 0.2,
                length: 0.2,
                content_filter: 0.05,
                spend: Vec::new(),
                prices: None,
            },
            state: Arc::default(),
            callback: Arc::new(callback),
        }
    }

    /// Watermarks that are only logged.
    #[must_use]
    pub fn logged() -> Self {
        Self::new(|_| ())
    }

    /// The part of a limit below which to warn; default 0.2. At 0 never.
    ///
    /// # Panics
    ///
    /// If it is not from 0 to 1.
    #[must_use]
    pub fn remaining_below(mut self, share: f64) -> Self {
        self.settings.remaining = checked(share);
        self
    }

    /// The share of errors above which to warn; default 0.2. At 1 never.
    ///
    /// # Panics
    ///
    /// If it is not from 0 to 1.
    #[must_use]
    pub fn errors_above(mut self, share: f64) -> Self {
        self.settings.errors = checked(share);
        self
    }

    /// The share of answers that are cut at the output cap above which to warn; default 0.2. At 1
    /// never.
    ///
    /// # Panics
    ///
    /// If it is not from 0 to 1.
    #[must_use]
    pub fn length_above(mut self, share: f64) -> Self {
        self.settings.length = checked(share);
        self
    }

    /// The share of filtered answers above which to warn; default 0.05. At 1 never.
    ///
    /// # Panics
    ///
    /// If it is not from 0 to 1.
    #[must_use]
    pub fn content_filter_above(mut self, share: f64) -> Self {
        self.settings.content_filter = checked(share);
        self
    }

    /// Adds a threshold of spend in a period. What has no price is not in the sum.
    #[must_use]
    pub fn spend_above(mut self, period: SpendPeriod, threshold: Pico) -> Self {
        self.settings.spend.push((period, threshold));
        self
    }

    /// Warns of models that have no price in this table, and of those that it says will retire.
    #[must_use]
    pub fn prices(mut self, prices: impl Into<Prices>) -> Self {
        self.settings.prices = Some(prices.into());
        self
    }
}

fn checked(share: f64) -> f64 {
    assert!(
        (0.0..=1.0).contains(&share),
        "a share of a watermark must be from 0 to 1, and {share} is not"
    );
    share
}

impl Recorder for Watermarks {
    fn record(&self, record: &UsageRecord) {
        let mut crossings = Vec::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.take(record, &self.settings, &mut crossings);
        drop(state);
        // The callback is foreign code: no lock is held.
        for crossing in &crossings {
            log(crossing);
            (self.callback)(crossing);
        }
    }
}

fn log(crossing: &Crossing) {
    let what = &crossing.watermark;
    if crossing.raised {
        tracing::warn!(target: "tollgate::watermark", "{what}");
    } else {
        tracing::info!(target: "tollgate::watermark", "well again: {what}");
    }
}

/// In a sentence, without anything but names of models and numbers.
impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: &f64| share * 100.0;
        match self {
            Self::Remaining {
                model,
                dimension,
                remaining,
                limit,
                ..
            } => {
                let unit = dimension.as_str();
                write!(f, "{remaining} of {limit} {unit} are left for {model}")
            }
            Self::Spend {
                period,
                threshold,
                spent,
            } => write!(f, "${spent} spent {period}, above ${threshold}"),
            Self::Errors { model, share } => {
                write!(
                    f,
                    "{:.0} % of the last calls of {model} failed",
                    percent(share)
                )
            }
            Self::Length { model, share } => {
                write!(
                    f,
                    "{:.0} % of the last answers of {model} were cut at the output cap",
                    percent(share)
                )
            }
            Self::ContentFilter { model, share } => {
                write!(
                    f,
                    "{:.0} % of the last answers of {model} were filtered",
                    percent(share)
                )
            }
            Self::Unpriced { model } => write!(f, "{model} has no price"),
            Self::Retiring {
                model,
                day: Some(day),
            } => {
                write!(f, "{model} is not served from {day} on")
            }
            Self::Retiring { model, day: None } => write!(f, "{model} is not served any more"),
        }
    }
}

impl fmt::Debug for Watermarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watermarks")
            .field("remaining", &self.settings.remaining)
            .field("errors", &self.settings.errors)
            .field("length", &self.settings.length)
            .field("content_filter", &self.settings.content_filter)
            .field("spend", &self.settings.spend)
            .finish_non_exhaustive()
    }
}
