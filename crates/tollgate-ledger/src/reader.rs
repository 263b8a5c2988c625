//! What is read again, for reports and after a restart.
use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use rusqlite::{Connection, Row, params_from_iter, types::Value};

use crate::{
    error::LedgerError,
    row, schema,
    select::{Select, time},
    sums::Sums,
};

/// Reads a ledger, also while others write to it.
///
/// Every call reads the disk and blocks until it has.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
}

/// What records are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// The model that answered, else the one that was asked.
    Model,
    /// The model as the request named it; of what a fallback moved, the one that answered. For what limits have counted,
    /// which look at requests: models answer under dated names.
    Asked,
    /// Whom it was done for: sixteen hexadecimal digits.
    Principal,
    /// The API key, by its digest: sixteen hexadecimal digits.
    Key,
    /// Why generation ended, in our words.
    Finish,
    /// What the answer meant.
    Outcome,
    /// What was asked of the provider.
    Endpoint,
}

impl By {
    fn column(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Asked => "iif(coalesce(position, 0) = 0, coalesce(model_asked, model), model)",
            Self::Principal => "iif(principal IS NULL, NULL, printf('%016x', principal))",
            Self::Key => "iif(key IS NULL, NULL, printf('%016x', key))",
            Self::Finish => "finish",
            Self::Outcome => "coalesce(refused, outcome)",
            Self::Endpoint => "endpoint",
        }
    }
}

/// A length of time and how it is spread over the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spread {
    /// How many there are.
    pub count: u64,
    /// The median.
    pub p50: Duration,
    /// 95 of 100 are no longer.
    pub p95: Duration,
    /// The longest.
    pub max: Duration,
}

impl Spread {
    /// Of values that are sorted.
    fn of(sorted: &[i64]) -> Self {
        // Nearest rank.
        let rank = |percent: usize| (sorted.len() * percent).div_ceil(100).max(1) - 1;
        let value = |at: usize| sorted.get(at).map_or(Duration::ZERO, |&us| length(us));
        Self {
            count: sorted.len() as u64,
            p50: value(rank(50)),
            p95: value(rank(95)),
            max: value(sorted.len().saturating_sub(1)),
        }
    }
}

/// A length of time that records have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Measure {
    /// From begin to end.
    Duration,
    /// From begin to the first generated content.
    FirstToken,
}

/// What the answers of one minute said of one limit.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SeenLimit {
    /// Begin of the minute.
    pub minute: SystemTime,
    /// The model that answered; empty if none was named.
    pub model: String,
    /// What is limited, as [`Dimension::as_str`](tollgate_core::wire::limits::Dimension::as_str) names it.
    pub dimension: String,
    /// The window, as the header's name states it; empty where it does not.
    pub window: String,
    /// The window as it follows from the reset, where it does.
    pub inferred: Option<Duration>,
    /// Units in all, at last.
    pub units: Option<f64>,
    /// The least that remained.
    pub remaining: Option<f64>,
}

