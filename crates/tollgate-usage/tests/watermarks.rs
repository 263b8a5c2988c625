//! Watermarks tell of each crossing once.
#![allow(clippy::unwrap_used)]
mod common;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, UNIX_EPOCH},
};

use common::{chat, exchange};
use serde_json::json;
use tollgate_core::{
    price::{Cost, Pico, Price, PriceTable},
    wire::{outcome::Outcome, usage::Finish},
};
use tollgate_sim::script::{Reply, Scripted};
use tollgate_usage::{
    Crossing, Recorder, SpendPeriod, UsageRecord, UsageRecorderLayer, Watermarks,
};

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Told {
    fn watermarks(&self) -> Watermarks {
        let told = Arc::clone(&self.0);
        Watermarks::new(move |crossing: &Crossing| {
            let sign = if crossing.raised { '!' } else { '.' };
            told.lock()
                .unwrap()
                .push(format!("{sign} {}", crossing.watermark));
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn record(change: impl FnOnce(&mut UsageRecord)) -> UsageRecord {
    let mut record = UsageRecord::default();
    record.model_served = Some("m".into());
    record.outcome = Some(Outcome::Ok);
    record.started = UNIX_EPOCH + Duration::from_secs(20_779 * 86_400);
    change(&mut record);
    record
}

// L09
#[tokio::test(start_paused = true)]
async fn a_limit_is_told_once_when_it_gets_low_and_once_when_it_is_well() {
    let told = Told::default();
    let layer = UsageRecorderLayer::new(told.watermarks());
    let left = [100, 21, 19, 5, 19, 21, 29, 30, 25, 19, 18];
    let upstream = Scripted::new(left.map(|left| {
        Reply::chat("m", 1, 1)
            .header("x-ratelimit-limit-requests", "100")
            .header("x-ratelimit-remaining-requests", &left.to_string())
            .header("x-ratelimit-limit-tokens", "1000")
            .header("x-ratelimit-remaining-tokens", "900")
    }));
    for _ in left {
        exchange(&layer, &upstream, chat(json!({})))
            .await
            .1
            .unwrap();
    }
    assert_eq!(
        told.take(),
        [
            "! 19 of 100 requests are left for m",
            ". 30 of 100 requests are left for m",
            "! 19 of 100 requests are left for m",
        ]
    );
}

// L09
#[test]
fn limits_of_other_models_and_keys_are_told_apart() {
    let told = Told::default();
    let layer = told.watermarks();
    let low = tollgate_core::wire::limits::from_headers(
        &http::HeaderMap::from_iter([
            (
                "x-ratelimit-limit-tokens".parse().unwrap(),
                "10".parse().unwrap(),
            ),
            (
                "x-ratelimit-remaining-tokens"
                    .parse::<http::HeaderName>()
                    .unwrap(),
                "1".parse().unwrap(),
            ),
        ]),
        UNIX_EPOCH,
    );
    for (model, key) in [("a", 1), ("b", 1), ("a", 2), ("a", 1), ("b", 1)] {
        layer.record(&record(|record| {
            record.model_served = Some(model.into());
            record.key = Some(tollgate_core::principal::Principal::from_digest(key));
            record.rate_limits.clone_from(&low);
        }));
    }
    assert_eq!(told.take().len(), 3);
}

#[test]
fn a_spend_threshold_is_told_once_in_its_period() {
    let told = Told::default();
    let watermarks = told
        .watermarks()
        .spend_above(SpendPeriod::Day, "1".parse().unwrap())
        .spend_above(SpendPeriod::Total, "2.5".parse().unwrap());
    let spend = |day: u64, nested: bool| {
        watermarks.record(&record(|record| {
            record.started += Duration::from_secs(day * 86_400);
            record.cost = Cost::AtLeast(Pico::new(Pico::PER_DOLLAR / 2));
            record.nested = nested;
        }));
    };
    for day in [0, 0, 0, 0, 1, 1, 1] {
        spend(day, true);
        spend(day, false);
    }
    assert_eq!(
        told.take(),
        [
            "! $1.5 spent today, above $1",
            "! $3 spent in all, above $2.5",
            "! $1.5 spent today, above $1",
        ]
    );
}

#[test]
fn shares_of_errors_cuts_and_filters_are_told_for_each_model() {
    let told = Told::default();
    let watermarks = told.watermarks();
    for n in 0..25 {
        watermarks.record(&record(|record| {
            record.finish = Some(Finish::Stop);
            record.model_served = Some("well".into());
        }));
        watermarks.record(&record(|record| {
            if n % 2 == 0 {
                record.outcome = Some(Outcome::ServerError);
            } else {
                record.finish = Some(Finish::Length);
            }
        }));
    }
    for n in 0..20 {
        watermarks.record(&record(|record| {
            record.model_served = Some("strict".into());
            let filtered = n % 10 == 0;
            record.finish = Some(if filtered {
                Finish::ContentFilter
            } else {
                Finish::Stop
            });
        }));
    }
    assert_eq!(
        told.take(),
        [
            "! 50 % of the last calls of m failed",
            "! 10 % of the last answers of strict were filtered",
        ],
        "only 12 of m finished, which is too few to say how many were cut"
    );
}

// L12, U15
#[test]
fn a_model_without_a_price_or_a_future_is_told_once() {
    let told = Told::default();
    let table = PriceTable::new()
        .with("m", Price::per_million("1", "1").unwrap())
        .with("old", Price::per_million("1", "1").unwrap())
        .with_retirement("old", "2026-12-22")
        .with_retirement("m", "2026-12-23");
    let watermarks = told.watermarks().prices(table);
    for _ in 0..3 {
        for model in ["m", "old", "new", "gone"] {
            watermarks.record(&record(|record| {
                record.model_served = Some(model.into());
                record.has_usage = true;
                record.cost = Cost::Exact(Pico::ZERO);
                match model {
                    "new" => record.cost = Cost::Unknown,
                    "gone" => record.outcome = Some(Outcome::ModelGone),
                    _ => {}
                }
            }));
        }
    }
    assert_eq!(
        told.take(),
        [
            "! old is not served from 2026-12-22 on",
            "! new has no price",
            "! gone is not served any more",
        ]
    );
}

#[test]
#[should_panic(expected = "from 0 to 1")]
fn a_share_that_is_none_is_refused_where_it_is_written() {
    let _ = Watermarks::logged().remaining_below(20.0);
}
