//! What watermarks remember.
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tollgate_core::{
    price::Cost,
    principal::Principal,
    wire::{
        limits::{Dimension, RateLimit},
        outcome::Outcome,
        usage::Finish,
    },
};

use super::{Crossing, Settings, Watermark, share::Share, spend::Spend};
use crate::{UsageRecord, totals::share_left};

/// Models that are watched each by themselves.
const MODELS: usize = 1_000;
/// Limits that are known to be low at a time.
const LOW: usize = 10_000;
/// Longest name of a model, in bytes. Names come from the wire.
const NAME: usize = 128;
/// How long beforehand a retirement is told.
const BEFORE: Duration = Duration::from_secs(30 * 86_400);

#[derive(Default)]
pub(super) struct State {
    low: HashSet<Limit>,
    spend: Vec<Spend>,
    models: HashMap<Arc<str>, Model>,
}

type Limit = (Arc<str>, Option<Principal>, Dimension, Option<Box<str>>);

#[derive(Default)]
struct Model {
    errors: Share,
    length: Share,
    content_filter: Share,
    unpriced: bool,
    retiring: bool,
}

impl State {
    pub(super) fn take(
        &mut self,
        record: &UsageRecord,
        settings: &Settings,
        crossings: &mut Vec<Crossing>,
    ) {
        let model = record.model().cloned().unwrap_or_default();
        if model.len() > NAME {
            return;
        }
        // Sums and shares count a call once; a limit is a limit wherever it was stated.
        for stated in &record.rate_limits {
            crossings.extend(self.remaining(record, &model, stated, settings.remaining));
        }
        if record.nested {
            return;
        }
        self.spend.resize(settings.spend.len(), Spend::default());
        for (spend, threshold) in self.spend.iter_mut().zip(&settings.spend) {
            crossings.extend(spend.take(record, *threshold));
        }
        if self.models.len() < MODELS || self.models.contains_key(&model) {
            let state = self.models.entry(Arc::clone(&model)).or_default();
            state.take(&model, record, settings, crossings);
        }
    }

    fn remaining(
        &mut self,
        record: &UsageRecord,
        model: &Arc<str>,
        stated: &RateLimit,
        threshold: f64,
    ) -> Option<Crossing> {
        let share = share_left(stated)?;
        let name: Limit = (
            Arc::clone(model),
            record.key,
            stated.dimension.clone(),
            stated.window.clone(),
        );
        let raised = if share < threshold {
            // Without room to remember it, it would be told again with every answer.
            if self.low.len() >= LOW || !self.low.insert(name) {
                return None;
            }
            true
        } else {
            if share + 1e-9 < (threshold * 1.5).min(1.0) || !self.low.remove(&name) {
                return None;
            }
            false
        };
        let watermark = Watermark::Remaining {
            model: Arc::clone(model),
            key: record.key,
            dimension: stated.dimension.clone(),
            window: stated.window.clone(),
            remaining: stated.remaining?,
            limit: stated.limit?,
        };
        Some(Crossing { watermark, raised })
    }
}

impl Model {
    fn take(
        &mut self,
        name: &Arc<str>,
        record: &UsageRecord,
        settings: &Settings,
        crossings: &mut Vec<Crossing>,
    ) {
        let model = || Arc::clone(name);
        let mut cross = |raised: bool, watermark: Watermark| {
            crossings.push(Crossing { watermark, raised });
        };
        // A caller that left says nothing of the provider, and neither does our own refusal.
        if let Some(outcome) = record.outcome.as_ref().filter(|_| record.refused.is_none()) {
            let failed = *outcome != Outcome::Ok;
            if let Some((raised, share)) = self.errors.take(failed, settings.errors) {
                let model = model();
                cross(raised, Watermark::Errors { model, share });
            }
        }
        if let Some(finish) = record.finish {
            let cut = self.length.take(finish == Finish::Length, settings.length);
            if let Some((raised, share)) = cut {
                let model = model();
                cross(raised, Watermark::Length { model, share });
            }
            let filtered = finish == Finish::ContentFilter;
            let filtered = self.content_filter.take(filtered, settings.content_filter);
            if let Some((raised, share)) = filtered {
                let model = model();
                cross(raised, Watermark::ContentFilter { model, share });
            }
        }
        let gone = record.outcome == Some(Outcome::ModelGone);
        let day = settings.prices.as_ref().and_then(|prices| {
            let table = prices.table();
            let soon = record.ended().checked_add(BEFORE)?;
            (table.retires_at(name)? <= soon).then(|| table.retires(name).map(Box::from))?
        });
        if (gone || day.is_some()) && !std::mem::replace(&mut self.retiring, true) {
            let model = model();
            let day = day.filter(|_| !gone);
            cross(true, Watermark::Retiring { model, day });
        }
        let unpriced =
            settings.prices.is_some() && record.has_usage && record.cost == Cost::Unknown;
        if unpriced && !std::mem::replace(&mut self.unpriced, true) {
            let model = model();
            cross(true, Watermark::Unpriced { model });
        }
    }
}
