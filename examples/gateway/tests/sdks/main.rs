//! The official SDKs of OpenAI and Anthropic, through the gateway to the simulated provider. They are child processes, and
//! are installed by `bash tests/install.sh`.
use std::{path::PathBuf, process::Stdio};

use serde_json::{Value, json};
use tokio::process::Command;
use tollgate_gateway::{Config, Gateway, client::Proxies, keys};
use tollgate_sim::{Fault, Incoming, SimProvider, server::Server};

const KEY: &str = "a key for the tests of SDKs";

/// Where `tests/needs/sdks.sh` puts them.
fn installed() -> PathBuf {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/.installed/sdks"
    ));
    assert!(
        path.join("done").is_file(),
        "the SDKs are not installed; run: bash tests/install.sh"
    );
    path.canonicalize().expect("it is there")
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/sdks")
        .join(name)
}

/// What a script said, and what the gateway and the provider saw of it.
struct Run {
    said: Value,
    gateway: Gateway,
    provider: Server,
}

/// The gateway knows one key. `breaks` is a model that always fails, `tiny` one whose limit is below every request, and
/// `again` one that may be asked once a second.
async fn run(dialect: &str, mut program: Command, more: &[&str]) -> Run {
    let fault = |incoming: &Incoming<'_>| match incoming.model {
        "breaks" => Fault::Status(500),
        _ => Fault::None,
    };
    let provider = SimProvider::builder().reply_tokens(8).on(fault).build();
    let provider = Server::bind("127.0.0.1:0", provider)
        .await
        .expect("a provider");
    let digest = keys::hash(KEY.replace(' ', "-").as_bytes()).expect("a digest");
    let text = format!(
        r#"
        listen = "127.0.0.1:0"
        [[target]]
        name = "sim"
        origin = "{}"
        dialect = "{dialect}"
        limits = [{{ requests = 1_000_000, per = "minute" }}]
        [[limit]]
        tokens = 10
        per = "minute"
        models = ["tiny"]
        [[limit]]
        requests = 1
        per = "1s"
        models = ["again"]
        name = "once a second"
        scope = "principal"
        refuse = true
        [[key]]
        name = "sdk"
        sha256 = "{digest}"
        "#,
        provider.url()
    );
    let config = Config::parse(&text, &|_| None).expect("a configuration");
    let gateway = Gateway::start_behind(config, Proxies::none())
        .await
        .expect("a gateway");
    program
        .arg(format!("http://{}", gateway.addr()))
        .arg(KEY.replace(' ', "-"))
        .args(more);
    // No proxy of this machine stands between them.
    program
        .env("NO_PROXY", "*")
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = program.output().await.expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the script failed: {errors}");
    let said = serde_json::from_slice(&output.stdout).expect("a document");
    Run {
        said,
        gateway,
        provider,
    }
}

impl Run {
    /// Calls that came to the gateway for a model.
    fn calls(&self, model: &str) -> u64 {
        let usage = self.gateway.handles().sinks.totals.snapshot();
        usage.model(model).map_or(0, |sums| sums.calls)
    }

    /// What holds for every SDK.
    fn check(&self) {
        let said = &self.said;
        assert_eq!(said["chat"]["output"], 8, "{said}");
        assert!(
            said["chat"]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{said}"
        );
        assert!(
            said["stream"]["text"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{said}"
        );

        // Their own retries obey `x-should-retry`: once asked is once asked.
        assert_eq!(
            (&said["refused"]["kind"], &said["refused"]["status"]),
            (&json!("RateLimitError"), &json!(429)),
            "{said}"
        );
        assert_eq!(self.calls("tiny"), 1, "what never fits is not asked again");
        assert_eq!(
            (&said["broken"]["kind"], &said["broken"]["status"]),
            (&json!("InternalServerError"), &json!(500)),
            "{said}"
        );
        assert_eq!(
            self.calls("breaks"),
            1,
            "what the gateway gave up on is not asked again"
        );
        let at = |model: &str| {
            let account = self.provider.provider().account();
            account
                .requests
                .iter()
                .filter(|seen| *seen.model == *model)
                .count()
        };
        assert_eq!(at("breaks"), 3, "the gateway's attempts, and no more");

        assert_eq!(
            said["again"],
            json!([8, 8]),
            "the second one was refused first, and came back when it was told to"
        );
        assert!(
            self.calls("again") > 2,
            "it was asked again: {}",
            self.calls("again")
        );
        assert_eq!(at("again"), 2, "the provider saw neither the refused ones");

        assert_eq!(
            (&said["stranger"]["kind"], &said["stranger"]["status"]),
            (&json!("AuthenticationError"), &json!(401)),
            "{said}"
        );
    }
}

fn python(name: &str) -> Command {
    let mut program = Command::new("python3");
    program
        .env("PYTHONPATH", installed().join("python"))
        .arg(script(name));
    program
}

fn openai(run: &Run) {
    run.check();
    let said = &run.said;
    assert_eq!(
        said["stream"]["usage"], false,
        "nobody asked for it, so the gateway took it out again"
    );
    assert_eq!(said["stream_with_usage"], json!([8]));
    assert_eq!(said["stream"]["finish"], "stop");
    assert_eq!(said["embeddings"], json!([8, 8]), "of eight dimensions");
    assert!(
        said["responses"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{said}"
    );
    assert_eq!(said["stranger"]["code"], "invalid_api_key");
    let usage = run.gateway.handles().sinks.totals.snapshot();
    assert_eq!(
        usage.all.unknown_usage, 0,
        "the usage of all streams is known"
    );
}

#[tokio::test]
async fn the_openai_sdk_for_python_works_through_the_gateway() {
    let run = run("openai", python("openai_sdk.py"), &[]).await;
    openai(&run);
}

#[tokio::test]
async fn the_openai_sdk_for_node_works_through_the_gateway() {
    let mut program = Command::new("node");
    program.arg(script("openai_sdk.mjs"));
    let from = installed().join("node");
    let run = run("openai", program, &[from.to_str().expect("a path of text")]).await;
    openai(&run);
}

#[tokio::test]
async fn the_anthropic_sdk_for_python_works_through_the_gateway() {
    let run = run("anthropic", python("anthropic_sdk.py"), &[]).await;
    run.check();
    assert_eq!(run.said["stream"]["usage"], 8);
    assert_eq!(run.said["stream"]["finish"], "end_turn");
    assert_eq!(run.said["stranger"]["code"], "authentication_error");
}
