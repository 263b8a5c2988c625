use proptest::prelude::*;

use super::*;

fn price(input: &str, output: &str) -> Price {
    Price::per_million(input, output).unwrap()
}

fn exact(dollars: &str) -> Cost {
    Cost::Exact(dollars.parse().unwrap())
}

fn least(dollars: &str) -> Cost {
    Cost::AtLeast(dollars.parse().unwrap())
}

// U14
#[test]
fn cached_reads_and_both_lifetimes_of_cache_writes_have_their_own_prices() {
    let price = price("3", "15").cached("0.30").unwrap();
    let price = price.cache_write("3.75").unwrap();
    let price = price.cache_write_1h("6").unwrap();
    // 1,000 plain, 4,000 read, 2,000 written for five minutes, 3,000 for an hour, 500 out.
    let usage = Usage {
        input: Count::Exact(10_000),
        cached_input: Count::Exact(4_000),
        cache_write: Count::Exact(5_000),
        cache_write_1h: Count::Exact(3_000),
        output: Count::Exact(500),
        ..Usage::default()
    };
    // 0.003 + 0.0012 + 0.0075 + 0.018 + 0.0075
    assert_eq!(price.cost(&usage), exact("0.0372"));
}

// U13
#[test]
fn reasoning_is_part_of_the_output_and_costs_once() {
    let usage = Usage {
        input: Count::Exact(0),
        output: Count::Exact(100),
        reasoning: Count::Exact(80),
        ..Usage::default()
    };
    let price = price("1", "10");
    assert_eq!(price.cost(&usage), exact("0.001"));
    let split = price.reasoning("3").unwrap();
    assert_eq!(split.cost(&usage), exact("0.00044"), "20 at 10, 80 at 3");
}

#[test]
fn audio_at_the_price_of_text_is_a_lower_bound() {
    let mut usage = Usage {
        input: Count::Exact(100),
        audio_input: Count::Exact(40),
        output: Count::Exact(50),
        audio_output: Count::Exact(30),
        ..Usage::default()
    };
    assert_eq!(price("1", "10").cost(&usage), least("0.0006"));
    // 60 at 1, 40 at 20; 20 at 10, 30 at 40.
    let audio = price("1", "10").audio("20", "40").unwrap();
    assert_eq!(audio.cost(&usage), exact("0.00226"));
    // Of 40 heard, 25 may have come from the cache, where nobody says what they cost.
    usage.cached_input = Count::Exact(25);
    assert_eq!(
        audio.cached("0.1").unwrap().cost(&usage),
        least("0.0017625"),
        "60 at 1, 15 at 20, 25 at 0.1; 20 at 10, 30 at 40"
    );
}

#[test]
fn a_fee_beside_the_tokens_makes_every_cost_a_lower_bound() {
    let mut price = price("1", "1");
    price.fees = true;
    let usage = Usage {
        input: Count::Exact(10),
        ..Usage::default()
    };
    assert_eq!(price.cost(&usage), least("0.00001"));
}

proptest! {
    #[test]
    fn no_usage_makes_a_cost_wrap(
        input in any::<u64>(), cached in any::<u64>(), written in any::<u64>(),
        hour in any::<u64>(), heard in any::<u64>(), output in any::<u64>(),
        thought in any::<u64>(), spoken in any::<u64>(),
    ) {
        let price = price("1000", "1000").cached("1").unwrap();
        let price = price.audio("1000", "1000").unwrap();
        let usage = Usage {
            input: Count::Exact(input),
            cached_input: Count::Exact(cached),
            cache_write: Count::Exact(written),
            cache_write_1h: Count::Exact(hour),
            audio_input: Count::Exact(heard),
            output: Count::Exact(output),
            reasoning: Count::Exact(thought),
            audio_output: Count::Exact(spoken),
            ..Usage::default()
        };
        let most = price.input.times(input) + price.output.times(output);
        prop_assert!(price.cost(&usage).get().unwrap() <= most);
    }
}
