//! Who may call, as it is written down, and the key of their digests.
use toml::Spanned;

use super::{ConfigError, DigestKey, file};
use crate::keys::{Key, Keys};

/// The callers' keys.
pub(super) fn keys(text: &str, told: &[Spanned<file::Key>]) -> Result<Keys, ConfigError> {
    let mut keys: Vec<Key> = Vec::new();
    for told in told {
        let file = told.get_ref();
        let name = file.name.get_ref();
        let mut key = Key::new(name, file.sha256.get_ref())
            .map_err(|why| ConfigError::at(text, file.sha256.span(), why))?;
        if name.is_empty() || keys.iter().any(|other| other.name() == name) {
            return Err(ConfigError::at(
                text,
                file.name.span(),
                "each key needs a name of its own",
            ));
        }
        if keys.iter().any(|other| other.same_secret(&key)) {
            return Err(ConfigError::at(
                text,
                file.sha256.span(),
                format!("`{name}` has the same digest as another key"),
            ));
        }
        if let Some(tenant) = &file.tenant {
            key = key.tenant(tenant);
        }
        if let Some(tag) = &file.tag {
            key = key.tag(tag);
        }
        if let Some(priority) = &file.priority {
            key = key
                .priority(priority.get_ref())
                .map_err(|why| ConfigError::at(text, priority.span(), why))?;
        }
        keys.push(key);
    }
    Ok(Keys::new(keys))
}

/// The key of all digests, out of the environment.
pub(super) fn digest_key(
    text: &str,
    told: Option<&Spanned<String>>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<DigestKey>, ConfigError> {
    let Some(variable) = told else {
        return Ok(None);
    };
    let hex = env(variable.get_ref()).unwrap_or_default();
    let key: Option<Vec<u8>> = crate::keys::from_hex(hex.trim());
    match key.and_then(|key| key.try_into().ok()) {
        Some(key) => Ok(Some(DigestKey(key))),
        None => Err(ConfigError::at(
            text,
            variable.span(),
            format!(
                "the environment variable {} must hold 32 hexadecimal digits",
                variable.get_ref()
            ),
        )),
    }
}
