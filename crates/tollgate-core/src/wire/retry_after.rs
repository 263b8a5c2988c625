//! How long a server asks us to wait.
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};

use super::{error, time};

/// A wait that the server stated, and where it stated it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetryAfter {
    /// The wait, counted from the receipt of the answer; at most ten years.
    ///
    /// Zero is a statement too, but no wait: whoever waits falls back on the next statement or on a back-off.
    pub wait: Duration,
    /// Where it stood.
    pub source: Source,
}

/// Where a stated wait stood, in the order in which they are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The `retry-after-ms` header.
    RetryAfterMs,
    /// The `retry-after` header.
    RetryAfter,
    /// `google.rpc.RetryInfo` in the error document.
    RetryInfo,
    /// `X-RateLimit-Reset`, in headers or repeated in the error document.
    RateLimitReset,
    /// The error's text ("try again in 1.2s").
    Text,
}

/// Reads the headers' statement of a wait: `retry-after-ms`, or else `retry-after` (seconds or a date).
///
/// A date is taken against the answer's own `Date`, for our clock may be off; against `now` only if there is none. What
/// is negative, infinite, no number and no date, or said twice with different values is no statement.
///
/// # Examples
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::{HeaderMap, HeaderValue, header};
/// use tollgate_core::wire::retry_after;
///
/// let mut headers = HeaderMap::new();
/// headers.insert(header::DATE, HeaderValue::from_static("Mon, 11 Aug 2025 23:46:00 GMT"));
/// headers.insert(header::RETRY_AFTER, HeaderValue::from_static("Mon, 11 Aug 2025 23:46:03 GMT"));
/// let stated = retry_after::from_headers(&headers, SystemTime::UNIX_EPOCH).unwrap();
/// assert_eq!(stated.wait, Duration::from_secs(3));
/// ```
#[must_use]
pub fn from_headers(headers: &HeaderMap, now: SystemTime) -> Option<RetryAfter> {
    by_millis(headers).or_else(|| by_header(headers, now))
}

/// The first statement of the headers that is a wait: not zero.
pub(crate) fn wait_from_headers(headers: &HeaderMap, now: SystemTime) -> Option<RetryAfter> {
    let is_wait = |stated: &RetryAfter| !stated.wait.is_zero();
    by_millis(headers)
        .filter(is_wait)
        .or_else(|| by_header(headers, now).filter(is_wait))
}

/// Reads the statement of a wait in an error document.
///
/// `headers` and `now` are needed for the resets that are dates.
#[must_use]
pub fn from_document(document: &[u8], headers: &HeaderMap, now: SystemTime) -> Option<RetryAfter> {
    error::read(document)?.retry_after(headers, Some(now))
}

fn by_millis(headers: &HeaderMap) -> Option<RetryAfter> {
    const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
    Some(RetryAfter {
        wait: time::millis(sole(headers, &RETRY_AFTER_MS)?)?,
        source: Source::RetryAfterMs,
    })
}

fn by_header(headers: &HeaderMap, now: SystemTime) -> Option<RetryAfter> {
    let text = sole(headers, &http::header::RETRY_AFTER)?;
    let wait = time::seconds(text).or_else(|| {
        let at = time::http_date(text)?;
        let from = time::date(headers).unwrap_or(now);
        Some(at.duration_since(from).unwrap_or_default())
    })?;
    Some(RetryAfter {
        wait: wait.min(time::LONGEST),
        source: Source::RetryAfter,
    })
}

/// The header's value, if all its values agree.
fn sole<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    if values.any(|other| other != first) {
        return None;
    }
    first.to_str().ok().filter(|text| text.len() <= 64)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    fn stated(pairs: &[(&'static str, &str)]) -> Option<(u128, Source)> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_754_955_900);
        from_headers(&headers(pairs), now).map(|r| (r.wait.as_millis(), r.source))
    }

    // R02, R04
    #[test]
    fn milliseconds_come_before_seconds() {
        assert_eq!(
            stated(&[("retry-after", "5"), ("retry-after-ms", "350")]),
            Some((350, Source::RetryAfterMs))
        );
        assert_eq!(
            stated(&[("retry-after", "60")]),
            Some((60_000, Source::RetryAfter))
        );
        assert_eq!(
            stated(&[("retry-after-ms", "x"), ("retry-after", "2.5")]),
            Some((2_500, Source::RetryAfter))
        );
    }

    // R03
    #[test]
    fn a_date_counts_from_the_answers_own_date() {
        let at = "Mon, 11 Aug 2025 23:46:03 GMT";
        assert_eq!(
            stated(&[
                ("date", "Mon, 11 Aug 2025 23:46:00 GMT"),
                ("retry-after", at)
            ]),
            Some((3_000, Source::RetryAfter))
        );
        // Our own clock is a minute behind.
        assert_eq!(
            stated(&[("retry-after", at)]),
            Some((63_000, Source::RetryAfter))
        );
        let gone = "Mon, 11 Aug 2025 23:45:00 GMT";
        assert_eq!(
            stated(&[("retry-after", gone)]),
            Some((0, Source::RetryAfter))
        );
    }

    // R07
    #[test]
    fn hostile_values_are_no_statement_or_bounded() {
        let long = "9".repeat(1 << 20);
        for value in [
            "-1",
            "NaN",
            "soon",
            "1e400",
            "",
            "2, 5",
            "inf",
            "0x10",
            &long,
            "Mon, 01 Jan 1900 00:00:00 GMT",
        ] {
            let got = stated(&[("retry-after", value)]);
            assert!(got.is_none_or(|(ms, _)| ms == 0), "{:.20}", value);
            assert_eq!(
                wait_from_headers(&headers(&[("retry-after", value)]), SystemTime::UNIX_EPOCH),
                None
            );
        }
        assert_eq!(stated(&[("retry-after", "2"), ("retry-after", "5")]), None);
        assert_eq!(
            stated(&[("retry-after", "2"), ("retry-after", "2")]),
            Some((2_000, Source::RetryAfter))
        );
        let longest = time::LONGEST.as_millis();
        for value in [
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "1e300",
            "18446744073709551616",
        ] {
            assert_eq!(
                stated(&[("retry-after", value)]),
                Some((longest, Source::RetryAfter)),
                "{value}"
            );
        }
        let zero = headers(&[("retry-after-ms", "0"), ("retry-after", "1")]);
        assert_eq!(
            stated(&[("retry-after", "0")]),
            Some((0, Source::RetryAfter))
        );
        assert_eq!(
            wait_from_headers(&zero, SystemTime::UNIX_EPOCH).map(|r| r.wait),
            Some(Duration::from_secs(1))
        );
    }
}
