//! A tower layer that makes one exact record of every LLM call and attempt, also from streams.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod body;
mod cut;
mod entry;
mod future;
mod inject;
mod layer;
mod look;
mod record;
mod recorder;
mod service;
mod telemetry;
mod totals;

pub use self::{
    body::ResponseBody,
    future::ResponseFuture,
    layer::UsageRecorderLayer,
    record::{AttemptRecord, Completion, RecordKind, UsageRecord},
    recorder::{ChannelRecorder, Recorder, Records, channel},
    service::UsageRecorder,
    totals::{FinishTotals, Totals, UsageSnapshot, UsageTotals},
};
