//! Where a caller's request goes: another origin, another prefix, another key.
use http::{
    HeaderMap, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

use tollgate::wire::prompt::Dialect;

use crate::config::{ConfigError, TargetConfig};

/// A target, as a request is put there. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Place {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    dialect: Dialect,
    headers: HeaderMap,
}

impl Place {
    /// The place of a target.
    ///
    /// # Errors
    ///
    /// If its origin is no URL.
    pub fn new(target: &TargetConfig) -> Result<Self, ConfigError> {
        let parts = target.origin.parse::<Uri>().map(Uri::into_parts);
        let parts = parts
            .map_err(|_| ConfigError::new(format!("the origin of `{}` is no URL", target.name)))?;
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(ConfigError::new(format!(
                "the origin of `{}` needs a scheme and a host",
                target.name
            )));
        };
        let mut headers = target.headers.clone();
        if let Some((name, value)) = &target.shown {
            headers.insert(name.clone(), value.clone());
        }
        Ok(Self {
            scheme,
            authority,
            prefix: target.prefix.clone(),
            dialect: target.dialect,
            headers,
        })
    }

    /// Whether a caller's path has a place there. A prefix of the target's own confines: it stands for `/v1`, and other
    /// versions would be beside it, unless they are its dialect's.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        let version = path.split('/').nth(1);
        version == Some("v1") || self.prefix == "/v1" || version_of(path) == Some(self.dialect)
    }

    /// The address of a caller's path there. `/v1` is replaced by the prefix; other versions stand as they are.
    pub fn uri(&self, asked: &Uri) -> Option<Uri> {
        let path = asked.path();
        let mut there = match path.strip_prefix("/v1") {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                format!("{}{rest}", self.prefix)
            }
            _ => path.to_owned(),
        };
        let pairs = asked.query().unwrap_or_default().split('&');
        // Gemini's way to show a key, which is the gateway's here.
        let kept = pairs.filter(|pair| !pair.is_empty() && key_in(pair).is_none());
        for (at, pair) in kept.enumerate() {
            there.push(if at == 0 { '?' } else { '&' });
            there.push_str(pair);
        }
        if there.is_empty() || there.starts_with('?') {
            there.insert(0, '/');
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(there).ok()?)
            .build()
            .ok()
    }

    /// Where a redirect of the target leads, for callers: to the gateway, and not to an origin that is none of theirs.
    /// What leads out of the target's prefix, or elsewhere, stands as it is.
    pub fn back(&self, location: &str) -> Option<String> {
        let there: Uri = location.parse().ok()?;
        let origin = (there.scheme(), there.authority());
        if origin != (None, None) && origin != (Some(&self.scheme), Some(&self.authority)) {
            return None;
        }
        let path = there.path_and_query()?.as_str();
        let rest = path.strip_prefix(&*self.prefix)?;
        let whole = rest.is_empty() || rest.starts_with(['/', '?']);
        whole.then(|| format!("/v1{rest}"))
    }

    /// Puts in what the target wants to be shown, over what the caller said.
    pub fn sign(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
}

/// Whose version a path begins with, where only one dialect has it.
pub(crate) fn version_of(path: &str) -> Option<Dialect> {
    match path.split('/').nth(1)? {
        "v1beta" => Some(Dialect::Gemini),
        "v2" => Some(Dialect::Cohere),
        _ => None,
    }
}

/// The value of a pair of a query that is `key=…`, its name coded or not.
pub(crate) fn key_in(pair: &str) -> Option<&str> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = name.to_ascii_lowercase();
    let plain = name
        .replace("%6b", "k")
        .replace("%65", "e")
        .replace("%79", "y");
    (plain == "key").then_some(value)
}

