//! Requests that a signature or a digest covers.
use http::{HeaderMap, header};

/// Headers that sign the request, or a digest of its body: one changed byte breaks them.
const SIGNS: [&str; 6] = [
    "content-digest",
    "content-md5",
    "digest",
    "signature",
    "signature-input",
    "x-amz-content-sha256",
];

/// Whether a request carries a signature or a digest of its body, and so must go out as it came.
///
/// ```
/// use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
/// use tollgate_core::body::signed;
///
/// let sigv4 = HeaderValue::from_static("AWS4-HMAC-SHA256 Credential=AKID");
/// assert!(signed(&HeaderMap::from_iter([(AUTHORIZATION, sigv4)]), None));
/// assert!(!signed(&HeaderMap::new(), Some("key=1")));
/// ```
#[must_use]
pub fn signed(headers: &HeaderMap, query: Option<&str>) -> bool {
    let by_header = SIGNS.iter().any(|name| headers.contains_key(*name));
    let by_key = headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let value = value.as_bytes();
        let scheme = value.split(|byte| *byte == b' ').next().unwrap_or(value);
        scheme
            .get(..5)
            .is_some_and(|start| start.eq_ignore_ascii_case(b"aws4-"))
            || scheme.eq_ignore_ascii_case(b"signature")
    });
    let mut pairs = query.unwrap_or_default().split('&');
    let by_query = pairs.any(|pair| {
        let name = pair.split('=').next().unwrap_or(pair);
        name.eq_ignore_ascii_case("x-amz-signature")
    });
    by_header || by_key || by_query
}
