//! What a limit counts: images, money, weighted tokens; and what our own limits count of a request.
#![allow(clippy::unwrap_used)]
mod support;

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::json;
use support::{at_once, chat, limits, post, stack};
use tokio::time::Instant;
use tollgate_budget::{
    Ask, Budget, BudgetBuilder, BudgetStore, ChargeProfile, Cost, Enforcement, Limit, Oversized,
    Scope, Unpriced, Used, Weights,
};
use tollgate_core::{
    extensions::{Reason, Refused},
    price::{Pico, Price, PriceTable},
};
use tollgate_sim::script::{Reply, Scripted};
use tower::ServiceExt;

const MINUTE: Duration = Duration::from_secs(60);
/// Pico in a thousandth of a dollar.
const MILLI: u64 = 1_000_000_000;

/// A dollar for a thousand tokens of input, ten for a thousand of output.
fn prices() -> PriceTable {
    let price = Price::per_million("1000", "10000").unwrap();
    PriceTable::new().with("gpt-test", price)
}

fn priced(limit: Limit) -> BudgetBuilder {
    Budget::builder().limit(limit).prices(prices())
}

fn used(budget: &Budget) -> (u64, u64) {
    let seen = budget.snapshot();
    (seen.limits[0].used, seen.limits[0].reserved)
}

async fn send(budget: &Budget, reply: Reply, request: Request<Full<Bytes>>) -> StatusCode {
    let response = stack(budget, &Scripted::new([reply])).oneshot(request);
    let response = response.await.unwrap();
    let status = response.status();
    response.into_body().collect().await.unwrap();
    status
}

// L04
#[tokio::test(start_paused = true)]
async fn images_a_minute_are_counted_by_what_a_request_asks_for() {
    let budget = limits([Limit::images(10).per_minute()]);
    let upstream = Scripted::new([Reply::ok_json(json!({"data": []}))]);
    let service = stack(&budget, &upstream);
    let image = |n: u64| {
        let document = json!({"model": "gpt-image-1", "prompt": "a bell", "n": n});
        post("/v1/images/generations", document)
    };
    let begun = Instant::now();
    for n in [4, 6] {
        service.clone().oneshot(image(n)).await.unwrap();
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(used(&budget).0, 10);
    service.clone().oneshot(chat(40, 10)).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "text is no image");
    service.clone().oneshot(image(1)).await.unwrap();
    assert!(begun.elapsed() >= MINUTE);
    let never = service.oneshot(image(11)).await.unwrap();
    assert!(Refused::of(&never).unwrap().never_fits());
}

