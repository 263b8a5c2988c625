//! What is sent to the script, and what it answers.
//!
//! The script counts in doubles, which are exact up to 2^53. Money is counted in 10⁻¹² dollars here and in millionths
//! there, and limits of anything else above 2^50 units in coarser grains: what is asked and told is rounded up, what is
//! granted is whole grains.
use std::time::{Duration, SystemTime};

use redis::{FromRedisValue, ParsingError, Value};
use serde::Serialize;
use tollgate_budget::{
    Unit,
    leases::{Kept, Order},
};

/// Above this, units are counted in grains.
const EXACT: u64 = 1 << 50;

/// One limit's part in a trip.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    k: &'static str,
    amt: u64,
    per: u64,
    burst: u64,
    l: u64,
    w: u64,
    span: u64,
    ends: u64,
    hold: u64,
    want: u64,
    need: u64,
    dem: f64,
    owed: u64,
    /// Used without the server: how long ago, and how much.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) away: Vec<(u64, u64)>,
    freed: u64,
    refunds: Vec<(i64, u64)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seen: Option<u64>,
    age: u64,
    pub(crate) claim: u64,
    /// This process has visited it before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) known: bool,
    /// What is remembered of the state, where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    mem: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hist: Vec<(i64, i64, u64)>,
}

/// So many units are one on the server. Of money always the same: what is stored outlives a change of the limit.
pub(crate) fn grain(order: &Order) -> u64 {
    match order.unit {
        Unit::Money => 1_000_000,
        _ => order.amount.div_ceil(EXACT).max(1),
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(EXACT).min(EXACT)
}

impl Line {
    pub(crate) fn new(order: &Order, spread: Duration) -> Self {
        let grain = grain(order);
        let up = |units: u64| units.div_ceil(grain);
        let (k, burst, l, w, ends) = match order.kept {
            Kept::Bucket { burst } => ("b", (burst / grain).max(1), 0, 0, 0),
            Kept::Rolling { amount, window } => {
                ("r", 0, (amount / grain).max(1), micros(window), 0)
            }
            Kept::Cap { ends } => {
                let ends = ends.duration_since(SystemTime::UNIX_EPOCH);
                ("c", 0, 0, 0, ends.map_or(0, |ends| ends.as_secs()))
            }
            _ => ("b", 1, 0, 0, 0),
        };
        Self {
            k,
            amt: (order.amount / grain).max(1),
            per: micros(order.period).max(1),
            burst,
            l,
            w,
            span: micros(order.hold.saturating_add(spread)),
            ends,
            hold: micros(order.hold).max(1),
            want: up(order.want),
            need: up(order.need),
            dem: if order.demand.is_finite() {
                order.demand.max(0.0) / grain as f64
            } else {
                0.0
            },
            // More than a period's is no use to tell, and would not be forgotten for long.
            owed: up(order.owed.min(order.amount)),
            freed: order.freed.min(order.amount) / grain,
            away: order
                .away
                .iter()
                .map(|&(age, units)| (micros(age), up(units)))
                .collect(),
            refunds: order
                .refunds
                .iter()
                .map(|&(date, units)| (date, units / grain))
                .collect(),
            seen: order.seen.map(|(used, _)| used / grain),
            age: order.seen.map_or(0, |(_, age)| micros(age)),
            claim: up(order.claim),
            known: false,
            mem: None,
            hist: Vec::new(),
        }
    }

    /// The same to be told what is remembered, and for nothing else.
    pub(crate) fn remembering(&self, mem: Option<String>, hist: Vec<(i64, i64, u64)>) -> Self {
        Self {
            want: 0,
            need: 0,
            owed: 0,
            away: Vec::new(),
            freed: 0,
            refunds: Vec::new(),
            seen: None,
            known: false,
            mem,
            hist,
            ..self.clone()
        }
    }

    #[cfg(test)]
    pub(crate) fn of(k: &'static str) -> Self {
        Self {
            k,
            amt: 1,
            per: 1,
            burst: 1,
            l: 1,
            w: 1,
            span: 1,
            ends: 1,
            hold: 1,
            want: 1,
            need: 1,
            dem: 1.0,
            owed: 0,
            freed: 0,
            away: Vec::new(),
            refunds: Vec::new(),
            seen: None,
            age: 0,
            claim: 1,
            known: false,
            mem: None,
            hist: Vec::new(),
        }
    }

    pub(crate) fn is_rolling(&self) -> bool {
        self.k == "r"
    }

    pub(crate) fn is_cap(&self) -> bool {
        self.k == "c"
    }

    /// What is debited beside what is granted: how long ago, and how much.
    pub(crate) fn debts(&self) -> impl Iterator<Item = (i64, u64)> + '_ {
        let away = self.away.iter();
        let away = away.map(|&(age, units)| (i64::try_from(age).unwrap_or(i64::MAX), units));
        away.chain((self.owed > 0).then_some((0, self.owed)))
    }

    /// When a cap's period ends, in microseconds.
    pub(crate) fn ends(&self) -> i64 {
        i64::try_from(self.ends.saturating_mul(1_000_000)).unwrap_or(i64::MAX)
    }

    /// What gives units back is told once: the server may have heard it, and not been able to say so.
    pub(crate) fn told_before(&mut self) {
        self.freed = 0;
        self.refunds.clear();
    }

    /// How many numbers it takes to tell what is remembered.
    pub(crate) fn size(&self) -> usize {
        self.hist.len()
    }

    pub(crate) fn window(&self) -> i64 {
        i64::try_from(self.w).unwrap_or(i64::MAX)
    }
}

