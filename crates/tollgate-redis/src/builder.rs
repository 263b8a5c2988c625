//! The settings of a shared budget.
use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use redis::Script;
use tokio::{sync::mpsc, time::Instant};
use tollgate_budget::{
    Budget, BudgetBuilder, InvalidLimit, Limit, Scope,
    leases::{LeaseTerms, Outage},
};
use tollgate_core::principal::Principal;

use crate::{
    budget::RedisBudget, driver::Driver, keys::Keys, place::Address, remembered::Remembered,
    status::Status,
};

/// The settings of a [`RedisBudget`].
#[derive(Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RedisBudgetBuilder {
    address: Address,
    name: Box<str>,
    prefix: Box<str>,
    settings: BudgetBuilder,
    keyed: bool,
    terms: LeaseTerms,
    horizon: Duration,
    timeout: Duration,
    processes: u32,
}

impl RedisBudgetBuilder {
    pub(crate) fn of(url: String) -> Self {
        Self {
            address: Address::Url(url),
            name: "default".into(),
            prefix: "tg".into(),
            settings: Budget::builder(),
            keyed: false,
            terms: LeaseTerms::default(),
            horizon: Duration::from_secs(2),
            timeout: Duration::from_millis(100),
            processes: 1,
        }
    }

    #[cfg(feature = "sentinel")]
    pub(crate) fn of_sentinels(urls: Vec<String>, master: String) -> Self {
        let mut builder = Self::of(String::new());
        builder.address = Address::Sentinels(urls, master);
        builder
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn of_cluster(urls: Vec<String>) -> Self {
        let mut builder = Self::of(String::new());
        builder.address = Address::Cluster(urls);
        builder
    }

    /// Whose limits these are, such as the organisation and the class of models: all processes that give the same name
    /// share them. On the server there is a digest of it. Default: `"default"`.
    pub fn name(mut self, name: impl Into<Box<str>>) -> Self {
        self.name = name.into();
        self
    }

    /// What all keys on the server begin with; without braces. Default: `"tg"`.
    pub fn prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds a limit; all of them hold at once, and a request takes from all or from none.
    pub fn limit(self, limit: Limit) -> Self {
        self.limits([limit])
    }

    /// Adds limits.
    pub fn limits(mut self, limits: impl IntoIterator<Item = Limit>) -> Self {
        let limits: Vec<_> = limits.into_iter().collect();
        self.keyed |= limits
            .iter()
            .any(|limit| !matches!(limit.whose(), Scope::Global | Scope::Model));
        self.settings = self.settings.limits(limits);
        self
    }

    /// The settings of the part of the budget that every process keeps: the queue, charging, prices and so on.
    ///
    /// Limits are told here and not there, or they would be kept by each process for itself.
    pub fn settings(mut self, change: impl FnOnce(BudgetBuilder) -> BudgetBuilder) -> Self {
        self.settings = change(self.settings);
        self
    }

    /// How long units that were bought may be used. Default 1 s.
    ///
    /// Longer: fewer round trips, and more of the limit set apart, `hold` and [`spread`](Self::spread) of its rate: of a
    /// bucket that much of its burst, once; of a window that part of the limit, always (1.8 % of a minute).
    pub fn hold(mut self, hold: Duration) -> Self {
        self.terms.hold = hold;
        self
    }

    /// How far ahead units may be booked before they are there. Default 2 s; two holds or more.
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = horizon;
        self
    }

    /// By how much the ways of two requests to the provider may differ. Default 100 ms.
    pub fn spread(mut self, spread: Duration) -> Self {
        self.terms.spread = spread;
        self
    }

