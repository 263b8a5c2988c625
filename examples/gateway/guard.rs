//! Without keys, only this machine may call, and no web page in its browser.
use http::{HeaderMap, Uri, header};

/// Whether a request to a gateway without keys comes from a program on this machine.
///
/// It listens on the loopback address, but a browser on the machine will send it what any page asks for: under a host
/// name of that page's own (DNS rebinding), or from a form. Both show in these headers, which pages cannot choose.
#[must_use]
pub fn is_local(uri: &Uri, headers: &HeaderMap) -> bool {
    let host = uri.authority().map(|authority| authority.as_str());
    let host = host.or_else(|| headers.get(header::HOST)?.to_str().ok());
    if !host.is_some_and(loopback) {
        return false;
    }
    // A picture or a link: no origin is said, but that it is somebody else's.
    if headers
        .get("sec-fetch-site")
        .is_some_and(|site| site == "cross-site")
    {
        return false;
    }
    match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, host)| loopback(host)),
    }
}

/// A host, with a port or without.
fn loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn asked(pairs: &[(&'static str, &'static str)]) -> bool {
        let pairs = pairs.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        is_local(&Uri::from_static("/v1/models"), &pairs.collect())
    }

    #[test]
    fn programs_on_this_machine_may_and_web_pages_may_not() {
        assert!(asked(&[("host", "127.0.0.1:8080")]));
        assert!(asked(&[("host", "localhost")]));
        assert!(asked(&[
            ("host", "[::1]:8080"),
            ("origin", "http://localhost:3000")
        ]));
        assert!(!asked(&[("host", "evil.example")]), "rebound");
        assert!(!asked(&[("host", "127.0.0.1.evil.example:8080")]));
        assert!(
            !asked(&[
                ("host", "127.0.0.1:8080"),
                ("origin", "https://evil.example")
            ]),
            "a form"
        );
        assert!(
            !asked(&[("host", "127.0.0.1:8080"), ("origin", "null")]),
            "a file or a sandbox"
        );
        assert!(
            !asked(&[("host", "127.0.0.1:8080"), ("sec-fetch-site", "cross-site")]),
            "a picture"
        );
        assert!(!asked(&[]));
    }
}
