//! Which paths pass, and where they go.
use axum::body::Body;
use http::{Method, Request, StatusCode, header};
use serde_json::json;
use tollgate_sim::{Fault, SimBuilder, script::Reply};

use crate::common::{Answer, Pair, WIDE, ask, chat, http1, pair, pair_with, sim};

/// A provider that takes everything and says which path it heard.
fn echo() -> SimBuilder {
    sim().on(|incoming| {
        let heard = json!({ "path": incoming.uri.path() });
        Fault::Answer(Box::new(Reply::ok_json(heard)))
    })
}

async fn send(pair: &Pair, method: Method, path: &str, header: Option<&'static str>) -> Answer {
    let mut request = Request::builder().method(method).uri(pair.url(path));
    if let Some(name) = header {
        request = request.header(name, "1");
    }
    let request = request.body(Body::from("{}")).expect("a request");
    ask(&http1(), request).await
}

const BATCHES: &str = "/v1/batches";

#[tokio::test]
async fn what_no_limit_can_count_is_refused_where_one_of_tokens_or_money_is_ours() {
    let money = "[prices]\nshipped = true\n[[limit]]\ndollars = \"1\"\ncalendar = \"day\"\n";
    let tokens = "[[limit]]\ntokens = 1_000_000\nper = \"minute\"\nscope = \"principal\"\n";
    let images = "[[limit]]\nimages = 1_000\nper = \"minute\"\n";
    for limit in [money, tokens, images] {
        let pair = pair(echo(), &format!("{WIDE}\n{limit}")).await;
        for path in [
            BATCHES,
            "/v1/files",
            "/v1/fine_tuning/jobs",
            "/v1/videos",
            "/v1/threads/thread_1/runs",
            "/v1/realtime/client_secrets",
        ] {
            let answer = send(&pair, Method::POST, path, None).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}: {answer:?}");
            assert_eq!(answer.json()["error"]["code"], "unmetered_path");
            assert_eq!(answer.said("x-should-retry"), "false");
            let said = answer.json()["error"]["message"].to_string();
            assert!(said.contains("`pass_unmetered = true`"), "{said}");
        }
        assert_eq!(pair.provider.provider().totals().requests, 0);
        // To look, to delete and to cancel costs nothing.
        for (method, path) in [
            (Method::GET, BATCHES),
            (Method::DELETE, "/v1/files/file-1"),
            (Method::POST, "/v1/batches/batch_1/cancel"),
        ] {
            let answer = send(&pair, method, path, None).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {answer:?}");
        }
        let page = pair.get("/").await;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        assert!(page.contains("<td>unmetered</td>"), "{page}");
    }
}

#[tokio::test]
async fn what_no_limit_can_count_passes_where_none_has_to_or_it_is_told_so() {
    let tokens = "limits = [{ tokens = 1_000_000, per = \"minute\" }]";
    let capped = format!("{WIDE}\n[[limit]]\ntokens = 1_000_000\nper = \"minute\"\n");
    for (head, more, status) in [
        ("", WIDE, 200),
        // The provider's own, which counts batches elsewhere.
        ("", tokens, 200),
        ("pass_unmetered = true", &*capped, 200),
        ("pass_unmetered = false", WIDE, 403),
    ] {
        let pair = pair_with(echo(), |url| {
            format!("listen = \"127.0.0.1:0\"\n{head}\n[[target]]\nname = \"sim\"\norigin = \"{url}\"\n{more}")
        })
        .await;
        let answer = send(&pair, Method::POST, BATCHES, None).await;
        assert_eq!(answer.status.as_u16(), status, "{head} {more}: {answer:?}");
    }
}

#[tokio::test]
async fn errors_about_other_paths_have_the_shape_of_their_dialect_too() {
    let capped = format!("{WIDE}\n[[limit]]\ntokens = 1_000_000\nper = \"minute\"\n");
    let pair = pair(echo(), &capped).await;
    let header = Some("anthropic-version");
    let answer = send(&pair, Method::POST, "/v1/messages/batches", header).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.json()["type"], "error");
    assert_eq!(answer.json()["error"]["type"], "permission_error");
    let answer = send(&pair, Method::POST, "/v1beta/cachedContents", None).await;
    assert_eq!(answer.json()["error"]["code"], 403, "{answer:?}");
}

#[tokio::test]
async fn a_redirect_of_the_provider_does_not_name_where_it_is() {
    let moves = sim().on(|incoming| {
        let host = incoming.headers["host"].to_str().expect("text");
        let there = format!("http://{host}/v1/files/2");
        let reply = Reply::ok_json(json!({})).header("location", &there);
        Fault::Answer(Box::new(reply))
    });
    let pair = pair(moves, WIDE).await;
    let answer = send(&pair, Method::GET, "/v1/files/1", None).await;
    assert_eq!(answer.said("location"), "/v1/files/2", "{answer:?}");
}

/// Two targets: `a` of a dialect, under a prefix, and one of OpenAI's.
async fn two(dialect: &str, prefix: &str) -> Pair {
    pair_with(echo(), |url| {
        format!(
            "listen = \"127.0.0.1:0\"\n[[target]]\nname = \"open\"\norigin = \"{url}\"\n{prefix}\n{WIDE}\n\
             [[target]]\nname = \"other\"\norigin = \"{url}\"\ndialect = \"{dialect}\"\n{WIDE}\n"
        )
    })
    .await
}

