use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::*;

const DATE: (&str, &str) = ("date", "Mon, 11 Aug 2025 23:46:00 GMT");

fn read(pairs: &[(&str, &str)]) -> Vec<RateLimit> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_str(value).unwrap());
    }
    from_headers(&map, SystemTime::UNIX_EPOCH)
}

/// "dimension/window limit remaining kind:millis", one a limit.
fn show(pairs: &[(&str, &str)]) -> Vec<String> {
    let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| n.to_string());
    read(pairs)
        .iter()
        .map(|l| {
            let reset = l.reset.as_ref().map_or("-".to_owned(), |r| {
                format!(
                    "{}:{}",
                    r.kind.as_str(),
                    r.millis.map_or("?".to_owned(), |ms| ms.to_string())
                )
            });
            format!(
                "{}/{} {} {} {reset}",
                l.dimension.as_str(),
                l.window.as_deref().unwrap_or("-"),
                number(l.limit),
                number(l.remaining),
            )
        })
        .collect()
}

#[test]
fn openai_states_requests_tokens_and_more() {
    let headers = [
        ("x-ratelimit-limit-requests", "500"),
        ("x-ratelimit-remaining-requests", "499"),
        ("x-ratelimit-reset-requests", "120ms"),
        ("x-ratelimit-limit-project-tokens", "30000"),
        ("x-ratelimit-remaining-input-images", "49999"),
        ("x-ratelimit-reset-input-images", "7.6ms"),
        ("x-ratelimit-reset-tokens_usage_based", "6m0s"),
    ];
    assert_eq!(
        show(&headers),
        [
            "requests/- 500 499 go-duration:120",
            "project_tokens/- 30000 - -",
            "input_images/- - 49999 go-duration:8",
            "tokens_usage_based/- - - go-duration:360000",
        ]
    );
}

#[test]
fn the_window_follows_from_fill_and_reset() {
    let window = |limit, remaining, reset| {
        read(&[
            ("x-ratelimit-limit-requests", limit),
            ("x-ratelimit-remaining-requests", remaining),
            ("x-ratelimit-reset-requests", reset),
        ])[0]
            .window_inferred()
            .map(|w| w.as_secs_f64().round())
    };
    // 3 of 200 a day used
    assert_eq!(window("200", "197", "21m36s"), Some(86_400.0));
    assert_eq!(window("250000", "227479", "5.405s"), Some(60.0));
    assert_eq!(window("500", "500", "0s"), None);
    assert_eq!(window("500", "-1", "NaN"), None);
}

#[test]
fn anthropic_states_instants() {
    let headers = [
        DATE,
        ("anthropic-ratelimit-input-tokens-limit", "200000"),
        ("anthropic-ratelimit-input-tokens-remaining", "0"),
        (
            "anthropic-ratelimit-input-tokens-reset",
            "2025-08-11T23:47:12Z",
        ),
        ("anthropic-ratelimit-requests-reset", "2025-08-11T23:45:00Z"),
        ("anthropic-priority-output-tokens-limit", "7"),
        ("anthropic-ratelimit-unified-5h-reset", "1754956000"),
        ("anthropic-version", "2023-06-01"),
    ];
    assert_eq!(
        show(&headers),
        [
            "input_tokens/- 200000 0 rfc3339:72000",
            "requests/- - - rfc3339:-60000",
            "priority_output_tokens/- 7 - -",
        ]
    );
}

#[test]
fn names_with_windows() {
    let headers = [
        ("x-ratelimit-limit-req-10-second", "60"),
        ("x-ratelimit-limit-tokens-month", "10000000000"),
        ("x-ratelimit-tokens-query-cost", "64"),
        ("x-ratelimit-reset-requests-day", "37.26258873939514"),
        ("ratelimitbysize-reset", "23"),
        ("x-ratelimitbysize-remaining-minute", "5"),
        ("x-ratelimit-limit-audio-seconds-minute", "9"),
    ];
    assert_eq!(
        show(&headers),
        [
            "requests/10-second 60 - -",
            "tokens/month 10000000000 - -",
            "requests/day - - seconds:37263",
            "tokens/bysize - - seconds:23000",
            "tokens/minute - 5 -",
            "audio_seconds/minute 9 - -",
        ]
    );
    assert_eq!(
        read(&headers)
            .iter()
            .map(RateLimit::window)
            .collect::<Vec<_>>(),
        [
            Some(10),
            Some(2_592_000),
            Some(86_400),
            None,
            Some(60),
            Some(60)
        ]
        .map(|s| s.map(Duration::from_secs))
    );
}

