//! What the wire language reads from the simulator's answers is what the account says.
#![allow(clippy::unwrap_used)]
mod support;

use http::Request;
use http_body_util::BodyExt;
use serde_json::json;
use support::{Body, chat, chat_stream, messages, post, responses, send};
use tollgate_core::wire::{
    answer::{Answer, AnswerReader},
    outcome::ErrorClass,
    prompt::Endpoint,
    usage::{Count, Finish},
};
use tollgate_sim::{Fault, SimError, SimProvider};

/// Feeds an answer to a reader, frame by frame, to its end or to where it breaks.
async fn read(
    provider: &SimProvider,
    request: Request<Body>,
    endpoint: Endpoint,
) -> (Answer, Option<SimError>) {
    let (head, mut body) = send(provider, request).await.unwrap().into_parts();
    let mut reader = AnswerReader::new(endpoint, head.status, &head.headers);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => reader.feed(&frame.into_data().unwrap()),
            Err(error) => return (reader.into_answer(), Some(error)),
        }
    }
    reader.end();
    (reader.into_answer(), None)
}

fn cases() -> Vec<(Request<Body>, Endpoint, &'static str)> {
    let embed = json!({"model": "gpt-test", "input": ["one", "two"]});
    vec![
        (chat(30, 90), Endpoint::ChatCompletions, "gpt-test-1"),
        (
            chat_stream(90, true),
            Endpoint::ChatCompletions,
            "gpt-test-1",
        ),
        (responses(90, false), Endpoint::Responses, "gpt-test-1"),
        (responses(90, true), Endpoint::Responses, "gpt-test-1"),
        (
            messages(30, 90, false),
            Endpoint::AnthropicMessages,
            "claude-test-1",
        ),
        (
            messages(30, 90, true),
            Endpoint::AnthropicMessages,
            "claude-test-1",
        ),
        (
            post("/v1/embeddings", &embed),
            Endpoint::Embeddings,
            "gpt-test-1",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_answer_is_read_as_billed_however_it_is_cut_into_frames() {
    for fault in [Fault::None, Fault::Rechunk(1), Fault::Rechunk(17)] {
        for (request, endpoint, model) in cases() {
            let provider = SimProvider::builder()
                .dated("1")
                .cached_share(0.5)
                .script([fault.clone()])
                .build();
            let (answer, error) = read(&provider, request, endpoint).await;
            let billed = provider.account().requests[0].billed;
            let what = format!("{endpoint:?} {fault:?}");
            assert_eq!(error, None);
            assert!(answer.complete, "{what}");
            assert_eq!(answer.model.as_deref(), Some(model), "{what}");
            assert_eq!(answer.usage.input, Count::Exact(billed.input), "{what}");
            if endpoint != Endpoint::Embeddings {
                assert_eq!(answer.usage.output, Count::Exact(billed.output), "{what}");
                assert_eq!(
                    answer.usage.cached_input,
                    Count::Exact(billed.cached),
                    "{what}"
                );
                assert_eq!(answer.finish, Some(Finish::Stop), "{what}");
                assert_eq!(answer.output_chars, 4 * billed.output, "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_answer_is_not_read_as_complete() {
    for (request, endpoint, _) in cases() {
        let provider = SimProvider::builder()
            .script([Fault::CutBody { bytes: 260 }])
            .build();
        let (answer, error) = read(&provider, request, endpoint).await;
        assert_eq!(error, Some(SimError::Broken));
        assert!(!answer.complete, "{endpoint:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_event_is_read_as_an_overload() {
    for (request, endpoint, _) in cases() {
        let provider = SimProvider::builder()
            .script([Fault::ErrorEvent { events: 0 }])
            .build();
        let streamed =
            String::from_utf8_lossy(&request.body().clone().collect().await.unwrap().to_bytes())
                .contains("\"stream\":true");
        let (answer, _) = read(&provider, request, endpoint).await;
        if streamed {
            let error = answer.error.unwrap();
            assert_eq!(error.class, ErrorClass::Overloaded, "{endpoint:?}");
            assert_eq!(answer.output_chars, 0, "{endpoint:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn usage_in_odd_places_is_read_alike() {
    for fault in [
        Fault::UsageOnChoice,
        Fault::UsageOnEvery,
        Fault::NoDone,
        Fault::BadEvent { events: 3 },
    ] {
        let provider = SimProvider::builder().script([fault.clone()]).build();
        let (answer, _) = read(&provider, chat_stream(90, true), Endpoint::ChatCompletions).await;
        let billed = provider.account().requests[0].billed;
        assert_eq!(
            answer.usage.output,
            Count::Exact(billed.output),
            "{fault:?}"
        );
    }
}
