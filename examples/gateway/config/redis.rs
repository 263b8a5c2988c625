//! Where limits are shared.
use std::fmt;

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

/// Reads it.
pub(super) fn told(text: &str, file: &file::File) -> Result<Option<RedisConfig>, ConfigError> {
    let Some(url) = &file.redis else {
        return match &file.redis_name {
            Some(name) => Err(ConfigError::at(
                text,
                name.span(),
                "`redis_name` needs `redis`, the server",
            )),
            None => Ok(None),
        };
    };
    let wrong = |why: &str| Err(ConfigError::at(text, url.span(), why));
    if !["redis://", "unix://"]
        .iter()
        .any(|scheme| url.get_ref().starts_with(scheme))
    {
        return wrong("the address of a Redis server begins with redis:// or unix://");
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
        url: url.get_ref().clone(),
        name: name.to_owned(),
    }))
}
