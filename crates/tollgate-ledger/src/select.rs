//! Which records are meant.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Value;
use tollgate_core::principal::Principal;

use crate::row;

/// Which records a [`Reader`](crate::Reader) looks at: all calls, unless told otherwise.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use tollgate_ledger::Select;
///
/// # let month_start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_761_955_200);
/// let spent_by_one_model = Select::calls().since(month_start).model("gpt-5");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Select {
    sent: bool,
    answered: bool,
    since: Option<SystemTime>,
    until: Option<SystemTime>,
    model: Option<String>,
    principal: Option<Principal>,
    key: Option<Principal>,
    streams: bool,
}

impl Select {
    /// Every call once, dated by its begin: for sums of tokens and money, by whom and what for.
    ///
    /// Where two recorders of a stack have recorded a call it is the outer one's record.
    #[must_use]
    pub fn calls() -> Self {
        Self::default()
    }

    /// What was sent to the provider, dated by when: for rates, and for how fast the provider answers.
    ///
    /// Where a recorder stands inside the budget, these are its records, one for each request. Where none does, these are the calls, and
    /// as it is not known how long one had to wait before it was sent it is dated by its answer's head, or else by its end. What
    /// a layer of ours refused was not sent.
    #[must_use]
    pub fn sent() -> Self {
        let sent = true;
        Self {
            sent,
            ..Self::default()
        }
    }

    /// Counts only [requests](crate::Sums::requests) that had an answer, were it an error or one that broke: for limits, which have
    /// back what was never sent.
    ///
    /// The ledger cannot tell a request whose connection failed, or whose caller left while it stood in a queue, from
    /// one that was lost on its way before its answer began: neither is counted. Sums of tokens and money are not touched.
    #[must_use]
    pub fn answered(mut self) -> Self {
        self.answered = true;
        self
    }

    /// Only what began at this time or later.
    #[must_use]
    pub fn since(mut self, from: SystemTime) -> Self {
        self.since = Some(from);
        self
    }

    /// Only what began before.
    #[must_use]
    pub fn until(mut self, end: SystemTime) -> Self {
        self.until = Some(end);
        self
    }

    /// Only what is counted under this model: the one that answered, else the one that was asked.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Only what was done for this user or tenant.
    ///
    /// Digests are other ones in each process, unless all of them [set the same key](Principal::set_key) first.
    #[must_use]
    pub fn principal(mut self, who: Principal) -> Self {
        self.principal = Some(who);
        self
    }

    /// Only what went out with this API key, by its [digest](Principal::of_credential).
    #[must_use]
    pub fn key(mut self, key: Principal) -> Self {
        self.key = Some(key);
        self
    }

    /// Only streams.
    #[must_use]
    pub fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// When a record happened, in SQL.
    pub(crate) fn at(&self) -> &'static str {
        match self.sent {
            false => "started_us",
            // Saturated numbers are possible: a sum that does not fit becomes a real, which a cast takes back.
            true => {
                "CAST(started_us + iif(kind = 'attempt', 0, coalesce(head_us, duration_us)) AS INTEGER)"
            }
        }
    }

    /// How many requests a record stands for.
    pub(crate) fn requests(&self) -> &'static str {
        match (self.sent, self.answered) {
            (false, false) => "max(0, attempt - (refused IS NOT NULL))",
            (true, false) => "iif(kind = 'attempt', 1, max(0, attempt - (refused IS NOT NULL)))",
            // Attempts before the last one stand beside it, those of a call alone.
            (_, true) => {
                "(refused IS NULL AND status IS NOT NULL) + iif(kind = 'call' AND attempt > 1,
                    (SELECT count(*) FROM attempt WHERE attempt.record = record.id AND attempt.status IS NOT NULL), 0)"
            }
        }
    }

    /// How many of a record's requests the provider refused for a limit: its own, and those before it that have no record.
    pub(crate) fn rate_limited(&self) -> String {
        let refused = "outcome IN ('rate_limited', 'never_fits')";
        format!(
            "(refused IS NULL AND {refused}) + iif(kind = 'call' AND attempt > 1,
                (SELECT count(*) FROM attempt WHERE attempt.record = record.id AND attempt.{refused}), 0)"
        )
    }

    /// The condition, with its values in their order.
    pub(crate) fn condition(&self) -> (String, Vec<Value>) {
        let mut condition = String::from(match self.sent {
            false => "NOT nested",
            true => {
                "refused IS NULL AND (nested OR call NOT IN (SELECT call FROM record WHERE nested))"
            }
        });
        let mut values = Vec::new();
        let mut and = |text: &str, value: Value| {
            condition.push_str(text);
            values.push(value);
        };
        if let Some(from) = self.since {
            and(" AND started_us >= ?", row::date(from).into());
        }
        if let Some(end) = self.until {
            and(" AND started_us < ?", row::date(end).into());
        }
        if let Some(model) = &self.model {
            and(" AND model = ?", model.clone().into());
        }
        if let Some(who) = self.principal {
            and(" AND principal = ?", who.digest().cast_signed().into());
        }
        if let Some(key) = self.key {
            and(" AND key = ?", key.digest().cast_signed().into());
        }
        if self.streams {
            condition.push_str(" AND stream");
        }
        (condition, values)
    }
}

/// A date out of the ledger.
pub(crate) fn time(us: i64) -> SystemTime {
    let distance = Duration::from_micros(us.unsigned_abs());
    let at = if us < 0 {
        UNIX_EPOCH.checked_sub(distance)
    } else {
        UNIX_EPOCH.checked_add(distance)
    };
    at.unwrap_or(UNIX_EPOCH)
}