#[tokio::test]
async fn a_version_that_only_one_dialect_has_goes_to_its_target() {
    for (dialect, path) in [
        ("gemini", "/v1beta/models"),
        ("gemini", "/v1beta/cachedContents/1"),
        ("cohere", "/v2/models"),
    ] {
        let pair = two(dialect, "").await;
        let answer = send(&pair, Method::GET, path, None).await;
        assert_eq!(
            answer.said("x-tollgate-target"),
            "other",
            "{path}: {answer:?}"
        );
        assert_eq!(answer.json()["path"], path);
        let answer = send(&pair, Method::GET, "/v1/models", None).await;
        assert_eq!(answer.said("x-tollgate-target"), "open");
    }
    let pair = pair(echo(), WIDE).await;
    let answer = send(&pair, Method::GET, "/v1beta/models", None).await;
    assert_eq!(answer.json()["error"]["status"], "NOT_FOUND", "{answer:?}");
    assert_eq!(pair.provider.provider().totals().requests, 0);
}

#[tokio::test]
async fn a_prefix_confines() {
    let pair = two("anthropic", "prefix = \"/team/v1\"").await;
    let answer = send(&pair, Method::POST, "/v1/embeddings", None).await;
    assert_eq!(answer.json()["path"], "/team/v1/embeddings");
    for path in ["/v2/embeddings", "/v1beta/openai/embeddings"] {
        let answer = send(&pair, Method::POST, path, None).await;
        assert_eq!(
            answer.json()["error"]["code"],
            "no_target",
            "{path}: {answer:?}"
        );
    }
    assert_eq!(pair.provider.provider().totals().requests, 1);
}

/// A request with such headers.
async fn typed(pair: &Pair, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let mut request = Request::post(pair.url(path));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(&http1(), request.body(Body::from(body)).expect("a request")).await
}

#[tokio::test]
async fn a_call_of_a_type_that_no_limit_reads_is_refused() {
    let pair = pair(echo(), WIDE).await;
    let chat = chat().to_string().into_bytes();
    let kind = header::CONTENT_TYPE.as_str();
    for told in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "text/plain; x=json",
        "multipart/form-data; boundary=b",
    ] {
        let answer = typed(&pair, "/v1/chat/completions", &[(kind, told)], chat.clone()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{told}");
        assert_eq!(answer.json()["error"]["code"], "unsupported_type");
        let answer = typed(&pair, "/v1/messages", &[(kind, told)], chat.clone()).await;
        assert_eq!(answer.json()["type"], "error", "{answer:?}");
    }
    let two = [(kind, "application/json"), (kind, "text/plain")];
    let answer = typed(&pair, "/v1/chat/completions", &two, chat.clone()).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let coded = [
        ("content-encoding", "identity"),
        ("content-encoding", "gzip"),
    ];
    let answer = typed(&pair, "/v1/chat/completions", &coded, chat.clone()).await;
    assert_eq!(answer.json()["error"]["code"], "unsupported_encoding");
    assert_eq!(pair.provider.provider().totals().requests, 0);
    for (path, told) in [
        ("/v1/chat/completions", &[][..]),
        (
            "/v1/chat/completions",
            &[(kind, "application/JSON; charset=utf-8")],
        ),
        (
            "/v1/audio/transcriptions",
            &[(kind, "multipart/form-data; boundary=b")],
        ),
        (
            "/v1/images/edits",
            &[(kind, "multipart/form-data; boundary=b")],
        ),
        ("/v1/files", &[(kind, "multipart/form-data; boundary=b")]),
    ] {
        let answer = typed(&pair, path, told, chat.clone()).await;
        assert_eq!(answer.status, StatusCode::OK, "{path} {told:?}: {answer:?}");
    }
}

#[tokio::test]
async fn where_a_limit_is_of_certain_models_a_call_must_name_its_own() {
    let chat = chat().to_string();
    let wide: Vec<u8> = chat.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (models, status) in [("models = [\"gpt-5*\"]", 400), ("", 200)] {
        let limit = format!("{WIDE}\n[[limit]]\nrequests = 1_000\nper = \"minute\"\n{models}");
        let pair = pair(echo(), &limit).await;
        for body in [wide.clone(), b"{\"model".to_vec()] {
            let answer = typed(&pair, "/v1/chat/completions", &[], body).await;
            assert_eq!(answer.status.as_u16(), status, "{models}: {answer:?}");
        }
        assert_eq!(pair.chat().await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_path_that_hides_what_it_asks_for_is_refused() {
    let pair = pair(echo(), WIDE).await;
    for path in [
        "/v1/chat%2Fcompletions",
        "/v1/chat//completions",
        "/v1/chat%5Ccompletions",
    ] {
        let answer = send(&pair, Method::POST, path, None).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {answer:?}");
        assert_eq!(answer.json()["error"]["code"], "invalid_path");
    }
    assert_eq!(pair.provider.provider().totals().requests, 0);
}
