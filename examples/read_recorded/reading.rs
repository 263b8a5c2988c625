//! One recorded exchange, read with the library.
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use serde_json::{Map, Value, json};
use tollgate_core::wire::{
    answer::{Answer, AnswerReader, Code, WireError},
    limits::{self, RateLimit},
    outcome::{NextModel, Outcome, SameModel},
    prompt::RequestFacts,
    retry_after,
    usage::{Count, Usage},
};

/// What the library makes of a file's bytes; nulls where they are no exchange.
pub(crate) fn of_file(file: &[u8]) -> Value {
    of_exchange(
        &serde_json::from_slice(file).unwrap_or_default(),
        usize::MAX,
    )
}

/// What the library makes of an exchange whose answer comes in pieces of `size` bytes.
pub(crate) fn of_exchange(exchange: &Value, size: usize) -> Value {
    let answer = answer(exchange, size);
    let headers = headers(&exchange["response"]["headers"]);
    json!({
        "id": exchange["id"].as_str(),
        "model": answer.model.as_deref(),
        "usage": answer.has_usage.then(|| usage(&answer.usage)),
        "finish": answer.finish.map(|finish| finish.as_str()),
        "finish_reason": answer.finish_reason,
        "error": answer.error.as_ref().map(|error| self::error(error, &headers)),
        "retry_after_ms": wait(&answer, &headers),
        "rate_limits": rate_limits(&headers),
    })
}

/// The facts of the exchange's request.
pub(crate) fn request(exchange: &Value) -> RequestFacts {
    let request = &exchange["request"];
    let method = request["method"].as_str().and_then(|m| m.parse().ok());
    let uri: Uri = request["url"]
        .as_str()
        .and_then(|url| url.parse().ok())
        .unwrap_or_default();
    RequestFacts::read(
        &method.unwrap_or(Method::POST),
        &uri,
        &headers(&request["headers"]),
        &body(request),
    )
}

/// The exchange's answer, read as if it came from the network.
fn answer(exchange: &Value, size: usize) -> Answer {
    let response = &exchange["response"];
    let status = response["status"]
        .as_u64()
        .and_then(|status| StatusCode::from_u16(u16::try_from(status).ok()?).ok());
    let Some(status) = status else {
        return Answer::default();
    };
    let headers = headers(&response["headers"]);
    let mut reader = AnswerReader::new(request(exchange).endpoint, status, &headers);
    let mut body = body(response);
    while !body.is_empty() {
        reader.feed(&body.split_to(size.min(body.len())));
    }
    reader.end();
    reader.into_answer()
}

/// Headers, from an object or from a list of pairs.
fn headers(recorded: &Value) -> HeaderMap {
    let mut map = HeaderMap::new();
    let mut add = |name: &str, value: &Value| {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = value.as_str().map(HeaderValue::from_str);
        if let (Ok(name), Some(Ok(value))) = (name, value) {
            map.append(name, value);
        }
    };
    match recorded {
        Value::Object(members) => members.iter().for_each(|(name, value)| add(name, value)),
        Value::Array(pairs) => {
            for pair in pairs {
                add(pair[0].as_str().unwrap_or_default(), &pair[1]);
            }
        }
        _ => {}
    }
    map
}

/// A body as text or in base 64; empty if it was not kept.
fn body(of: &Value) -> Bytes {
    if let Some(text) = of["body"].as_str() {
        return Bytes::copy_from_slice(text.as_bytes());
    }
    let coded = of["body_base64"].as_str().unwrap_or_default();
    let mut bytes = Vec::with_capacity(coded.len() / 4 * 3);
    let (mut buffer, mut bits) = (0u32, 0);
    for byte in coded.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => continue,
        };
        buffer = buffer << 6 | u32::from(six);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((buffer >> bits & 0xff) as u8);
        }
    }
    bytes.into()
}

fn usage(usage: &Usage) -> Value {
    let count = |count: Count| count.get();
    json!({
        "input_tokens": count(usage.input),
        "cached_input_tokens": count(usage.cached_input),
        "cache_write_input_tokens": count(usage.cache_write),
        "output_tokens": count(usage.output),
        "reasoning_tokens": count(usage.reasoning),
        "total_tokens": count(usage.total),
    })
}

fn error(error: &WireError, headers: &HeaderMap) -> Value {
    let advice = Outcome::from(error.class).advice();
    let mut out = json!({
        "class": error.class.as_str(),
        "type": error.kind,
        "code": match &error.code {
            Some(Code::Number(n)) => Value::from(*n),
            Some(word) => Value::from(word.to_string()),
            None => Value::Null,
        },
        "retry_same_request": advice.same_model != SameModel::Never,
        "try_other_model": match advice.next_model {
            // Whether to go round a filter is the caller's to say.
            NextModel::IfTold => None,
            NextModel::Never | NextModel::OtherCredential => Some(false),
            _ => Some(true),
        },
    });
    if let Some(word) = &error.status_word {
        out["status_word"] = Value::from(&**word);
    }
    let should_retry = headers.get("x-should-retry").map(|v| v == "true");
    if let Some(should_retry) = should_retry {
        out["x_should_retry"] = should_retry.into();
    }
    out
}

/// A recording does not tell when it was received. What comes out alike by two clocks does not depend on one.
fn by_any_clock<T: PartialEq>(read: impl Fn(SystemTime) -> T) -> Option<T> {
    let early = read(SystemTime::UNIX_EPOCH);
    let late = read(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    (early == late).then_some(early)
}

fn wait(answer: &Answer, headers: &HeaderMap) -> Option<u64> {
    let stated = by_any_clock(|now| retry_after::from_headers(headers, now)).flatten();
    let stated = stated.or_else(|| answer.error.as_ref()?.retry_after);
    u64::try_from(stated?.wait.as_millis()).ok()
}

fn rate_limits(headers: &HeaderMap) -> Option<Vec<Value>> {
    let limits = limits::from_headers(headers, SystemTime::UNIX_EPOCH);
    let later = limits::from_headers(
        headers,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000),
    );
    let read = limits.iter().zip(&later);
    let read: Vec<_> = read.map(|(one, other)| rate_limit(one, other)).collect();
    (!read.is_empty()).then_some(read)
}

/// One limit; `later` is the same by another clock.
fn rate_limit(limit: &RateLimit, later: &RateLimit) -> Value {
    let mut out = Map::new();
    out.insert("dimension".into(), limit.dimension.as_str().into());
    if let Some(window) = &limit.window {
        out.insert("window".into(), Value::from(&**window));
    }
    for (name, number) in [("limit", limit.limit), ("remaining", limit.remaining)] {
        if let Some(number) = number {
            out.insert(name.into(), self::number(number));
        }
    }
    if let Some(reset) = &limit.reset {
        out.insert("reset_raw".into(), Value::from(&*reset.raw));
        out.insert("reset_kind".into(), reset.kind.as_str().into());
        // A reset that has passed is nothing to wait for.
        let millis = reset.millis.filter(|_| limit.reset == later.reset);
        out.insert("reset_ms".into(), millis.map(|ms| ms.max(0)).into());
    }
    Value::Object(out)
}

/// 500, not 500.0.
fn number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}
