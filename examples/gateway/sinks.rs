//! Where usage records go.
use std::time::Duration;

use tollgate::{
    Ledger, UsageRecorderLayer, UsageTotals,
    usage::{JsonLines, MetricsRecorder, SinkQueue},
};

use crate::config::{Config, ConfigError};

/// Totals in memory, and what the configuration adds.
#[derive(Clone, Debug, Default)]
pub struct Sinks {
    /// Sums, for the status page.
    pub totals: UsageTotals,
    /// Lines of JSON.
    pub jsonl: Option<SinkQueue>,
    /// SQLite.
    pub ledger: Option<Ledger>,
    metrics: bool,
}

impl Sinks {
    /// Opens them.
    ///
    /// # Errors
    ///
    /// A sentence, if a file cannot be written.
    pub fn open(config: &Config) -> Result<Self, ConfigError> {
        let jsonl = match &config.jsonl {
            Some(path) => {
                let wrong = |why: std::io::Error| {
                    ConfigError::new(format!("{}: cannot be written: {why}", path.display()))
                };
                let lines = JsonLines::append(path).map_err(wrong)?;
                Some(SinkQueue::new(lines).map_err(wrong)?)
            }
            None => None,
        };
        let ledger = match &config.ledger {
            Some(path) => {
                let wrong = |why| ConfigError::new(format!("{}: {why}", path.display()));
                Some(Ledger::open(path).map_err(wrong)?)
            }
            None => None,
        };
        Ok(Self {
            totals: UsageTotals::new(),
            jsonl,
            ledger,
            metrics: config.metrics,
        })
    }

    /// Lets a recorder feed them.
    pub(crate) fn attach(&self, mut layer: UsageRecorderLayer) -> UsageRecorderLayer {
        if let Some(queue) = &self.jsonl {
            layer = layer.and(queue.clone());
        }
        if let Some(ledger) = &self.ledger {
            layer = layer.and(ledger.clone());
        }
        if self.metrics {
            layer = layer.and(MetricsRecorder::new());
        }
        layer
    }

    /// Waits until what was recorded is kept; says what is not.
    pub async fn flush(&self, patience: Duration) {
        let lines = async {
            if let Some(queue) = &self.jsonl
                && let Err(error) = queue.flush(patience).await
            {
                tracing::warn!(%error, "not all records were written as lines of JSON");
            }
        };
        let ledger = async {
            if let Some(ledger) = &self.ledger
                && let Err(error) = ledger.flush(patience).await
            {
                tracing::warn!(%error, "not all records are in the ledger");
            }
        };
        tokio::join!(lines, ledger);
    }
}
