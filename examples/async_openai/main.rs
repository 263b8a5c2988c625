//! async-openai's client with the layers inside: an answer, a stream, and a refusal of the budget.
//!
//! ```text
//! cargo run --example async_openai
//! ```
//!
//! The provider is the simulated one, on a socket of this machine: needs no key and no network.
#![allow(clippy::print_stdout)]
use std::{error::Error, time::Duration};

use async_openai::{
    Client,
    config::OpenAIConfig,
    types::chat::{
        ChatCompletionRequestUserMessageArgs, CreateChatCompletionRequest,
        CreateChatCompletionRequestArgs,
    },
};
use futures_util::StreamExt;
use tollgate::{
    prelude::*,
    reqwest::{Reqwest, ResponseExt, v0_13::HttpService},
};
use tollgate_async_openai::{AsyncOpenAiLayer, scoped};
use tollgate_sim::{Fault, SimProvider, Unit, server::Server};
use tower::ServiceBuilder;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let limited = Fault::RateLimited {
        unit: Unit::Requests,
        retry_after: Some(Duration::from_millis(300)),
    };
    let provider = SimProvider::builder()
        .pace(Duration::from_millis(50))
        .reply_tokens(8)
        .script([limited])
        .build();
    let server = Server::bind("127.0.0.1:0", provider).await?;

    let usage = UsageTotals::new();
    let service = ServiceBuilder::new()
        .layer(AsyncOpenAiLayer)
        .record_usage(usage.clone())
        .layer(RetryOnRateLimitLayer::new(RateLimitPolicy::default()).classify(Reqwest))
        .token_budget(Budget::in_memory([Limit::tokens(1_000).per_minute()])?)
        .service(HttpService::new(reqwest::Client::new()));
    let config = OpenAIConfig::new()
        .with_api_base(format!("{}/v1", server.url()))
        .with_api_key("sk-none");
    let client = Client::with_config(config).with_http_service(service);

    // Without `scoped` it is a call as ever; with it the layers can be asked.
    let options = CallOptions::new().principal("alice");
    let (answer, seen) = scoped(options, client.chat().create(request(16)?)).await;
    println!("an answer after {} attempts", seen.attempts().len());
    println!("  {:?}", answer?.choices[0].message.content);

    println!("a stream");
    let mut stream = client.chat().create_stream(request(16)?).await?;
    while let Some(event) = stream.next().await {
        let event = event?;
        let text = event
            .choices
            .first()
            .and_then(|choice| choice.delta.content.as_deref());
        println!("  {text:?}");
    }

    let (answer, seen) = scoped(CallOptions::new(), client.chat().create(request(5_000)?)).await;
    println!(
        "more than the limit: {:?}",
        answer.expect_err("refused").to_string()
    );
    println!("  {:?}", seen.refused().map(|refused| refused.reason));
    println!("{} tokens in all", usage.snapshot().all.total);
    Ok(())
}

fn request(cap: u32) -> Result<CreateChatCompletionRequest, Box<dyn Error>> {
    let message = ChatCompletionRequestUserMessageArgs::default()
        .content("Say hello")
        .build()?;
    let request = CreateChatCompletionRequestArgs::default()
        .model("gpt-5")
        .max_completion_tokens(cap)
        .messages([message.into()])
        .build()?;
    Ok(request)
}
