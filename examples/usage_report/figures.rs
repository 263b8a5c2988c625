//! What the report is made of, read from the ledger once.
use std::time::{Duration, SystemTime};

use tollgate_ledger::{By, LedgerError, Measure, Reader, Select, Spread, Sums};

use crate::{
    evidence::{self, Traffic},
    format::{cost, count, date, share},
    table::Table,
};

pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3_600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// Steps of time that a plot may have.
const STEPS: [u64; 13] = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1_440, 10_080];
/// Most steps in a plot.
const MOST: u64 = 400;

/// All figures.
#[derive(Debug)]
pub struct Report {
    /// Begin of the first minute and end of the last; `None`: the ledger is empty.
    pub span: Option<(SystemTime, SystemTime)>,
    /// Over all calls.
    pub all: Sums,
    /// Principals.
    pub users: u64,
    /// By day, model, principal, finish and outcome.
    pub tables: Vec<Table>,
    /// What a form for higher limits asks for.
    pub evidence: Vec<Table>,
    /// Requests and tokens by minute, for the models with the most requests.
    pub traffic: Vec<Traffic>,
    /// By day.
    pub days: Vec<(SystemTime, Sums)>,
    /// Step of the next two.
    pub step: Duration,
    /// Begin to end, as the provider was asked.
    pub latency: Vec<(SystemTime, Spread)>,
    /// Begin to first content.
    pub first_token: Vec<(SystemTime, Spread)>,
}

impl Report {
    /// What a reader must know to read the tables right.
    pub const NOTES: [&'static str; 3] = [
        "A cost is a sum over what is priced; \"at least\" says that some calls are not, or that an answer was cut off. Unknown is not zero.",
        "Peaks and 95th percentiles are over whole minutes in UTC in which there was traffic. What a layer refused before it was sent is not in them.",
        "Requests are dated by when they were sent where a recorder stands inside the budget; elsewhere by the head of the answer, for how long they waited is not known.",
    ];

    /// Reads it.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read.
    pub fn read(
        reader: &Reader,
        since: Option<SystemTime>,
        until: Option<SystemTime>,
    ) -> Result<Self, LedgerError> {
        let within = |mut select: Select| {
            if let Some(since) = since {
                select = select.since(since);
            }
            if let Some(until) = until {
                select = select.until(until);
            }
            select
        };
        let (calls, sent) = (within(Select::calls()), within(Select::sent()));
        let minutes = reader.sums_per(MINUTE, &sent)?;
        let days = reader.sums_per(DAY, &calls)?;
        let begin = minutes.first().or(days.first()).map(|(at, _)| *at);
        let end = minutes.last().or(days.last()).map(|(at, _)| *at);
        let span = begin
            .zip(end)
            .map(|(begin, end)| (begin, end.checked_add(MINUTE).unwrap_or(end)));
        let step = span.map_or(MINUTE, |(begin, end)| step(begin, end));

        let by = |by, title: &str, column: &str, nameless: &str| {
            Ok::<_, LedgerError>(Table::of_sums(
                title,
                column,
                nameless,
                reader.sums_by(by, &calls)?,
            ))
        };
        let by_day = days
            .iter()
            .rev()
            .map(|(at, sums)| (Some(date(*at, "%F %a")), *sums));
        let tables = vec![
            Table::of_sums(
                "By day (UTC), the latest first",
                "day",
                "",
                by_day.collect(),
            ),
            by(By::Model, "By model", "model", "(none named)")?,
            by(
                By::Principal,
                "By principal (digests, never names)",
                "principal",
                "(nobody named)",
            )?,
            by(By::Key, "By API key (digests)", "key", "(none seen)")?,
            by(By::Finish, "By finish reason", "finish", "(none)")?,
            by(By::Outcome, "By outcome", "outcome", "(caller left)")?,
            by(By::Endpoint, "By endpoint", "endpoint", "")?,
        ];
        let all = reader.sums(&calls)?;
        let (traffic, evidence) = match span {
            Some((begin, end)) => evidence::gather(reader, &calls, &sent, minutes, begin, end)?,
            None => Default::default(),
        };
        Ok(Self {
            span,
            all,
            users: reader.principals(&calls)?,
            tables,
            evidence,
            traffic,
            days,
            step,
            latency: reader.spread_per(step, Measure::Duration, &sent)?,
            first_token: reader.spread_per(step, Measure::FirstToken, &sent.streams())?,
        })
    }

    /// A few lines that say the most.
    pub fn summary(&self) -> Vec<String> {
        let Some((begin, end)) = self.span else {
            return vec!["The ledger holds no record of that time.".to_owned()];
        };
        let all = &self.all;
        let mut lines = vec![
            format!(
                "{} to {} UTC",
                date(begin, "%F %H:%M"),
                date(end, "%F %H:%M")
            ),
            format!(
                "{} calls for {} principals, {} requests, {} failed",
                count(all.records),
                count(self.users),
                count(all.requests),
                share(all.failed, all.records)
            ),
            format!(
                "{} input and {} output tokens",
                count(all.input),
                count(all.output)
            ),
            cost(all),
        ];
        if all.unpriced > 0 {
            lines.push(format!("{} calls are of unknown cost", count(all.unpriced)));
        }
        lines
    }
}

/// A step of time with which a plot from `begin` to `end` has neither too few nor too many.
pub fn step(begin: SystemTime, end: SystemTime) -> Duration {
    let minutes = end
        .duration_since(begin)
        .unwrap_or_default()
        .as_secs()
        .div_ceil(60);
    let enough = |step: &&u64| minutes.div_ceil(**step) <= MOST;
    let step = STEPS.iter().find(enough).copied();
    MINUTE * u32::try_from(step.unwrap_or_else(|| minutes.div_ceil(MOST))).unwrap_or(u32::MAX)
}
