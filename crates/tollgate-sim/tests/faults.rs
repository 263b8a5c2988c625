//! Each fault does what its name says, and the books stay right.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use support::{ask, chat, chat_stream, messages, responses, send};
use tokio::time::{Instant, timeout};
use tollgate_sim::{
    BodyFate, Decision, Fault, FaultMix, SimBody, SimError, SimProvider, Step, Unit, script::Reply,
};
use tower::ServiceExt;

const HOUR: Duration = Duration::from_secs(3_600);

fn with(fault: Fault) -> SimProvider {
    SimProvider::builder()
        .requests(100)
        .reply_tokens(20)
        .script([fault])
        .build()
}

/// Reads frame by frame until the end or an error.
async fn read(mut body: SimBody) -> (Vec<u8>, Option<SimError>) {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend_from_slice(&frame.into_data().unwrap()),
            Err(error) => return (bytes, Some(error)),
        }
    }
    (bytes, None)
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_leaves_no_trace_and_a_reset_one_is_billed() {
    let provider = SimProvider::builder()
        .requests(100)
        .reply_tokens(20)
        .script([Fault::Refused, Fault::Reset])
        .build();
    assert_eq!(
        send(&provider, chat(0, 50)).await.unwrap_err(),
        SimError::Refused
    );
    assert_eq!(provider.totals().requests, 0);
    assert_eq!(provider.totals().unreached, 1);
    assert_eq!(
        send(&provider, chat(0, 50)).await.unwrap_err(),
        SimError::Reset
    );
    let account = provider.account();
    assert_eq!(account.requests[0].billed.output, 20);
    assert_eq!(account.requests[0].body_fate, BodyFate::Broken);
    assert_eq!((account.totals.in_flight, account.totals.admitted), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_hang_never_answers_and_is_closed_when_the_caller_goes() {
    let provider = with(Fault::Hang);
    assert!(timeout(HOUR, send(&provider, chat(0, 50))).await.is_err());
    let account = provider.account();
    assert_eq!(account.totals.in_flight, 0);
    assert_eq!(account.requests[0].body_fate, BodyFate::Dropped);
    assert_eq!(account.requests[0].status, 0);
}

#[tokio::test(start_paused = true)]
async fn slow_headers_and_slow_first_tokens_come_late() {
    let provider = with(Fault::SlowHeaders(Duration::from_secs(3)));
    let start = Instant::now();
    ask(&provider, chat(0, 50)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(3));

    let provider = with(Fault::SlowFirstToken(Duration::from_secs(3)));
    let start = Instant::now();
    let mut body = send(&provider, chat_stream(50, false))
        .await
        .unwrap()
        .into_body();
    assert_eq!(start.elapsed(), Duration::ZERO);
    body.frame().await.unwrap().unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn garbage_headers_come_with_a_good_answer() {
    let answer = ask(&with(Fault::GarbageHeaders), chat(0, 50)).await;
    assert_eq!(answer.json()["object"], "chat.completion");
    let reset = answer.header("x-ratelimit-reset-requests").unwrap();
    assert!(!reset.ends_with("ms"), "{reset}");
    assert!(answer.headers.get_all("retry-after").iter().count() > 1);
    let limits = tollgate_core::wire::limits::from_headers(&answer.headers, std::time::UNIX_EPOCH);
    assert!(
        limits
            .iter()
            .all(|limit| limit.limit.is_none_or(f64::is_finite))
    );
}

#[tokio::test(start_paused = true)]
async fn a_false_gzip_says_gzip_and_is_none() {
    let answer = ask(&with(Fault::FalseGzip), chat(0, 50)).await;
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert_eq!(answer.json()["object"], "chat.completion");
}

#[tokio::test(start_paused = true)]
async fn a_cut_document_ends_cleanly_and_a_cut_body_does_not() {
    let answer = ask(&with(Fault::CutJson), chat(0, 50)).await;
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());

    for request in [chat(0, 50), chat_stream(50, false), messages(0, 50, true)] {
        let body = send(&with(Fault::CutBody { bytes: 150 }), request)
            .await
            .unwrap()
            .into_body();
        let (bytes, error) = read(body).await;
        assert_eq!((bytes.len(), error), (150, Some(SimError::Broken)));
    }
    // Never so late that the document is whole.
    let body = send(&with(Fault::CutBody { bytes: 1 << 20 }), chat(0, 50))
        .await
        .unwrap()
        .into_body();
    let (bytes, error) = read(body).await;
    assert!(
        !bytes.ends_with(b"}}") && bytes.len() > 100,
        "{}",
        bytes.len()
    );
    assert_eq!(error, Some(SimError::Broken));
}

#[tokio::test(start_paused = true)]
async fn a_stall_lasts_as_long_as_it_is_told() {
    let cut_after = Some(Duration::from_secs(2));
    let start = Instant::now();
    let body = send(
        &with(Fault::StallBody {
            bytes: 9,
            cut_after,
        }),
        chat(0, 50),
    )
    .await
    .unwrap()
    .into_body();
    let (bytes, error) = read(body).await;
    assert_eq!((bytes.len(), error), (9, Some(SimError::Broken)));
    assert_eq!(start.elapsed(), Duration::from_secs(2));

    let provider = with(Fault::StallStream {
        events: 3,
        cut_after: None,
    });
    let body = send(&provider, chat_stream(50, false))
        .await
        .unwrap()
        .into_body();
    assert!(timeout(HOUR, read(body)).await.is_err());
    let seen = &provider.account().requests[0];
    assert_eq!(seen.billed.output, 2, "the role, and two tokens");
    assert_eq!(seen.body_fate, BodyFate::Dropped);
}

#[tokio::test(start_paused = true)]
async fn a_cut_stream_is_billed_as_far_as_it_was_sent() {
    let provider = with(Fault::CutStream { events: 8 });
    let body = send(&provider, chat_stream(50, true))
        .await
        .unwrap()
        .into_body();
    let (bytes, error) = read(body).await;
    assert_eq!(error, Some(SimError::Broken));
    assert_eq!(
        String::from_utf8(bytes).unwrap().matches("data: ").count(),
        8
    );
    let account = provider.account();
    assert_eq!(account.requests[0].billed.output, 7);
    assert_eq!(account.totals.billed_output, 7);
}

#[tokio::test(start_paused = true)]
async fn a_bad_event_stands_between_good_ones() {
    let answer = ask(&with(Fault::BadEvent { events: 4 }), chat_stream(50, true)).await;
    let bad: Vec<_> = answer
        .events()
        .iter()
        .map(|(_, data)| serde_json::from_str::<serde_json::Value>(data).is_err())
        .collect();
    assert!(bad[4] && !bad[3] && !bad[5]);
    assert_eq!(answer.events().last().unwrap().1, "[DONE]");
    assert_eq!(answer.documents().len(), bad.len() - 2);
}

#[tokio::test(start_paused = true)]
async fn an_error_event_ends_a_stream_in_each_dialect() {
    for events in [0, 5] {
        let chat = ask(&with(Fault::ErrorEvent { events }), chat_stream(50, true)).await;
        assert_eq!(chat.status, 200);
        assert_eq!(chat.events().len(), events + 1);
        assert_eq!(
            chat.documents()[events]["error"]["code"],
            "server_is_overloaded"
        );

        let messages = ask(&with(Fault::ErrorEvent { events }), messages(0, 50, true)).await;
        assert_eq!(messages.events()[events].0, "error");
        assert_eq!(
            messages.documents()[events]["error"]["type"],
            "overloaded_error"
        );

        let responses = ask(&with(Fault::ErrorEvent { events }), responses(50, true)).await;
        assert_eq!(responses.documents()[events]["type"], "error");
        assert_eq!(responses.documents()[events + 1]["type"], "response.failed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_may_lack_its_end_marker_or_carry_usage_elsewhere() {
    let last = |answer: support::Answer| answer.events().last().unwrap().clone();
    let answer = ask(&with(Fault::NoDone), chat_stream(50, true)).await;
    assert!(last(answer).1.contains("\"usage\":{"));
    let answer = ask(&with(Fault::NoDone), messages(0, 50, true)).await;
    assert_eq!(last(answer).0, "message_delta");

    let answer = ask(&with(Fault::UsageOnChoice), chat_stream(50, false)).await;
    let chunk = answer.documents().pop().unwrap();
    assert_eq!(chunk["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunk["usage"]["completion_tokens"], 20);

    let answer = ask(&with(Fault::UsageOnEvery), chat_stream(50, false)).await;
    let counts: Vec<_> = answer
        .documents()
        .iter()
        .map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, (0..=20).chain([20]).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn odd_chunks_hold_the_same_bytes() {
    let whole = ask(&with(Fault::None), chat_stream(50, true)).await.body;
    for size in [1, 7, 64, 100_000] {
        let response = send(&with(Fault::Rechunk(size)), chat_stream(50, true))
            .await
            .unwrap();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() == size || bytes.len() + data.len() == whole.len());
            bytes.extend_from_slice(&data);
        }
        assert_eq!(bytes, whole, "{size}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_faults_come_together() {
    let fault = Fault::Several(vec![
        Fault::SlowHeaders(Duration::from_secs(1)),
        Fault::Rechunk(5),
        Fault::CutStream { events: 2 },
    ]);
    let start = Instant::now();
    let body = send(&with(fault), chat_stream(50, true))
        .await
        .unwrap()
        .into_body();
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    let (bytes, error) = read(body).await;
    assert_eq!(
        String::from_utf8(bytes).unwrap().matches("data: ").count(),
        2
    );
    assert_eq!(error, Some(SimError::Broken));
}

#[tokio::test(start_paused = true)]
async fn any_answer_may_be_put_in_the_place_of_a_real_one() {
    for status in [204, 302, 418] {
        let provider = with(
            Reply::status(status)
                .header("location", "/elsewhere")
                .into(),
        );
        let answer = ask(
            &provider,
            Request::get("/anything").body(Full::default()).unwrap(),
        )
        .await;
        assert_eq!(answer.status, status);
        assert_eq!(provider.account().requests[0].decision, Decision::Faulted);
    }
    // Before the request's body was read.
    let provider = with(Reply::status(413).unread().into());
    let request = Request::post("/v1/chat/completions")
        .body(SimBody::new([Step::Stall]))
        .unwrap();
    assert_eq!(
        provider.clone().oneshot(request).await.unwrap().status(),
        413
    );
}

#[tokio::test(start_paused = true)]
async fn a_predicate_decides_by_what_it_sees_after_the_script() {
    let provider = SimProvider::builder()
        .script([Fault::Status(500)])
        .on(|request| match request.index {
            _ if request.at >= Duration::from_secs(60) => Fault::None,
            0..=9 if request.model == "gpt-test" && !request.stream => Fault::Overloaded,
            _ => Fault::None,
        })
        .build();
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(ask(&provider, chat(0, 1)).await.status.as_u16());
    }
    statuses.push(ask(&provider, chat_stream(1, false)).await.status.as_u16());
    tokio::time::sleep(Duration::from_secs(60)).await;
    statuses.push(ask(&provider, chat(0, 1)).await.status.as_u16());
    assert_eq!(statuses, [500, 503, 200, 200]);
}

#[tokio::test(start_paused = true)]
async fn limits_go_before_a_fault_that_bends_an_answer() {
    let provider = SimProvider::builder()
        .requests(1)
        .script([Fault::None, Fault::CutJson])
        .build();
    ask(&provider, chat(0, 1)).await;
    assert_eq!(ask(&provider, chat(0, 1)).await.status, 429);
    let decision = provider.account().requests[1].decision;
    assert_eq!(
        decision,
        Decision::Refused {
            unit: Unit::Requests,
            never: false
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_mix_troubles_its_share_of_the_requests_alike_in_each_run() {
    let run = async || {
        let provider = SimProvider::builder()
            .seed(5)
            .mix(FaultMix::standard().scaled_to(20.0))
            .build();
        for chars in 0..1_000 {
            if let Ok(response) = send(&provider, chat(chars, 50)).await {
                let _ = response.into_body().collect().await;
            }
        }
        let account = provider.account();
        assert_eq!(account.totals.in_flight, 0);
        account
            .requests
            .iter()
            .map(|seen| (seen.fault, seen.status))
            .collect::<Vec<_>>()
    };
    let (first, second) = (run().await, run().await);
    assert_eq!(first, second);
    let troubled = first.iter().filter(|(fault, _)| *fault).count();
    assert!((165..235).contains(&troubled), "{troubled}");
}
