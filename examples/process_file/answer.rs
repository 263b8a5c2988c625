//! What became of a row: an answer, or the reason why there is none.
use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::json;

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    /// Of a success.
    pub status: u16,
    /// The provider's name for the request.
    pub request_id: Option<String>,
    /// One JSON object.
    pub body: Bytes,
}

/// Why a row has no answer.
#[derive(Debug)]
pub struct Failure {
    /// A short word that programs can compare; the provider's own where there is one.
    pub kind: Cow<'static, str>,
    /// The provider's code.
    pub code: Option<String>,
    /// For people.
    pub message: String,
    /// Of the last answer, if there was any.
    pub status: Option<u16>,
    /// Requests sent for the row.
    pub attempts: u32,
    /// The line in the input, where the input is to blame.
    pub line: Option<u64>,
    /// The last answer: its id and its document, if it was a JSON object.
    pub answer: Option<Box<Answer>>,
}

impl Failure {
    /// A failure of which only this is known.
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: Cow::Borrowed(kind),
            code: None,
            message: message.into(),
            status: None,
            attempts: 0,
            line: None,
            answer: None,
        }
    }

    /// A line of the input that cannot be sent.
    pub fn broken_line(line: u64, why: String) -> Self {
        Self {
            line: Some(line),
            ..Self::new("invalid_row", why)
        }
    }
}

/// The longest provider's message that is written down.
const MESSAGE_MAX: usize = 2000;

/// Judges a response that was read to its end.
///
/// An answer is a success with one whole JSON object that does not itself report an error, as some
/// providers do with status 200.
pub fn judge(status: u16, request_id: Option<String>, body: Bytes) -> Result<Answer, Failure> {
    let success = (200..300).contains(&status);
    let error = match json::object(&body, ["error"]) {
        Ok([error]) => json::stated(error).map(told),
        Err(_) if success && body.is_empty() => {
            return Err(bad_answer(status, request_id, "the answer is empty".into()));
        }
        Err(why) if success => {
            let why = format!("the answer is not whole JSON: {why}");
            return Err(bad_answer(status, request_id, why));
        }
        Err(_) => {
            let message = if body.is_empty() {
                format!("the provider answered with status {status} and nothing else")
            } else {
                clip(&String::from_utf8_lossy(&body))
            };
            let kind = status_kind(status);
            return Err(Failure {
                status: Some(status),
                ..Failure::new(kind, message)
            });
        }
    };
    if success && error.is_none() {
        return Ok(Answer {
            status,
            request_id,
            body,
        });
    }
    let (kind, code, message) = error.unwrap_or_default();
    let message = message.unwrap_or_else(|| clip(&String::from_utf8_lossy(&body)));
    Err(Failure {
        kind: kind.map_or(Cow::Borrowed(status_kind(status)), Cow::Owned),
        code,
        status: Some(status),
        answer: Some(Box::new(Answer {
            status,
            request_id,
            body,
        })),
        ..Failure::new("", message)
    })
}

fn bad_answer(status: u16, request_id: Option<String>, why: String) -> Failure {
    let why = match request_id {
        Some(id) => format!("{why} (request {id})"),
        None => why,
    };
    Failure {
        status: Some(status),
        ..Failure::new("broken_answer", why)
    }
}

type Told = (Option<String>, Option<String>, Option<String>);

/// Type, code and message of an error document: an object in most dialects, a text in some.
fn told(error: &RawValue) -> Told {
    let Ok([kind, code, message]) =
        json::object(error.get().as_bytes(), ["type", "code", "message"])
    else {
        let text = json::string(Some(error)).unwrap_or_else(|| error.get().to_owned());
        return (None, None, Some(clip(&text)));
    };
    let word = |member| {
        let raw = json::stated(member)?;
        // A code may be a number.
        Some(clip(
            &json::string(Some(raw)).unwrap_or_else(|| raw.get().to_owned()),
        ))
    };
    (word(kind), word(code), word(message))
}

fn status_kind(status: u16) -> &'static str {
    match status {
        401 | 403 => "unauthorized",
        404 | 410 => "not_found",
        408 | 504 => "timeout",
        413 => "too_large",
        429 => "rate_limited",
        400..=499 => "invalid_request",
        529 => "overloaded",
        500..=599 => "server_error",
        _ => "unexpected_answer",
    }
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &'static str) -> Result<Answer, Failure> {
        judge(status, None, Bytes::from_static(body.as_bytes()))
    }

    #[test]
    fn only_a_whole_object_of_a_success_is_an_answer() {
        assert!(judged(200, "{\"choices\":[], \"error\": null}\n").is_ok());
        for body in [
            "",
            "{\"choices\":[",
            "data: {}\n\n",
            "null",
            "{\"error\":\"no\"}",
        ] {
            assert!(judged(200, body).is_err(), "{body:?} is no answer");
        }
        assert!(judged(302, "{}").is_err());
    }

    #[test]
    fn the_providers_own_words_are_kept() {
        let document = r#"{"error":{"message":"no such model","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#;
        let failure = judged(404, document).unwrap_err();
        assert_eq!(failure.kind, "invalid_request_error");
        assert_eq!(failure.code.as_deref(), Some("model_not_found"));
        assert_eq!(failure.message, "no such model");
        assert_eq!(failure.status, Some(404));
        let page = judged(502, "<html>bad gateway</html>").unwrap_err();
        assert_eq!(
            (&*page.kind, &*page.message),
            ("server_error", "<html>bad gateway</html>")
        );
    }
}