impl Reader {
    /// Opens a ledger that is there.
    ///
    /// # Errors
    ///
    /// If it is not there, is none, or is of another version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let db = schema::open_read_only(path.as_ref())?;
        Ok(Self { db })
    }

    /// All sums of a selection.
    ///
    /// Of the calls of a calendar period it is what a cap has spent, which a restart would forget otherwise.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn sums(&self, select: &Select) -> Result<Sums, LedgerError> {
        let (condition, values) = select.condition();
        let sql = format!(
            "SELECT {} FROM record WHERE {condition}",
            Sums::columns(select)
        );
        let mut all = self.rows(&sql, values, |row| Sums::read(row, 0))?;
        Ok(all.pop().unwrap_or_default())
    }

    /// The sums for each value of a column, the most records first. `None`: those that have no value.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn sums_by(
        &self,
        by: By,
        select: &Select,
    ) -> Result<Vec<(Option<String>, Sums)>, LedgerError> {
        let (condition, values) = select.condition();
        let sql = format!(
            "SELECT {}, {} FROM record WHERE {condition} GROUP BY 1 ORDER BY 2 DESC, 1",
            by.column(),
            Sums::columns(select)
        );
        self.rows(&sql, values, |row| Ok((row.get(0)?, Sums::read(row, 1)?)))
    }

    /// The sums for each step of time that has records, in order: minutes, hours, days in UTC.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn sums_per(
        &self,
        step: Duration,
        select: &Select,
    ) -> Result<Vec<(SystemTime, Sums)>, LedgerError> {
        let (condition, values) = select.condition();
        let sql = format!(
            "SELECT {}, {} FROM record WHERE {condition} GROUP BY 1 ORDER BY 1",
            bucket(step, select),
            Sums::columns(select)
        );
        self.rows(&sql, values, |row| {
            Ok((time(row.get(0)?), Sums::read(row, 1)?))
        })
    }

    /// How a length of time is spread for each step of time that has it.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn spread_per(
        &self,
        step: Duration,
        measure: Measure,
        select: &Select,
    ) -> Result<Vec<(SystemTime, Spread)>, LedgerError> {
        let (condition, values) = select.condition();
        let column = match measure {
            Measure::Duration => "duration_us",
            Measure::FirstToken => "first_token_us",
        };
        let sql = format!(
            "SELECT {}, {column} FROM record WHERE {condition} AND {column} IS NOT NULL ORDER BY 1, 2",
            bucket(step, select)
        );
        let mut spreads: Vec<(SystemTime, Spread)> = Vec::new();
        let (mut at, mut sorted) = (None, Vec::new());
        let mut statement = self.db.prepare(&sql)?;
        let mut rows = statement.query(params_from_iter(values))?;
        while let Some(row) = rows.next()? {
            let begin: i64 = row.get(0)?;
            if at != Some(begin) {
                spreads.extend(at.map(|at| (time(at), Spread::of(&sorted))));
                at = Some(begin);
                sorted.clear();
            }
            sorted.push(row.get(1)?);
        }
        spreads.extend(at.map(|at| (time(at), Spread::of(&sorted))));
        Ok(spreads)
    }

    /// How many principals there are.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn principals(&self, select: &Select) -> Result<u64, LedgerError> {
        let (condition, values) = select.condition();
        let sql = format!("SELECT count(DISTINCT principal) FROM record WHERE {condition}");
        let mut all = self.rows(&sql, values, |row| row.get::<_, i64>(0))?;
        Ok(all.pop().unwrap_or_default().unsigned_abs())
    }

    /// What the answers' headers said of the limits, by minute, from `since` to before `until`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn limits(
        &self,
        since: SystemTime,
        until: SystemTime,
    ) -> Result<Vec<SeenLimit>, LedgerError> {
        let sql =
            "SELECT minute, model, dimension, window, inferred_us, units, remaining FROM rate_limit
            WHERE minute >= ? AND minute < ? ORDER BY minute, model, dimension, window";
        let minute = |at: SystemTime| row::date(at).div_euclid(MINUTE);
        let last = row::date(until)
            .saturating_add(MINUTE - 1)
            .div_euclid(MINUTE);
        let values = vec![Value::from(minute(since)), last.into()];
        self.rows(sql, values, |row| {
            Ok(SeenLimit {
                minute: time(row.get::<_, i64>(0)?.saturating_mul(MINUTE)),
                model: row.get(1)?,
                dimension: row.get(2)?,
                window: row.get(3)?,
                inferred: row.get::<_, Option<i64>>(4)?.map(length),
                units: row.get(5)?,
                remaining: row.get(6)?,
            })
        })
    }

    fn rows<T>(
        &self,
        sql: &str,
        values: Vec<Value>,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let mut statement = self.db.prepare(sql)?;
        let rows = statement.query_map(params_from_iter(values), read)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Microseconds.
const MINUTE: i64 = 60_000_000;

/// Begin of the step that a record falls into, in SQL.
fn bucket(step: Duration, select: &Select) -> String {
    let step = row::micros(step).max(1);
    let at = select.at();
    // Rounded down also before 1970.
    format!("{at} - ({at} % {step} + {step}) % {step}")
}

fn length(us: i64) -> Duration {
    Duration::from_micros(u64::try_from(us).unwrap_or(0))
}
