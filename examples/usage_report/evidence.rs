//! How near to the limits: what is plotted, and the evidence that a form for higher limits asks for.
use std::time::{Duration, SystemTime};

use tollgate_ledger::{By, LedgerError, Reader, SeenLimit, Select, Sums};

use crate::{
    figures::{DAY, HOUR, MINUTE},
    format::{count, dollars, share},
    table::Table,
};
use tollgate::price::Pico;

/// Models that get plots and evidence of their own.
const MODELS: usize = 4;

/// What went to one model, minute by minute.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Its name.
    pub model: String,
    /// Minutes in which something was sent.
    pub minutes: Vec<(SystemTime, Sums)>,
    /// What its answers said of limits that count by the minute.
    pub limits: Vec<SeenLimit>,
}

impl Traffic {
    /// The limit of a dimension when it was stated last.
    fn limit(&self, dimension: &str) -> Option<f64> {
        let mut stated = self.limits.iter().rev();
        stated.find(|limit| limit.dimension == dimension)?.units
    }
}

/// For the models with the most requests.
///
/// # Errors
///
/// If the ledger cannot be read.
pub fn gather(
    reader: &Reader,
    calls: &Select,
    sent: &Select,
    all: Vec<(SystemTime, Sums)>,
    begin: SystemTime,
    end: SystemTime,
) -> Result<(Vec<Traffic>, Vec<Table>), LedgerError> {
    let mut limits = reader.limits(begin, end)?;
    limits.retain(by_the_minute);
    let models = reader.sums_by(By::Model, sent)?;
    let named = models.into_iter().filter_map(|(name, _)| name);
    let mut traffic = Vec::new();
    let mut columns = Vec::new();
    for model in named.take(MODELS) {
        let of_model = sent.clone().model(&model);
        let one = Traffic {
            minutes: reader.sums_per(MINUTE, &of_model)?,
            limits: limits
                .iter()
                .filter(|limit| limit.model == model)
                .cloned()
                .collect(),
            model: model.clone(),
        };
        columns.push(column(
            reader,
            &one,
            &calls.clone().model(&model),
            &of_model,
        )?);
        traffic.push(one);
    }
    let whole = Traffic {
        model: "all models".to_owned(),
        minutes: all,
        limits: Vec::new(),
    };
    columns.push(column(reader, &whole, calls, sent)?);
    let mut head = vec![String::new()];
    head.extend(traffic.iter().map(|one| one.model.clone()));
    head.push(whole.model);
    let rows = LINES
        .iter()
        .enumerate()
        .map(|(at, line)| {
            let cells = columns.iter().map(|column| column[at].clone());
            std::iter::once((*line).to_owned()).chain(cells).collect()
        })
        .collect();
    let title = "Evidence for a higher limit".to_owned();
    Ok((traffic, vec![Table { title, head, rows }]))
}

const LINES: [&str; 17] = [
    "requests a minute, peak",
    "requests a minute, 95th percentile",
    "requests a minute, limit",
    "peak, of the limit",
    "tokens a minute, peak",
    "tokens a minute, 95th percentile",
    "tokens a minute, limit",
    "peak, of the limit",
    "input tokens a minute, peak",
    "output tokens a minute, peak",
    "requests a day, peak",
    "minutes with traffic",
    "refused by the provider for a limit",
    "users (principals)",
    "cost an hour, mean of hours with calls",
    "cost an hour, peak",
    "input and output of a request, mean",
];

/// One model's answers to [`LINES`].
fn column(
    reader: &Reader,
    traffic: &Traffic,
    calls: &Select,
    sent: &Select,
) -> Result<Vec<String>, LedgerError> {
    let minutes = &traffic.minutes;
    let requests = Spread::of(minutes, |sums| sums.requests.into());
    let tokens = Spread::of(minutes, Sums::tokens);
    let hours = reader.sums_per(HOUR, calls)?;
    let spent: Vec<Pico> = hours.iter().map(|(_, sums)| sums.cost).collect();
    let mean = spent.iter().copied().sum::<Pico>().get() / (spent.len().max(1) as u128);
    let days = reader.sums_per(DAY, sent)?;
    let all = reader.sums(sent)?;
    let limit = |dimension| traffic.limit(dimension);
    let token_limit =
        limit("tokens").or_else(|| Some(limit("input_tokens")? + limit("output_tokens")?));
    let stated = |limit: Option<f64>| match limit {
        Some(units) if units >= 0.0 => count(units as u128),
        _ => "not stated".to_owned(),
    };
    let of_limit = |peak: u128, limit: Option<f64>| match limit {
        Some(units) if units > 0.0 => format!("{:.0} %", peak as f64 * 100.0 / units),
        _ => "–".to_owned(),
    };
    let records = u128::from(all.records.max(1));
    let priced = reader.sums(calls)?;
    let money = |amount| match priced.unpriced < priced.records {
        true => dollars(amount),
        false => "unknown".to_owned(),
    };
    Ok(vec![
        count(requests.peak),
        count(requests.p95),
        stated(limit("requests")),
        of_limit(requests.peak, limit("requests")),
        count(tokens.peak),
        count(tokens.p95),
        stated(token_limit),
        of_limit(tokens.peak, token_limit),
        count(Spread::of(minutes, |sums| sums.input).peak),
        count(Spread::of(minutes, |sums| sums.output).peak),
        count(Spread::of(&days, |sums| sums.requests.into()).peak),
        count(minutes.len() as u64),
        share(all.rate_limited, all.requests),
        count(reader.principals(calls)?),
        money(Pico::new(mean)),
        money(spent.iter().max().copied().unwrap_or_default()),
        format!(
            "{} + {}",
            count(all.input / records),
            count(all.output / records)
        ),
    ])
}

/// The largest value, and the one that 95 of 100 do not exceed.
struct Spread {
    peak: u128,
    p95: u128,
}

impl Spread {
    fn of(steps: &[(SystemTime, Sums)], value: impl Fn(&Sums) -> u128) -> Self {
        let mut values: Vec<_> = steps.iter().map(|(_, sums)| value(sums)).collect();
        values.sort_unstable();
        // Nearest rank.
        let rank = (values.len() * 95).div_ceil(100).max(1) - 1;
        let at = |at: usize| values.get(at).copied().unwrap_or(0);
        Self {
            peak: at(values.len().saturating_sub(1)),
            p95: at(rank),
        }
    }
}

/// Whether a limit counts by the minute, by its name or by how it refills. What says nothing is taken for one, as it mostly is.
fn by_the_minute(limit: &SeenLimit) -> bool {
    let minute = Duration::from_secs(45)..Duration::from_secs(90);
    match (limit.window.as_str(), limit.inferred) {
        ("minute", _) | ("", None) => true,
        ("", Some(window)) => minute.contains(&window),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_95th_percentile_is_a_minute_that_was() {
        let minutes: Vec<_> = (1..=100_u64)
            .map(|n| {
                let mut sums = Sums::default();
                sums.requests = n;
                (SystemTime::UNIX_EPOCH, sums)
            })
            .collect();
        let spread = Spread::of(&minutes, |sums| sums.requests.into());
        assert_eq!((spread.peak, spread.p95), (100, 95));
        let one = Spread::of(&minutes[..1], |sums| sums.requests.into());
        assert_eq!((one.peak, one.p95), (1, 1));
        assert_eq!(Spread::of(&[], |_| 1).peak, 0);
    }
}