    /// The longest that a visit may take before the server counts as away. Default 100 ms.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self.terms.visit = timeout;
        self
    }

    /// How many processes share the budget, as far as you know. Default 1.
    ///
    /// By so many [`Outage::LocalShare`] divides a limit while no server has been seen that knows better: tell it where
    /// processes may start during an outage. Later it is the most that the server has seen in the last minute.
    pub fn processes(mut self, processes: u32) -> Self {
        self.processes = processes;
        self
    }

    /// What rates do without the server. Default: [`Outage::LocalShare`]`(1.0)`.
    pub fn on_outage(mut self, outage: Outage) -> Self {
        self.terms.rates = outage;
        self
    }

    /// What limits of money and calendar caps do without the server. Default: [`Outage::FailClosed`].
    pub fn caps_on_outage(mut self, outage: Outage) -> Self {
        self.terms.caps = outage;
        self
    }

    /// Makes the budget, and visits the server for the first time. A server that is not there is no error: it is tried
    /// again, and meanwhile the budget does as [`on_outage`](Self::on_outage) says.
    ///
    /// Where the server knows nothing of this budget (it is the first time, or its state was lost) nothing is granted until
    /// other processes have had the time to tell what they remember; so long this waits, 1.5 s with the settings as they
    /// come.
    ///
    /// Starts a task, which ends with the last handle of the budget.
    ///
    /// # Errors
    ///
    /// A limit, a setting or an address that cannot be; the text says which and why. So two limits that the server
    /// would take for one, such as two of one name that differ in their amounts alone.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time and I/O.
    pub async fn build(self) -> Result<RedisBudget, InvalidStore> {
        if self.keyed && !Principal::has_set_key() {
            return Err(InvalidStore::from(
                "limits for each user, tenant, tag or key need digests that are the same in all processes: call Principal::set_key first",
            ));
        }
        if self.prefix.contains(['{', '}']) {
            return Err(InvalidStore::from(
                "a prefix has no braces: a cluster would take them for what keeps the keys of a budget together",
            ));
        }
        if self.processes == 0 {
            return Err(InvalidStore::from("at least one process uses the budget"));
        }
        if self.timeout < Duration::from_millis(1) || self.timeout > Duration::from_secs(10) {
            return Err(InvalidStore::from("a visit may take from 1 ms to 10 s"));
        }
        if self.horizon < self.terms.hold {
            return Err(InvalidStore::from(
                "units are booked at least as far ahead as they are held",
            ));
        }
        let place = self.address.open()?;
        let (budget, leases) = self.settings.leased(self.terms)?;
        let status = Arc::new(Mutex::new(Status::default()));
        let (closer, closers) = mpsc::channel(4);
        let mut driver = Driver {
            leases,
            place,
            keys: Keys::new(&self.prefix, &self.name),
            script: Script::new(include_str!("trip.lua")),
            timeout: self.timeout,
            horizon: self.horizon,
            hold: self.terms.hold,
            spread: self.terms.spread,
            status: Arc::clone(&status),
            holder: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            link: None,
            known: false,
            checked: false,
            epoch: 0,
            server_time: 0,
            visited: Instant::now(),
            took: Duration::ZERO,
            quiet: Duration::ZERO,
            granted: None,
            started: Instant::now(),
            number: 0,
            remembered: Remembered::default(),
            telling: None,
            processes: (self.processes, Instant::now()),
            gates: Vec::new(),
            models: HashMap::new(),
            failures: 0,
            retry: None,
            down: None,
            promised: Duration::MAX,
            closers,
        };
        driver.begin().await;
        tokio::spawn(driver.run());
        Ok(RedisBudget::new(budget, status, closer))
    }
}

/// A shared budget that cannot be; the text says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidStore(Box<str>);

impl InvalidStore {
    /// Without the address, which may hold a password.
    pub(crate) fn address(error: redis::RedisError) -> Self {
        Self(format!("the server's address cannot be: {:?}", error.kind()).into())
    }
}

impl From<&str> for InvalidStore {
    fn from(why: &str) -> Self {
        Self(why.into())
    }
}

impl From<InvalidLimit> for InvalidStore {
    fn from(why: InvalidLimit) -> Self {
        Self(why.to_string().into())
    }
}

impl fmt::Display for InvalidStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for InvalidStore {}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tollgate_budget::{Enforcement, Weights};

    use super::*;

    async fn built(limits: [Limit; 2]) -> Result<RedisBudget, InvalidStore> {
        // Nobody is there, which is no error.
        let builder = RedisBudgetBuilder::of("redis://127.0.0.1:1".to_owned());
        builder.limits(limits).build().await
    }

    #[tokio::test]
    async fn two_limits_that_the_server_would_take_for_one_are_refused() {
        let minute = || Limit::tokens(100).per_minute();
        let bucket = |burst| Enforcement::Bucket { burst };
        let cases = [
            [minute(), Limit::tokens(200).per_minute()],
            [
                minute(),
                minute().weights(Weights::even().cached_input(0, 1)),
            ],
            [minute(), minute().enforcement(Enforcement::Fixed)],
            [
                minute().enforcement(bucket(None)),
                minute().enforcement(bucket(Some(10))),
            ],
            [minute().models(["a", "b"]), minute().models(["b", "a"])],
            // Both end with the year.
            [
                Limit::tokens(1).per_calendar_day("UTC").named("cap"),
                Limit::tokens(9).per_calendar_month("UTC").named("cap"),
            ],
        ];
        for limits in cases {
            let shown = format!("{limits:?}");
            let refused = built(limits).await.map(drop).unwrap_err().to_string();
            assert!(refused.contains("name of its own"), "{shown}: {refused}");
        }
        let cases = [
            [minute(), minute().named("another")],
            [minute(), Limit::tokens(100).per_day()],
            [minute(), minute().scope(Scope::Model)],
            [minute(), minute().enforcement(bucket(None))],
            [minute().models(["a"]), minute().models(["b"])],
            [
                Limit::tokens(1).per_calendar_day("UTC"),
                Limit::tokens(9).per_calendar_month("UTC"),
            ],
        ];
        for limits in cases {
            let shown = format!("{limits:?}");
            assert!(built(limits).await.is_ok(), "{shown}");
        }
    }
}