/// Whether a path stays where it is put, and says plainly what it is: without segments that lead upwards, or are empty,
/// and without coded letters that need no code or divide a path. Servers decode those, and leave out empty segments,
/// before they look where a request goes; limits and chains here do not.
pub fn stays(path: &str) -> bool {
    let coded = |at: usize| {
        let code = path.get(at + 1..at + 3)?;
        let byte = u8::from_str_radix(code, 16).ok()?;
        Some(byte.is_ascii_alphanumeric() || b"-._~;/\\%".contains(&byte))
    };
    let plain = path
        .match_indices('%')
        .all(|(at, _)| coded(at) == Some(false));
    // One slash at the end means nothing, here as there.
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    plain
        && !path.contains([';', '\\'])
        && !path.split('/').any(|part| ["", ".", ".."].contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn place(origin: &str, prefix: &str) -> Place {
        let text = format!(
            "[[target]]\nname = \"t\"\norigin = \"{origin}\"\nprefix = \"{prefix}\"\ncredential_env = \"K\""
        );
        let config = Config::parse(&text, &|_| Some("sk-secret".into())).expect("a configuration");
        Place::new(&config.targets[0]).expect("a place")
    }

    #[test]
    fn v1_is_replaced_and_the_rest_stands() {
        for (prefix, asked, there) in [
            ("/v1", "/v1/chat/completions", "/v1/chat/completions"),
            (
                "/openai/v1",
                "/v1/models?limit=2",
                "/openai/v1/models?limit=2",
            ),
            ("", "/v1/embeddings", "/embeddings"),
            ("", "/v1", "/"),
            (
                "/v1",
                "/v1beta/models/m:generateContent?key=gw&k%65y=gw&alt=sse",
                "/v1beta/models/m:generateContent?alt=sse",
            ),
            (
                "/v1",
                "/v1/messages?beta=true&key=gw",
                "/v1/messages?beta=true",
            ),
        ] {
            let uri = place("https://api.example.com", prefix)
                .uri(&asked.parse().unwrap())
                .unwrap();
            assert_eq!(uri.to_string(), format!("https://api.example.com{there}"));
        }
    }

    #[test]
    fn a_redirect_within_a_target_leads_to_the_gateway() {
        let place = place("https://api.example.com", "/team/v1");
        for (location, back) in [
            (
                "https://api.example.com/team/v1/files/1?x=1",
                Some("/v1/files/1?x=1"),
            ),
            ("https://api.example.com/team/v10/files", None),
            ("https://api.example.com/other", None),
            ("https://storage.example.com/team/v1/files", None),
            ("http://api.example.com/team/v1/files", None),
            ("/team/v1/files", Some("/v1/files")),
        ] {
            assert_eq!(place.back(location).as_deref(), back, "{location}");
        }
    }

    #[test]
    fn no_path_leads_out_of_its_prefix() {
        for bad in [
            "/v1/../admin",
            "/v1/%2e%2E/admin",
            "/v1/.%2e",
            "/v1/a%2f..%2fb",
            "/v1/./x",
            "/v1/..\\x",
            "/v1/chat/%63ompletions",
            "/v1/chat/completions;x",
            "/v1/a%3bb",
            "/v1/a%",
            "/v1/a%zz",
            "/v1/chat%2Fcompletions",
            "/v1/chat%5ccompletions",
            "/v1/chat%252fcompletions",
            "/v1/chat//completions",
            "//v1/chat/completions",
            "/v1/chat/completions//",
        ] {
            assert!(!stays(bad), "{bad}");
        }
        for good in [
            "/v1/models/gpt-5.1",
            "/v1/models/a%20b%C3%A9",
            "/v1/files/file-..x",
            "/v1/a..b/c",
            "/v1/chat/completions/",
            "/v1/models/a%20b:generateContent",
        ] {
            assert!(stays(good), "{good}");
        }
    }

    #[test]
    fn the_key_is_shown_to_the_target_and_to_nobody_else() {
        let place = place("https://api.example.com", "/v1");
        let mut headers = HeaderMap::new();
        place.sign(&mut headers);
        assert_eq!(headers["authorization"], "Bearer sk-secret");
        assert!(!format!("{place:?}{headers:?}").contains("sk-secret"));
    }
}
