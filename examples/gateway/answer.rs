//! Answers of the gateway's own, and what it adds to those of others.
use std::{collections::VecDeque, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tollgate::{
    body::Replay, call::Attempt, extensions::ServedBy, own_error, price::Cost,
    wire::prompt::Endpoint,
};

use crate::{
    gather::{Held, Room},
    headers::say,
};

/// Largest answer that is read before its head goes out, so that the head can say what it cost.
const WHOLE: usize = 8 << 20;

/// An error in the shape of the provider for whom the gateway stands. `again`: the same request may do better then.
#[must_use]
pub fn error(
    endpoint: Endpoint,
    status: StatusCode,
    code: &'static str,
    message: &str,
    again: Option<Duration>,
) -> Response<Body> {
    let mut answer = own_error::respond(endpoint, status, code, message, Body::from);
    let headers = answer.headers_mut();
    // The SDKs of OpenAI and Anthropic obey it; else they would ask three times.
    let retry = if again.is_some() { "true" } else { "false" };
    headers.insert("x-should-retry", HeaderValue::from_static(retry));
    if let Some(wait) = again {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(wait.as_secs().max(1)),
        );
    }
    answer
}

/// Reads a document to its end, so that its cost is known when its head goes out, and one that breaks is an error and not
/// a broken answer. A retry inside has mostly done so already. Streams, and documents that turn out to be large or for which
/// there is no room, pass as they come. The room is held until the second value is dropped.
///
/// # Errors
///
/// If it breaks; nothing of it was sent on.
pub async fn whole(
    answer: Response<Body>,
    stream: bool,
    room: &Room,
) -> Result<(Response<Body>, Held), axum::Error> {
    let json = answer.headers().get(header::CONTENT_TYPE);
    let json = json.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let large = answer.body().size_hint().lower() > WHOLE as u64;
    if stream || !json || large || answer.body().is_end_stream() {
        return Ok((answer, Held::default()));
    }
    let (head, mut body) = answer.into_parts();
    let mut frames = VecDeque::new();
    let mut length = 0;
    let mut held = Held::default();
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        length += frame.data_ref().map_or(0, Bytes::len);
        frames.push_back(frame);
        if length > WHOLE || !room.hold(&mut held, length) {
            let body = Body::new(Replay::peeked(frames, body));
            return Ok((Response::from_parts(head, body), held));
        }
    }
    let body = Body::new(Replay::<Body>::buffered(frames, None));
    Ok((Response::from_parts(head, body), held))
}

/// Says what became of the call: how many attempts, who served, how long it waited here, what it cost.
pub fn tell(answer: &mut Response<Body>, attempts: &[Attempt], target: &str, model: Option<&str>) {
    let served = ServedBy::of(answer).cloned();
    let sent = attempts.iter().filter(|attempt| attempt.skipped.is_none());
    let last = sent.clone().next_back();
    let waited: Duration = attempts
        .iter()
        .map(|attempt| {
            let before = attempt.waited.map_or(Duration::ZERO, |(wait, _)| wait);
            before + attempt.queued.unwrap_or_default()
        })
        .sum();
    let cost = attempts.iter().rev().find_map(|attempt| attempt.cost);
    let headers = answer.headers_mut();
    let sent = sent.count();
    say(headers, "x-tollgate-attempts", &sent.to_string());
    say(
        headers,
        "x-tollgate-wait-ms",
        &waited.as_millis().to_string(),
    );
    if sent > 0 {
        let moved = served.as_ref().and_then(|served| served.target.as_deref());
        let moved = moved.or(last.and_then(|last| last.target.as_deref()));
        say(headers, "x-tollgate-target", moved.unwrap_or(target));
    }
    let moved = served.as_ref().and_then(|served| served.model.as_deref());
    let moved = moved.or(last.and_then(|last| last.model.as_deref()));
    if let Some(model) = moved.or(model).filter(|_| sent > 0) {
        say(headers, "x-tollgate-model", model);
    }
    match cost {
        Some(Cost::Exact(cost)) => say(headers, "x-tollgate-cost", &cost.to_string()),
        Some(Cost::AtLeast(cost)) => say(headers, "x-tollgate-cost", &format!("at least {cost}")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    async fn document(room: &Room) -> (Response<Body>, Held) {
        let answer = Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(vec![b'1'; 3 << 10]))
            .unwrap();
        whole(answer, false, room).await.unwrap()
    }

    fn room() -> Room {
        let text = "[[target]]\nname = \"t\"\norigin = \"http://127.0.0.1:1\"";
        let mut config = Config::parse(text, &|_| None).unwrap();
        config.max_buffered = 8 << 10;
        Room::new(&config)
    }

    #[tokio::test]
    async fn documents_that_are_held_take_room_and_those_without_it_pass_as_they_come() {
        let room = room();
        let (first, held) = document(&room).await;
        assert!(
            !room.hold(&mut Held::default(), 2 << 10),
            "answers have half of it, and 3 KiB of that are held"
        );
        let (second, _) = document(&room).await;
        for answer in [first, second] {
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), 3 << 10);
        }
        drop(held);
        let mut whole = Held::default();
        assert!(room.hold(&mut whole, 4 << 10), "and it is free again");
    }

    #[tokio::test]
    async fn answers_that_nobody_reads_leave_half_of_the_room_to_requests() {
        let room = room();
        let mut all = Vec::new();
        for _ in 0..10 {
            all.push(document(&room).await);
        }
        let request = Body::from(vec![b'1'; 4 << 10]);
        assert!(room.read(request).await.is_ok());
    }
}
