//! Where limits are shared.
use std::fmt;

use toml::Spanned;

use super::{ConfigError, file, limits::is_of_somebody};

/// A Redis or Valkey server, and whose limits are shared there. `Debug` shows no address, for it may hold a password.
#[derive(Clone)]
pub struct RedisConfig {
    url: String,
    name: String,
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
            return match &file.redis_name {
                Some(name) => wrong(name, "`redis_name` needs `redis`, the server"),
                None => Ok(None),
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
    // Callers and keys must have one digest in all gateways.
    let own = file.limits.iter().chain(
        file.targets
            .iter()
            .flat_map(|target| &target.get_ref().limits),
    );
    let mut own = own.filter(|limit| is_of_somebody(limit.get_ref()));
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
    }))
}