/// What is sent.
#[derive(Debug, Serialize)]
pub(crate) struct Trip<'a> {
    /// This process.
    pub(crate) h: &'a str,
    /// The epoch that it knows, and the server's time at its last visit.
    pub(crate) e: i64,
    pub(crate) t: i64,
    /// What has passed since, by its own clock.
    pub(crate) p: u64,
    /// The epoch for which it tells what it remembers.
    pub(crate) a: i64,
    /// The number of this visit.
    pub(crate) s: u64,
    /// What its wall clock shows.
    pub(crate) wall: u64,
    pub(crate) horizon: u64,
    /// After a loss, so long nothing is granted.
    pub(crate) quiet: u64,
    /// The first visit on this connection: it may be another server.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) new: bool,
    /// For so long it could not reach the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) down: Option<u64>,
    /// It is busy, and comes again within so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beat: Option<u64>,
    /// It is not done telling, and needs so long at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) more: Option<u64>,
    /// The last visit.
    pub(crate) bye: bool,
    pub(crate) g: Vec<(String, u64)>,
    pub(crate) o: Vec<Line>,
}

/// What the script answers.
#[derive(Debug)]
pub(crate) struct Answer {
    /// It wants to be told first what is remembered.
    pub(crate) remember: bool,
    pub(crate) epoch: i64,
    pub(crate) now: i64,
    /// What was granted before this need not be told.
    pub(crate) since: i64,
    /// Processes that were here lately, and for how long nothing is granted.
    pub(crate) processes: u32,
    pub(crate) quiet: Duration,
    pub(crate) gates: Vec<(String, Duration)>,
    pub(crate) granted: Vec<Granted>,
}

/// Its answer for one limit.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) units: u64,
    pub(crate) wait: Duration,
    pub(crate) back: Duration,
    pub(crate) share: f64,
    pub(crate) date: i64,
    pub(crate) mem: String,
}

impl FromRedisValue for Answer {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        type Raw = (String, i64, i64, i64, i64, i64, Vec<String>, Vec<String>);
        let (word, epoch, now, since, processes, quiet, gates, granted): Raw =
            FromRedisValue::from_redis_value(value)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite());
        let time =
            |text: &str| Duration::from_micros(number(text).unwrap_or(0.0).clamp(0.0, 1e15) as u64);
        Ok(Self {
            remember: word == "REMEMBER",
            epoch,
            now,
            since,
            processes: u32::try_from(processes).unwrap_or(1),
            quiet: Duration::from_micros(u64::try_from(quiet).unwrap_or(0)),
            gates: gates
                .chunks_exact(2)
                .map(|gate| (gate[0].clone(), time(&gate[1])))
                .collect(),
            granted: granted
                .chunks_exact(6)
                .map(|part| Granted {
                    units: part[0].parse().unwrap_or(0),
                    wait: time(&part[1]),
                    back: time(&part[2]),
                    share: number(&part[3]).unwrap_or(0.0),
                    date: part[4].parse().unwrap_or(0),
                    mem: part[5].clone(),
                })
                .collect(),
        })
    }
}
