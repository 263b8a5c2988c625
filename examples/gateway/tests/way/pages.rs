//! Health, metrics, the status page, and where they are.
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use tollgate_gateway::{Config, Gateway, client::Proxies};

use crate::common::{WIDE, ask, chat, http1, pair, sim};

#[tokio::test]
async fn the_pages_tell_how_it_is_and_escape_what_callers_wrote() {
    let more = format!("{WIDE}\n[[limit]]\ntokens = 10\nper = \"minute\"\nname = \"<b>tiny</b>\"");
    let pair = pair(sim(), &more).await;
    assert_eq!(pair.get("/healthz").await.body, "ok\n");
    assert_eq!(pair.get("/readyz").await.body, "ready\n");
    let mut document = chat();
    document["model"] = json!("<script>alert(1)</script>");
    let answer = ask(&http1(), pair.post("/v1/chat/completions", &document)).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "request_never_fits");

    let page = pair.get("/").await;
    assert!(page.said("content-type").starts_with("text/html"));
    assert!(
        page.said("content-security-policy")
            .starts_with("default-src 'none'")
    );
    let page = String::from_utf8_lossy(&page.body).into_owned();
    for shown in [
        "http-equiv=\"refresh\"",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&lt;b&gt;tiny&lt;/b&gt;",
        "request_never_fits",
        "Budgets",
        "Queues",
        "Cool-downs",
        "Totals",
    ] {
        assert!(page.contains(shown), "{shown} is missing: {page}");
    }
    assert!(
        !page.contains("<script") && !page.contains("<b>tiny"),
        "{page}"
    );

    let metrics = pair.get("/metrics").await;
    assert!(metrics.said("content-type").starts_with("text/plain"));
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for shown in [
        "tollgate_gateway_requests_total",
        "tollgate_gateway_limit{target=\"sim\"",
        "gen_ai_client_operation_duration_bucket",
    ] {
        assert!(metrics.contains(shown), "{shown} is missing: {metrics}");
    }
}

#[tokio::test]
async fn pages_that_are_shown_beyond_this_machine_may_be_asked_for_by_a_name() {
    for (admin, status) in [("127.0.0.1:0", 403), ("0.0.0.0:0", 200)] {
        let text = format!(
            "listen = \"127.0.0.1:0\"\nadmin_listen = \"{admin}\"\n[[target]]\nname = \"t\"\norigin = \"http://127.0.0.1:1\""
        );
        let config = Config::parse(&text, &|_| None).expect("a configuration");
        let gateway = Gateway::start_behind(config, Proxies::none())
            .await
            .expect("a gateway");
        let url = format!("http://127.0.0.1:{}/metrics", gateway.admin_addr().port());
        let request = Request::get(url)
            .header("host", "gateway.internal:9090")
            .body(Body::empty())
            .expect("a request");
        assert_eq!(
            ask(&http1(), request).await.status.as_u16(),
            status,
            "{admin}"
        );
    }
}

#[tokio::test]
async fn the_pages_have_a_listener_of_their_own_where_callers_come_from_elsewhere() {
    let digest = tollgate_gateway::keys::hash("0123456789abcdef".as_bytes()).expect("a digest");
    let text = format!(
        "listen = \"0.0.0.0:0\"\nadmin_listen = \"127.0.0.1:0\"\n[[target]]\nname = \"t\"\norigin = \"http://127.0.0.1:1\"\n[[key]]\nname = \"k\"\nsha256 = \"{digest}\""
    );
    let config = Config::parse(&text, &|_| None).expect("a configuration");
    let gateway = Gateway::start_behind(config, Proxies::none())
        .await
        .expect("a gateway");
    let get = async |port: u16, path: &str| {
        let request = Request::get(format!("http://127.0.0.1:{port}{path}"))
            .body(Body::empty())
            .expect("a request");
        ask(&http1(), request).await.status.as_u16()
    };
    let (public, admin) = (gateway.addr().port(), gateway.admin_addr().port());
    for path in ["/", "/metrics"] {
        assert_eq!(
            (get(public, path).await, get(admin, path).await),
            (404, 200),
            "{path}"
        );
    }
    assert_eq!(
        (get(public, "/healthz").await, get(admin, "/readyz").await),
        (200, 200)
    );
    assert_eq!(
        (
            get(public, "/v1/models").await,
            get(admin, "/v1/models").await
        ),
        (401, 404)
    );
    assert!(gateway.stop().await, "nothing was under way");
}

#[tokio::test]
async fn records_and_their_keys_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (jsonl, ledger) = (
        dir.path().join("usage.jsonl"),
        dir.path().join("usage.sqlite"),
    );
    let more = format!("{WIDE}\n[sinks]\njsonl = {jsonl:?}\nledger = {ledger:?}");
    let pair = pair(sim(), &more).await;
    assert_eq!(pair.chat().await.status, StatusCode::OK);
    assert!(pair.gateway.stop().await);
    let lines = std::fs::read_to_string(&jsonl).expect("lines");
    assert_eq!(lines.lines().count(), 1);
    assert!(
        lines.contains("gpt-5-mini") && !lines.contains("hello"),
        "{lines}"
    );
    let reader = tollgate::ledger::Reader::open(&ledger).expect("a ledger");
    let sums = reader
        .sums(&tollgate::ledger::Select::calls())
        .expect("sums");
    assert_eq!(sums.records, 1);
}
