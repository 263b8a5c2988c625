//! async-openai's client over a real socket on loopback.
use std::time::Duration;

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    types::{
        chat::{
            ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
            CreateChatCompletionRequestArgs,
        },
        embeddings::CreateEmbeddingRequestArgs,
    },
};
use futures_util::StreamExt;
use tollgate_async_openai::{AsyncOpenAiLayer, scoped};
use tollgate_budget::{Budget, Limit, TokenBudgetLayer};
use tollgate_core::call::CallOptions;
use tollgate_reqwest::{Reqwest, ResponseExt, v0_13::HttpService};
use tollgate_retry::{RateLimitPolicy, RetryOnRateLimitLayer};
use tollgate_sim::{Fault, SimProvider, Unit, server::Server};
use tollgate_usage::{UsageRecorderLayer, UsageTotals};
use tower::ServiceBuilder;

struct Stack {
    client: Client<OpenAIConfig>,
    usage: UsageTotals,
}

fn stack(url: &str, tokens: u64) -> Stack {
    let usage = UsageTotals::new();
    let limits = [
        Limit::requests(1_000).per_minute(),
        Limit::tokens(tokens).per_minute(),
    ];
    let budget = Budget::in_memory(limits).expect("limits");
    let policy = RateLimitPolicy::default().backoff(|_: u32| Duration::from_millis(1));
    let service = ServiceBuilder::new()
        .layer(AsyncOpenAiLayer)
        .layer(UsageRecorderLayer::new(usage.clone()))
        .layer(RetryOnRateLimitLayer::new(policy).classify(Reqwest))
        .layer(TokenBudgetLayer::new(budget).classify(Reqwest))
        .service(HttpService::new(reqwest::Client::new()));
    let config = OpenAIConfig::new()
        .with_api_base(format!("{url}/v1"))
        .with_api_key("sk-none");
    Stack {
        client: Client::with_config(config).with_http_service(service),
        usage,
    }
}

async fn server(faults: impl IntoIterator<Item = Fault>) -> Server {
    let provider = SimProvider::builder()
        .latency(Duration::ZERO)
        .reply_tokens(12)
        .script(faults)
        .build();
    Server::bind("127.0.0.1:0", provider)
        .await
        .expect("a socket")
}

fn limited() -> Fault {
    Fault::RateLimited {
        unit: Unit::Requests,
        retry_after: Some(Duration::from_millis(1)),
    }
}

fn chat(cap: u32) -> CreateChatCompletionRequest {
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content("Hello")
        .build()
        .expect("a message");
    CreateChatCompletionRequestArgs::default()
        .model("gpt-5")
        .max_completion_tokens(cap)
        .messages([message.into()])
        .build()
        .expect("a request")
}

// X05
#[tokio::test]
async fn answers_and_streams_and_embeddings_come_whole_and_are_recorded() {
    let server = server([]).await;
    let Stack { client, usage } = stack(&server.url(), 1_000_000);
    let answer = client.chat().create(chat(16)).await.expect("an answer");
    assert_eq!(
        answer
            .usage
            .expect("as the provider says")
            .completion_tokens,
        12
    );

    let mut stream = client
        .chat()
        .create_stream(chat(16))
        .await
        .expect("a stream");
    let (mut text, mut events) = (String::new(), 0);
    while let Some(event) = stream.next().await {
        let event = event.expect("whole");
        assert!(event.usage.is_none(), "our usage chunk is taken out");
        events += 1;
        text.extend(
            event
                .choices
                .iter()
                .filter_map(|choice| choice.delta.content.as_deref()),
        );
    }
    assert!(events > 3 && !text.is_empty(), "{events} events: {text}");

    let input = CreateEmbeddingRequestArgs::default()
        .model("text-embedding-3-small")
        .input("Hello")
        .build()
        .expect("a request");
    let answer = client.embeddings().create(input).await.expect("an answer");
    assert_eq!(answer.data.len(), 1);

    let totals = usage.snapshot().all;
    assert_eq!(
        (totals.calls, totals.output, totals.partial),
        (3, 24, 0),
        "{totals:?}"
    );
    assert_eq!(server.provider().totals().billed_output, 24);
}

#[tokio::test]
async fn the_layers_alone_try_again() {
    let server = server((0..20).map(|_| limited())).await;
    let Stack { client, usage } = stack(&server.url(), 1_000_000);
    let error = client
        .chat()
        .create(chat(16))
        .await
        .expect_err("always limited");
    let OpenAIError::ApiError(error) = error else {
        panic!("the provider's own answer, not {error:?}")
    };
    assert_eq!(error.status_code, 429);
    assert_eq!(error.api_error.code.as_deref(), Some("rate_limit_exceeded"));
    assert_eq!(
        server.provider().totals().requests,
        3,
        "and not three times three"
    );
    assert_eq!(usage.snapshot().all.calls, 1);
}

#[tokio::test]
async fn a_limited_call_is_tried_again_and_a_scope_tells() {
    let server = server([limited()]).await;
    let Stack { client, .. } = stack(&server.url(), 1_000_000);
    let (answer, seen) = scoped(CallOptions::new(), client.chat().create(chat(16))).await;
    assert!(answer.is_ok());
    assert_eq!(seen.attempts().len(), 2);
    assert!(seen.refused().is_none());

    let (_, seen) = scoped(CallOptions::new(), async {}).await;
    assert!(seen.attempts().is_empty(), "nothing was called");
}

#[tokio::test]
async fn options_of_a_scope_reach_the_layers() {
    let server = server((0..20).map(|_| limited())).await;
    let Stack { client, .. } = stack(&server.url(), 1_000_000);
    let options = CallOptions::new().max_attempts(2);
    let (answer, seen) = scoped(options, client.chat().create_stream(chat(16))).await;
    assert!(answer.is_err());
    assert!(seen.gave_up().is_some());
    assert_eq!(seen.attempts().len(), 2, "and not three");
}

#[tokio::test]
async fn a_refusal_of_the_budget_is_an_api_error_and_the_scope_has_it() {
    let server = server([]).await;
    let Stack { client, .. } = stack(&server.url(), 100);
    let (answer, seen) = scoped(CallOptions::new(), client.chat().create(chat(5_000))).await;
    let Err(OpenAIError::ApiError(error)) = answer else {
        panic!("refused, not {answer:?}")
    };
    assert_eq!(error.status_code, 429);
    assert_eq!(error.api_error.code.as_deref(), Some("request_never_fits"));
    assert!(seen.refused().expect("ours").retry_after.is_none());
    assert_eq!(server.provider().totals().requests, 0, "nothing was sent");
}

#[tokio::test]
async fn a_transport_error_is_reqwests_own() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let Stack { client, .. } = stack(&url, 1_000_000);
    let error = client
        .chat()
        .create(chat(16))
        .await
        .expect_err("nobody listens");
    let OpenAIError::Reqwest(error) = error else {
        panic!("reqwest's, not {error:?}")
    };
    assert!(error.is_connect());
}

#[tokio::test]
async fn a_stream_that_breaks_is_an_error_and_not_an_end() {
    let server = server([Fault::CutBody { bytes: 600 }]).await;
    let Stack { client, usage } = stack(&server.url(), 1_000_000);
    let mut stream = client
        .chat()
        .create_stream(chat(16))
        .await
        .expect("a stream");
    let mut failed = false;
    while let Some(event) = stream.next().await {
        failed |= event.is_err();
    }
    assert!(failed);
    assert_eq!(usage.snapshot().all.errors, 1);
}