#[test]
fn numbers_may_be_fractional_negative_or_absurd() {
    let headers = [
        ("x-ratelimit-limit", "0.1666666667"),
        ("x-ratelimit-remaining", "59"),
        ("x-ratelimit-reset", "5"),
        ("x-ratelimit-remaining-tokens", "-27689"),
        ("x-ratelimit-limit-tokens", "1e400"),
        ("x-ratelimit", "true"),
        ("llm_provider-x-ratelimit-limit-requests", "1"),
    ];
    assert_eq!(
        show(&headers),
        [
            "requests/- 0.1666666667 59 seconds:5000",
            "tokens/- - -27689 -"
        ]
    );
}

#[test]
fn bare_numbers_are_told_apart_by_size_and_by_azures_other_headers() {
    let at = |value| show(&[DATE, ("x-ratelimit-reset", value)]);
    assert_eq!(at("1754955986000"), ["requests/- - - epoch-ms:26000"]);
    assert_eq!(at("1754955986"), ["requests/- - - epoch-s:26000"]);
    assert_eq!(at("26"), ["requests/- - - seconds:26000"]);
    assert_eq!(
        show(&[
            ("x-ratelimit-reset-tokens", "500"),
            ("apim-request-id", "x")
        ]),
        ["tokens/- - - azure-number:?"]
    );
}

#[test]
fn fields_of_the_draft() {
    let headers = [
        (
            "ratelimit-policy",
            "\"burst\";q=100;w=60,\"daily\";q=1000;w=86400",
        ),
        ("ratelimit", "\"burst\";r=50;t=30"),
    ];
    assert_eq!(
        show(&headers),
        [
            "requests/minute 100 50 seconds:30000",
            "requests/day 1000 - -"
        ]
    );
    let other_name = [headers[0], ("ratelimit", "\"daily\";r=0;t=3600")];
    let want = [
        "requests/minute 100 - -",
        "requests/day 1000 0 seconds:3600000",
    ];
    assert_eq!(show(&other_name), want, "they meet by name");
    let backwards = [other_name[1], other_name[0]];
    assert_eq!(show(&backwards), want, "in whatever order they come");
    let strange = [
        ("ratelimit-policy", "\"a\";q=100;w=60"),
        ("ratelimit", "\"b\";r=50;t=30"),
    ];
    assert_eq!(show(&strange), ["requests/minute 100 50 seconds:30000"]);
    assert_eq!(
        show(&[("ratelimit-policy", "\"fixed window\";\"api\";q=500;w=300")]),
        ["requests/300-second 500 - -"]
    );
    assert_eq!(
        show(&[
            ("ratelimit-limit", "100, 100;w=60"),
            ("ratelimit-reset", "7")
        ]),
        ["requests/- 100 - seconds:7000"]
    );
}

#[test]
fn no_header_costs_nothing() {
    let limits = read(&[
        DATE,
        ("content-type", "application/json"),
        ("x-request-id", "r"),
        ("server", "s"),
    ]);
    assert!(limits.is_empty());
    assert_eq!(limits.capacity(), 0);
}

proptest! {
    #[test]
    fn arbitrary_values_never_panic_and_stay_finite(
        names in prop::collection::vec("(x-)?ratelimit(bysize)?-(limit|remaining|reset)(-[a-z0-9-]{1,12})?", 1..40),
        value in "[ -~]{0,40}|[0-9.eE+-]{1,20}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z|[0-9]{1,22}(ms|s|m|h)",
    ) {
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        for limit in read(&pairs) {
            prop_assert!(limit.limit.is_none_or(f64::is_finite));
            prop_assert!(limit.remaining.is_none_or(f64::is_finite));
            let _ = (limit.window(), limit.window_inferred(), limit.reset.map(|r| r.after()));
        }
        let _ = read(&[("ratelimit", value.as_str()), ("ratelimit-policy", value.as_str())]);
    }
}