#[tokio::test(start_paused = true)]
async fn the_most_that_a_call_can_cost_is_reserved_and_its_usage_settles_it() {
    // The provider's own charge is never given back; ours is.
    let budget = priced(Limit::dollars(10).per_hour()).build().unwrap();
    let upstream = Scripted::new([Reply::chat("gpt-test", 80, 20)]);
    let response = stack(&budget, &upstream).oneshot(chat(400, 100)).await;
    // 0.10 for the input, 1.00 for the cap.
    assert_eq!(used(&budget), (1100 * MILLI, 1100 * MILLI));
    response.unwrap().into_body().collect().await.unwrap();
    assert_eq!(used(&budget), (280 * MILLI, 0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_money_refuses_what_it_cannot_pay() {
    let budget = priced(Limit::dollars(1).per_hour().refuse())
        .oversized(Oversized::RunAlone)
        .build()
        .unwrap();
    let never = stack(&budget, &Scripted::new([Reply::chat("gpt-test", 1, 1)]));
    let never = never.oneshot(chat(4, 100)).await.unwrap();
    assert!(
        Refused::of(&never).unwrap().never_fits(),
        "nothing runs alone beyond a limit of money"
    );
    let reply = || Reply::chat("gpt-test", 400, 50);
    assert_eq!(send(&budget, reply(), chat(400, 60)).await, 200);
    assert_eq!(used(&budget).0, 900 * MILLI);
    assert_eq!(send(&budget, reply(), chat(400, 10)).await, 429);
    // A failure costs nothing.
    assert_eq!(send(&budget, Reply::status(500), chat(40, 5)).await, 500);
    assert_eq!(used(&budget).0, 900 * MILLI);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_price_is_refused_by_name_unless_it_may_pass() {
    let unpriced = || {
        let document = json!({"model": "unheard-of", "max_tokens": 5, "messages": []});
        post("/v1/chat/completions", document)
    };
    let limit = || Limit::dollars(1).per_hour().named("pocket money");
    let strict = priced(limit()).build().unwrap();
    let upstream = Scripted::new([Reply::chat("unheard-of", 1, 1)]);
    let response = stack(&strict, &upstream).oneshot(unpriced()).await.unwrap();
    let refused = Refused::of(&response).unwrap();
    assert_eq!(refused.reason, Reason::Unpriced);
    assert_eq!(refused.limit.as_deref(), Some("pocket money"));
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert_eq!(upstream.count(), 0);
    // What costs nothing needs no price.
    let list = Request::get("http://provider.test/v1/models");
    let list = list.body(Full::default()).unwrap();
    assert_eq!(send(&strict, Reply::status(200), list).await, 200);

    let lax = priced(limit().unpriced(Unpriced::Pass)).build().unwrap();
    let reply = Reply::chat("unheard-of", 1, 1);
    assert_eq!(send(&lax, reply, unpriced()).await, 200);
    assert_eq!(used(&lax), (0, 0));
    assert_eq!(lax.snapshot().unpriced, 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_money_must_know_the_length_of_what_it_pays_for() {
    let budget = priced(Limit::dollars(1).per_hour()).build().unwrap();
    let upload = Request::post("http://provider.test/v1/chat/completions")
        .header("content-type", "multipart/form-data; boundary=x")
        .body(Full::<Bytes>::from("--x--"))
        .unwrap();
    let upstream = Scripted::new([Reply::chat("gpt-test", 1, 1)]);
    let response = stack(&budget, &upstream).oneshot(upload).await.unwrap();
    assert_eq!(response.status(), StatusCode::LENGTH_REQUIRED);
    assert_eq!(upstream.count(), 0);
}

// T40
#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_charges_lose_no_pico_dollar() {
    let limit = Limit::dollars(4_000_000).per_day();
    let budget = priced(limit.enforcement(Enforcement::Fixed))
        .build()
        .unwrap();
    let mut sum = 0;
    for n in 0..100_000u64 {
        // A third of a pico-dollar would be the first thing that a float loses.
        let pico = 1_000_000 + n % 7;
        let ask = Ask::new(Cost::request().money(Pico::new(9_000_000_000)));
        let charge = budget.acquire(ask).await.unwrap().send();
        charge.settle(Cost::request().money(Pico::new(pico.into())));
        sum += pico;
    }
    assert_eq!(used(&budget), (sum, 0));
}

// L03
#[tokio::test(start_paused = true)]
async fn a_family_that_counts_a_unit_for_so_many_tokens() {
    for tokens in [25u32, 100, 200] {
        let budget = limits([Limit::tokens(10)
            .per_minute()
            .weights(Weights::one_unit_per(tokens))]);
        let ask = |n: u64| Ask::new(Cost::request().tokens(n, 0));
        // Ten units in tokens, to the last one; rounding each of them up would count sixteen.
        let begun = Instant::now();
        let whole = u64::from(tokens) * 10;
        for part in [whole - 16, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2] {
            drop(budget.acquire(ask(part)).await.unwrap().send());
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(budget.acquire(ask(2)).await.unwrap().send());
        let seen = budget.snapshot();
        assert_eq!((seen.limits[0].used, seen.limits[0].limit), (10, 10));
        drop(budget.acquire(ask(1)).await.unwrap().send());
        assert!(begun.elapsed() >= MINUTE, "{tokens} tokens a unit");
    }
}

// L03
#[tokio::test(start_paused = true)]
async fn headers_speak_of_units_and_not_of_their_parts() {
    let budget = limits([Limit::tokens(1000)
        .per_minute()
        .enforcement(Enforcement::Bucket { burst: None })
        .weights(Weights::one_unit_per(200))]);
    let reply = Reply::chat("gpt-test", 1, 1)
        .header("x-ratelimit-limit-tokens", "1000")
        .header("x-ratelimit-remaining-tokens", "400")
        .header("x-ratelimit-reset-tokens", "36s");
    send(&budget, reply, chat(4, 199)).await;
    let seen = budget.snapshot();
    assert_eq!((seen.limits[0].limit, seen.limits[0].used), (1000, 600));
}

// T25
#[tokio::test(start_paused = true)]
async fn input_and_output_are_limited_each_for_itself() {
    let budget = limits([
        Limit::input_tokens(1000).per_minute().refuse(),
        Limit::output_tokens(100).per_minute().refuse(),
    ]);
    let reply = || Reply::chat("gpt-test", 1, 1);
    let upstream = Scripted::new([reply()]);
    let service = stack(&budget, &upstream);
    let limit = |chars, cap| {
        let service = service.clone();
        async move {
            let response = service.oneshot(chat(chars, cap)).await.unwrap();
            Refused::of(&response).and_then(|refused| refused.limit.clone())
        }
    };
    assert_eq!(limit(400, 90).await, None);
    let output = limit(400, 20).await.unwrap();
    assert_eq!(&*output, "output tokens per minute");
    assert_eq!(limit(400, 10).await, None);
    let input = limit(4000, 0).await.unwrap();
    assert_eq!(&*input, "input tokens per minute");
}

// T25
#[tokio::test(start_paused = true)]
async fn input_from_a_cache_is_given_back_where_it_does_not_count() {
    let cached = || {
        Reply::ok_json(json!({
            "id": "c", "object": "chat.completion", "model": "gpt-test",
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": "Hi"}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
                "prompt_tokens_details": {"cached_tokens": 80}},
        }))
    };
    let counting = limits([Limit::input_tokens(1000).per_minute()]);
    send(&counting, cached(), chat(400, 10)).await;
    assert_eq!(used(&counting), (100, 0));
    let free = limits([Limit::input_tokens(1000)
        .per_minute()
        .without_cached_input()]);
    send(&free, cached(), chat(400, 10)).await;
    assert_eq!(used(&free), (20, 0));
    // Where the provider settles, its rule has left them out already.
    let settled = Budget::builder()
        .limit(
            Limit::input_tokens(1000)
                .per_minute()
                .without_cached_input(),
        )
        .charging(ChargeProfile::sum().settles(true))
        .build()
        .unwrap();
    send(&settled, cached(), chat(400, 10)).await;
    assert_eq!(used(&settled), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_our_own_settles_though_the_provider_gives_nothing_back() {
    let budget = limits([
        Limit::tokens(1000).per_minute().scope(Scope::Principal),
        Limit::tokens(5000).per_minute().named("theirs"),
    ]);
    send(&budget, Reply::chat("gpt-test", 80, 20), chat(400, 200)).await;
    let seen = budget.snapshot();
    assert_eq!(seen.limits[0].used, 100);
    assert_eq!(seen.limit("theirs").unwrap().used, 300);
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_cap_reserves_what_is_assumed_and_no_more_than_there_is() {
    let budget = |amount| {
        let limit = Limit::tokens(amount).per_minute().scope(Scope::Principal);
        Budget::builder()
            .limit(limit)
            .assumed_output(2000)
            .build()
            .unwrap()
    };
    let upstream = Scripted::new([Reply::chat("gpt-test", 1, 1)]);
    let large = budget(10_000);
    let _answer = stack(&large, &upstream)
        .oneshot(chat(400, None))
        .await
        .unwrap();
    assert_eq!(used(&large).1, 2100);
    let small = budget(500);
    let _answer = stack(&small, &upstream)
        .oneshot(chat(400, None))
        .await
        .unwrap();
    assert_eq!(used(&small).1, 500);
    let stated = stack(&small, &upstream)
        .oneshot(chat(400, 401))
        .await
        .unwrap();
    assert!(
        Refused::of(&stated).unwrap().never_fits(),
        "it says so itself"
    );
    assert_eq!(Used::tokens(1, 2).cached_input(1).cached_input, 1);
}

// L02
#[tokio::test(start_paused = true)]
async fn whichever_limit_is_used_up_first_holds_the_request_and_is_named() {
    for (requests, tokens, name) in [(2, 1000, "requests"), (10, 220, "tokens")] {
        let budget = Budget::builder()
            .limit(Limit::requests(requests).per_minute())
            .limit(Limit::tokens(tokens).per_minute())
            .max_wait(Duration::from_secs(30))
            .build()
            .unwrap();
        let upstream = Scripted::new([Reply::chat("gpt-test", 1, 1)]);
        let service = stack(&budget, &upstream);
        let statuses = at_once(service.clone(), 2, || chat(400, 10)).await;
        assert_eq!(statuses, [200, 200]);
        let response = service.oneshot(chat(400, 10)).await.unwrap();
        let refused = Refused::of(&response).unwrap();
        assert_eq!(
            refused.limit.as_deref(),
            Some(&*format!("{name} per minute"))
        );
        assert_eq!(refused.reason, Reason::WaitTooLong);
        assert!(
            refused.retry_after.unwrap() > Duration::from_secs(59),
            "{name}"
        );
    }
}

#[test]
fn wrong_units_are_refused_with_a_sentence() {
    let wrong = |limit| Budget::in_memory([limit]).unwrap_err().to_string();
    let even = |limit: Limit| limit.weights(Weights::even().output(1, 0));
    assert_eq!(
        wrong(even(Limit::tokens(5).per_minute())),
        "tokens per minute: a weight must be so many units for one token or more"
    );
    assert_eq!(
        wrong(Limit::requests(5).per_minute().without_cached_input()),
        "requests per minute: weights belong to a limit of tokens"
    );
    assert_eq!(
        wrong(
            Limit::output_tokens(5)
                .per_minute()
                .weights(Weights::even().output(0, 1))
        ),
        "output tokens per minute: with these weights the limit counts nothing"
    );
    assert_eq!(
        wrong(
            Limit::tokens(5)
                .per_minute()
                .weights(Weights::even().input(1, 99_991).output(1, 99_989))
        ),
        "tokens per minute: weights must be multiples of one millionth of a unit or more"
    );
    assert_eq!(
        wrong(Limit::dollars(5_000_000).per_hour()),
        "dollars per hour: a limit of money must be below 4,611,686 dollars"
    );
    assert_eq!(
        wrong(Limit::dollars(5).per_hour()),
        "dollars per hour: a limit of money needs prices, or must let requests without a price pass"
    );
    assert_eq!(
        wrong(Limit::tokens(5).per_minute().unpriced(Unpriced::Pass)),
        "tokens per minute: only a limit of money can let requests without a price pass"
    );
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_counted_in_the_units_of_its_limit_whatever_they_weigh() {
    let bucket = Enforcement::Bucket { burst: Some(10) };
    let budget = limits([Limit::tokens(1000)
        .per_minute()
        .enforcement(bucket)
        .weights(Weights::one_unit_per(200))]);
    // Five units.
    let ask = || budget.acquire(Ask::new(Cost::request().tokens(1000, 0)));
    let begun = Instant::now();
    for _ in 0..2 {
        drop(ask().await.unwrap().send());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO, "both are in the burst");
    assert_eq!(budget.snapshot().limits[0].enforcement, bucket);
    drop(ask().await.unwrap().send());
    assert!(
        begun.elapsed() > Duration::from_millis(250),
        "{:?}",
        begun.elapsed()
    );
}
