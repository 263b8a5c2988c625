//! The configuration: read from a file, checked, and refused with one sentence and its line.
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tollgate::{
    budget::{Budget, Limit},
    price::PriceTable,
};
use toml::Spanned;

use crate::keys::Keys;

mod callers;
mod error;
mod file;
mod limits;
mod prices;
mod redis;
mod targets;
#[cfg(test)]
mod tests;
mod time;

pub use self::{
    error::ConfigError,
    redis::RedisConfig,
    targets::{ChainConfig, TargetConfig},
};

/// The key of all digests: whoever has it can tell whom a digest stands for.
#[derive(Clone, Copy)]
pub struct DigestKey(pub [u8; 16]);

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestKey")
    }
}

/// All settings of a gateway. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where callers come in.
    pub listen: SocketAddr,
    /// Where the status page and the metrics are; `None`: with the callers.
    pub admin_listen: Option<SocketAddr>,
    /// Largest request body, in bytes.
    pub max_body: u64,
    /// Most bytes of all request bodies that are held at once.
    pub max_buffered: u64,
    /// Most requests at once.
    pub max_requests: usize,
    /// How long callers still come in when the gateway is told to stop and says so.
    pub drain_delay: Duration,
    /// How long answers under way may take then.
    pub drain: Duration,
    /// Whether requests pass whose use no limit of tokens or money can count.
    pub pass_unmetered: bool,
    /// The key of all digests, where they must outlive the process.
    pub digest_key: Option<DigestKey>,
    /// The server on which limits are shared with other gateways.
    pub redis: Option<RedisConfig>,
    /// The providers.
    pub targets: Vec<TargetConfig>,
    /// The chains.
    pub chains: Vec<ChainConfig>,
    /// The gateway's own limits.
    pub limits: Vec<Limit>,
    /// Who may call.
    pub keys: Keys,
    /// What models cost.
    pub prices: Option<PriceTable>,
    /// Records as lines of JSON.
    pub jsonl: Option<PathBuf>,
    /// Records in a ledger.
    pub ledger: Option<PathBuf>,
    /// Whether records become metrics.
    pub metrics: bool,
    /// Most attempts for one call.
    pub attempts: u32,
    /// The longest wait before another attempt.
    pub wait_cap: Duration,
    /// For a connection.
    pub connect: Duration,
    /// For what a provider says.
    pub timeouts: tollgate::timeouts::Timeouts,
    /// Between two parts of a caller's body.
    pub request_body: Duration,
    /// For all of it.
    pub request_total: Duration,
    /// In the queues of the budgets.
    pub queue: Duration,
}

impl Config {
    /// Reads a file; credentials come from the environment.
    ///
    /// # Errors
    ///
    /// One sentence, with the file's name and the line.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
        let env = |name: &str| std::env::var(name).ok();
        Self::parse(&text, &env).map_err(|error| format!("{}, {error}", path.display()))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// One sentence, with the line where there is one.
    pub fn parse(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let file: file::File = toml::from_str(text).map_err(|error| {
            let sentence = error.message().trim_end().replace('\n', "; ");
            match error.span() {
                Some(span) => ConfigError::at(text, span, sentence),
                None => ConfigError::new(sentence),
            }
        })?;
        Self::check(text, &file, env)
    }

