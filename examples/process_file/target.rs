//! Where the requests go.
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header, uri};

use crate::rows::is_path;

/// A provider: its address and what it wants to be shown.
#[derive(Clone, Debug)]
pub struct Target {
    scheme: uri::Scheme,
    authority: uri::Authority,
    /// Without a slash at its end: `/v1`, or nothing.
    prefix: String,
    key: Option<HeaderValue>,
    key_for_anthropic: Option<HeaderValue>,
}

impl Target {
    /// From the base URL, with or without its version (`/v1`), and a key.
    ///
    /// # Errors
    ///
    /// A sentence, if the URL is not one, or the key is missing and the provider is not on this machine.
    pub fn new(base: &str, key: Option<&str>) -> Result<Self, String> {
        let not_a_url = || format!("{base} is not a URL such as https://api.example.com/v1");
        let uri: Uri = base.parse().map_err(|_| not_a_url())?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(not_a_url());
        };
        if scheme != uri::Scheme::HTTP && scheme != uri::Scheme::HTTPS {
            return Err(not_a_url());
        }
        if authority.as_str().contains('@') {
            return Err("the base URL must not hold a password; use --api-key".into());
        }
        let path = parts
            .path_and_query
            .map_or(String::new(), |path| path.path().to_owned());
        let prefix = path.trim_end_matches('/').to_owned();
        let key = key.map(str::trim).filter(|key| !key.is_empty());
        if key.is_none() && !local(authority.host()) {
            return Err(format!(
                "{} needs a key: give --api-key or set OPENAI_API_KEY",
                authority.host()
            ));
        }
        let secret = |text: String| {
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| "the API key holds characters that no header can carry".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        Ok(Self {
            scheme,
            authority,
            prefix,
            key: key.map(|key| secret(format!("Bearer {key}"))).transpose()?,
            key_for_anthropic: key.map(|key| secret(key.to_owned())).transpose()?,
        })
    }

    /// The address of a path of a row: `/v1/responses` and `responses` are the same place.
    pub fn uri(&self, path: &str) -> Option<Uri> {
        if !is_path(path) {
            return None;
        }
        let path = path.trim_start_matches('/');
        let (first, rest) = path.split_once('/').unwrap_or(("", path));
        let versioned = self.prefix.split('/').any(is_version);
        let rest = match (versioned, is_version(first)) {
            (true, true) => rest.to_owned(),
            (false, false) => format!("v1/{path}"),
            _ => path.to_owned(),
        };
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}/{rest}", self.prefix))
            .build()
            .ok()
    }

    /// What every request to this address carries.
    pub fn headers(&self, uri: &Uri) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(4);
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::ACCEPT, json.clone());
        headers.insert(header::CONTENT_TYPE, json);
        if uri.path().ends_with("/messages") {
            let version = HeaderName::from_static("anthropic-version");
            headers.insert(version, HeaderValue::from_static("2023-06-01"));
            if let Some(key) = &self.key_for_anthropic {
                headers.insert(HeaderName::from_static("x-api-key"), key.clone());
            }
        } else if let Some(key) = &self.key {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
        headers
    }
}

/// `v1`, `v1beta`, `v4`.
fn is_version(segment: &str) -> bool {
    let mut bytes = segment.bytes();
    bytes.next() == Some(b'v') && bytes.next().is_some_and(|byte| byte.is_ascii_digit())
}

fn local(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_may_stand_in_the_url_or_in_the_path_or_in_both() {
        for (base, path, uri) in [
            (
                "http://localhost:8080",
                "/v1/responses",
                "http://localhost:8080/v1/responses",
            ),
            (
                "http://localhost:8080/v1/",
                "responses",
                "http://localhost:8080/v1/responses",
            ),
            (
                "http://127.0.0.1/openai",
                "/v1/embeddings",
                "http://127.0.0.1/openai/v1/embeddings",
            ),
            (
                "http://[::1]/v1beta/openai/",
                "/v1/chat/completions",
                "http://[::1]/v1beta/openai/chat/completions",
            ),
            (
                "http://localhost",
                "/v2/rerank",
                "http://localhost/v2/rerank",
            ),
            (
                "http://localhost",
                "responses",
                "http://localhost/v1/responses",
            ),
        ] {
            let target = Target::new(base, None).unwrap();
            assert_eq!(target.uri(path).unwrap().to_string(), uri);
        }
    }

    #[test]
    fn a_provider_elsewhere_needs_a_key_and_shows_it_to_nobody() {
        assert!(Target::new("https://api.example.com", None).is_err());
        assert!(Target::new("https://api.example.com", Some(" ")).is_err());
        let target = Target::new("https://api.example.com", Some("sk-secret")).unwrap();
        assert!(!format!("{target:?}").contains("secret"));
        for bad in [
            "api.example.com",
            "ftp://localhost",
            "http://",
            "",
            "http://u:p@localhost",
        ] {
            assert!(Target::new(bad, Some("k")).is_err(), "{bad}");
        }
    }
}
