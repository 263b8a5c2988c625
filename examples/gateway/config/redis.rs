//! Where limits are shared.
use std::{fmt, time::Duration};

use toml::Spanned;

use super::{ConfigError, file, limits::is_of_somebody, time};

/// A Redis or Valkey server, and whose limits are shared there. `Debug` shows no address, for it may hold a password.
#[derive(Clone)]
pub struct RedisConfig {
    url: String,
    name: String,
    timeout: Duration,
}

impl RedisConfig {
    /// The server's address.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What all gateways have in common that share them.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long a visit to the server may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Reads it; `env` reads the environment, where an address with a password belongs.
pub(super) fn told(
    text: &str,
    file: &file::File,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<RedisConfig>, ConfigError> {
    let wrong = |told: &Spanned<String>, why: &str| Err(ConfigError::at(text, told.span(), why));
    let (at, url) = match (&file.redis, &file.redis_env) {
        (Some(_), Some(variable)) => {
            return wrong(
                variable,
                "`redis` and `redis_env` are two words for one server",
            );
        }
        (Some(url), None) => (url, url.get_ref().clone()),
        (None, Some(variable)) => match env(variable.get_ref()) {
            Some(url) => (variable, url.trim().to_owned()),
            None => {
                let variable_name = variable.get_ref();
                let why = format!(
                    "the environment variable {variable_name} is not set; it holds the address of the Redis server"
                );
                return wrong(variable, &why);
            }
        },
        (None, None) => {
            return match (&file.redis_name, &file.redis_timeout) {
                (Some(name), _) => wrong(name, "`redis_name` needs `redis`, the server"),
                (_, Some(time)) => wrong(time, "`redis_timeout` needs `redis`, the server"),
                _ => Ok(None),
            };
        }
    };
    if !["redis://", "rediss://", "unix://"]
        .iter()
        .any(|scheme| url.starts_with(scheme))
    {
        let why = "the address of a Redis server begins with redis://, rediss:// or unix://";
        return wrong(at, why);
    }
    let theirs = (file.targets.iter()).flat_map(|target| &target.get_ref().limits);
    let all = file.limits.iter().chain(theirs);
    if all.clone().next().is_none() {
        let why = "limits are shared on a Redis server, and there are none: write them down, as what is learned is not shared";
        return wrong(at, why);
    }
    let timeout = match &file.redis_timeout {
        None => Duration::from_millis(100),
        Some(told) => match time::parse(told.get_ref()) {
            Ok(time) if time <= Duration::from_secs(10) => time,
            Ok(_) => {
                return wrong(
                    told,
                    "a visit to the Redis server may take from 1 ms to 10 s",
                );
            }
            Err(why) => return wrong(told, &why),
        },
    };
    // Callers and keys must have one digest in all gateways.
    let mut own = all.filter(|limit| is_of_somebody(limit.get_ref()));
    if let (Some(limit), None) = (own.next(), &file.digest_key_env) {
        let why = "a limit of this scope is shared through Redis only with `digest_key_env`, the same in all gateways";
        return Err(ConfigError::at(text, limit.span(), why));
    }
    let name = file
        .redis_name
        .as_ref()
        .map_or("gateway", |name| name.get_ref());
    Ok(Some(RedisConfig {
        url,
        name: name.to_owned(),
        timeout,
    }))
}
