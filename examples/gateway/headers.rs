//! Which headers pass, in either direction.
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// They belong to one connection (RFC 9110, 7.6.1), and these of old.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a caller may have said that the provider must not hear: keys, cookies, who called from where, whom to charge.
const OF_THE_CALLER: [&str; 15] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "forwarded",
    "via",
    "x-real-ip",
    "true-client-ip",
    "origin",
    "referer",
    "openai-organization",
    "openai-project",
    "anthropic-workspace-id",
    "x-goog-user-project",
];

/// So do these begin: what a proxy in front says of the caller, his tokens among it.
const OF_A_PROXY: [&str; 7] = [
    "x-forwarded-",
    "x-auth-",
    "x-original-",
    "x-envoy-",
    "x-amzn-",
    "x-ms-client-principal",
    "cf-",
];

/// What a provider may say that is about the gateway's account or its own site and not about the answer.
const OF_THE_PROVIDER: [&str; 11] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "set-cookie",
    "alt-svc",
    "strict-transport-security",
    "openai-organization",
    "openai-project",
    "anthropic-organization-id",
    "www-authenticate",
];

/// Prepares a caller's headers for the provider.
pub fn for_provider(headers: &mut HeaderMap) {
    hop_by_hop(headers);
    for name in OF_THE_CALLER {
        headers.remove(name);
    }
    begin_with(headers, &OF_A_PROXY);
    // The body is whole now: its length is known anew, and nobody waits for a 100.
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    // A compressed answer would hide its usage.
    headers.remove(header::ACCEPT_ENCODING);
    ours(headers);
}

/// Prepares a provider's headers for the caller.
pub fn for_caller(headers: &mut HeaderMap) {
    hop_by_hop(headers);
    for name in OF_THE_PROVIDER {
        headers.remove(name);
    }
    ours(headers);
}

/// Those of one connection, and those that `connection` names.
fn hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Nobody but this gateway says these.
fn ours(headers: &mut HeaderMap) {
    begin_with(headers, &["x-tollgate-"]);
}

/// Takes out what begins so.
fn begin_with(headers: &mut HeaderMap, beginnings: &[&str]) {
    let begins = |name: &&HeaderName| {
        let name = name.as_str();
        beginnings
            .iter()
            .any(|beginning| name.starts_with(beginning))
    };
    let said: Vec<HeaderName> = headers.keys().filter(begins).cloned().collect();
    for name in said {
        headers.remove(name);
    }
}

/// Puts one of ours in; what no header can hold is left out.
pub fn say(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_str(value).unwrap(),
            )
        };
        let mut headers = HeaderMap::new();
        for (name, value) in pairs.iter().map(pair) {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn headers_of_one_connection_do_not_pass_nor_those_that_it_names() {
        let all = [
            ("connection", "close, X-Mine"),
            ("connection", "x-other ,, bad name"),
            ("x-mine", "1"),
            ("x-other", "1"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("content-type", "application/json"),
        ];
        for direction in [for_provider, for_caller] {
            let mut headers = map(&all);
            direction(&mut headers);
            assert_eq!(headers, map(&[("content-type", "application/json")]));
        }
    }

    #[test]
    fn no_key_passes_in_either_direction() {
        let keys = [
            ("authorization", "Bearer k"),
            ("x-api-key", "k"),
            ("api-key", "k"),
            ("x-goog-api-key", "k"),
            ("cookie", "k"),
            ("openai-project", "k"),
            ("x-forwarded-access-token", "k"),
            ("cf-access-jwt-assertion", "k"),
            ("anthropic-workspace-id", "k"),
        ];
        let mut headers = map(&keys);
        for_provider(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
        let mut headers = map(&[
            ("authorization", "k"),
            ("x-api-key", "k"),
            ("set-cookie", "k"),
            ("x-tollgate-cost", "0"),
        ]);
        for_caller(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
    }
}