    fn check(
        text: &str,
        file: &file::File,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let address = |told: &Option<Spanned<String>>| match told {
            Some(told) => told.get_ref().parse().map(Some).map_err(|_| {
                let why = format!(
                    "{:?} is no address such as \"127.0.0.1:8080\"",
                    told.get_ref()
                );
                ConfigError::at(text, told.span(), why)
            }),
            None => Ok(None),
        };
        let span = |told: &Option<Spanned<String>>, usual: u64| match told {
            Some(told) => time::parse(told.get_ref())
                .map(Some)
                .map_err(|why| ConfigError::at(text, told.span(), why)),
            None => Ok((usual > 0).then(|| Duration::from_secs(usual))),
        };
        let number = |told: Option<&Spanned<u64>>, usual: u64, name: &str| match told {
            Some(told) if *told.get_ref() == 0 => Err(ConfigError::at(
                text,
                told.span(),
                format!("{name} must be above zero"),
            )),
            told => Ok(told.map_or(usual, |told| *told.get_ref())),
        };
        let listen: SocketAddr =
            address(&file.listen)?.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080)));
        let keys = callers::keys(text, &file.keys)?;
        let at_listen = |why: &str| match &file.listen {
            Some(told) => ConfigError::at(text, told.span(), why),
            None => ConfigError::new(why),
        };
        if keys.is_empty() && !listen.ip().is_loopback() {
            return Err(at_listen(
                "without a [[key]] the gateway listens on this machine only (127.0.0.1 or [::1]), or anybody could spend your money",
            ));
        }
        let admin_listen = match address(&file.admin_listen)? {
            None if !listen.ip().is_loopback() => Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            told => told,
        };
        if admin_listen.is_some_and(|admin| admin == listen && admin.port() != 0) {
            let why = "`listen` and `admin_listen` must differ";
            return Err(match &file.admin_listen {
                Some(told) => ConfigError::at(text, told.span(), why),
                None => at_listen(why),
            });
        }
        let redis = redis::told(text, file, env)?;
        if file.targets.is_empty() {
            return Err(ConfigError::new("a gateway needs at least one [[target]]"));
        }
        let mut targets: Vec<TargetConfig> = Vec::new();
        for told in &file.targets {
            let target = targets::target(text, told, env)?;
            if targets.iter().any(|other| other.name == target.name) {
                return Err(ConfigError::at(
                    text,
                    told.get_ref().name.span(),
                    format!("there are two targets `{}`", target.name),
                ));
            }
            targets.push(target);
        }
        let chains = file
            .chains
            .iter()
            .map(|told| targets::chain(text, told, &targets));
        let chains = chains.collect::<Result<Vec<_>, _>>()?;
        let limits = file.limits.iter().map(|told| limits::limit(text, told));
        let limits = limits.collect::<Result<Vec<_>, _>>()?;
        let prices = file
            .prices
            .as_ref()
            .map(|told| prices::prices(text, told))
            .transpose()?;
        Self::priced(text, file, &targets, &limits, prices.as_ref())?;
        targets::placed(text, file, &targets)?;

        let mut timeouts = tollgate::timeouts::Timeouts::new();
        if let Some(time) = span(&file.timeouts.first_byte, 0)? {
            timeouts = timeouts.first_byte(time);
        }
        if let Some(time) = span(&file.timeouts.first_token, 0)? {
            timeouts = timeouts.first_token(time);
        }
        if let Some(time) = span(&file.timeouts.idle, 0)? {
            timeouts = timeouts.idle(time);
        }
        if let Some(time) = span(&file.timeouts.total, 0)? {
            timeouts = timeouts.total(time);
        }
        let or = |told, usual| span(told, usual).map(Option::unwrap_or_default);
        let max_body = number(file.max_body.as_ref(), 32 << 20, "max_body")?;
        let max_buffered = number(file.max_buffered.as_ref(), 256 << 20, "max_buffered")?;
        if let Some(told) = (file.max_buffered.as_ref().or(file.max_body.as_ref()))
            .filter(|_| max_buffered < max_body)
        {
            let why =
                "max_buffered must be as large as max_body, or a body of that size never gets in";
            return Err(ConfigError::at(text, told.span(), why));
        }
        Ok(Self {
            listen,
            admin_listen,
            max_body,
            max_buffered,
            max_requests: match &file.max_requests {
                Some(told) if *told.get_ref() == 0 => {
                    return Err(ConfigError::at(
                        text,
                        told.span(),
                        "max_requests must be above zero",
                    ));
                }
                told => told.as_ref().map_or(4_096, |told| *told.get_ref() as usize),
            },
            drain_delay: match &file.drain_delay {
                Some(told) if time::parse_any(told.get_ref()) == Ok(Duration::ZERO) => {
                    Duration::ZERO
                }
                // Who asks this machine alone needs no time to hear of it.
                told => or(told, if listen.ip().is_loopback() { 0 } else { 5 })?,
            },
            drain: or(&file.drain, 30)?,
            pass_unmetered: file
                .pass_unmetered
                .unwrap_or_else(|| !limits::any_meters(file)),
            digest_key: callers::digest_key(text, file.digest_key_env.as_ref(), env)?,
            redis,
            targets,
            chains,
            limits,
            keys,
            prices,
            jsonl: file.sinks.jsonl.as_ref().map(|path| path.get_ref().clone()),
            ledger: file
                .sinks
                .ledger
                .as_ref()
                .map(|path| path.get_ref().clone()),
            metrics: file.sinks.metrics.unwrap_or(true),
            attempts: match &file.retry.attempts {
                Some(told) if *told.get_ref() == 0 => {
                    let why = "attempts must be above zero: 1 is to ask once";
                    return Err(ConfigError::at(text, told.span(), why));
                }
                told => told.as_ref().map_or(3, |told| *told.get_ref()),
            },
            wait_cap: or(&file.retry.wait_cap, 120)?,
            connect: or(&file.timeouts.connect, 10)?,
            timeouts,
            request_body: or(&file.timeouts.request_body, 60)?,
            request_total: or(&file.timeouts.request_total, 600)?,
            queue: or(&file.timeouts.queue, 90)?,
        })
    }

    /// Whether some limit is one of certain models: who hides the model's name gets round it.
    pub(crate) fn any_by_model(&self) -> bool {
        let theirs = self.targets.iter().flat_map(|target| &target.limits);
        let mut all = self.limits.iter().chain(theirs);
        all.any(|limit| !limit.concerns(None))
    }

    /// A limit of money needs prices, and all limits must go together.
    fn priced(
        text: &str,
        file: &file::File,
        targets: &[TargetConfig],
        limits: &[Limit],
        prices: Option<&PriceTable>,
    ) -> Result<(), ConfigError> {
        let told = file
            .targets
            .iter()
            .flat_map(|target| &target.get_ref().limits);
        for limit in told.chain(&file.limits) {
            if limit.get_ref().dollars.is_some()
                && !limit.get_ref().unpriced_pass
                && prices.is_none()
            {
                let why = "a limit of dollars needs [prices], or unpriced_pass = true";
                return Err(ConfigError::at(text, limit.span(), why));
            }
        }
        for (target, told) in targets.iter().zip(&file.targets) {
            let mut all = Budget::builder()
                .learn(target.learn)
                .limits(target.limits.clone());
            if let Some(prices) = prices {
                all = all.prices(prices.clone());
            }
            all.build()
                .map_err(|why| ConfigError::at(text, told.span(), why.to_string()))?;
        }
        limits::together(text, file, limits, prices)
    }
}
