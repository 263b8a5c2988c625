use std::time::Duration;

use proptest::prelude::*;

use super::{Book, Enforcement};

const SECOND: u64 = 1_000_000_000;

/// The most that was entered in any window of this length, ends included as the rolling book counts them.
fn peak(log: &[(u64, u64)], window: u64) -> u64 {
    (0..log.len())
        .map(|last| {
            let end = log[last].0;
            let inside = |entry: &&(u64, u64)| entry.0 <= end && entry.0 + window > end;
            log.iter().filter(inside).map(|entry| entry.1).sum()
        })
        .max()
        .unwrap_or(0)
}

fn enforcements() -> impl Strategy<Value = Enforcement> {
    prop_oneof![
        Just(Enforcement::Rolling),
        Just(Enforcement::Bucket { burst: None }),
        Just(Enforcement::Bucket { burst: Some(7) }),
        Just(Enforcement::Fixed),
        Just(Enforcement::Quantised {
            q: Duration::from_secs(1)
        }),
    ]
}

proptest! {
    #[test]
    fn never_admits_more_than_the_limit_in_a_window_of_its_kind(
        enforcement in enforcements(),
        limit in 1_u64..60,
        asks in prop::collection::vec((0_u64..2 * SECOND, 0_u64..20), 1..200),
    ) {
        let window = 6 * SECOND;
        let mut book = Book::new(limit, window, enforcement);
        let mut now = 0;
        let mut log = Vec::new();
        for (gap, cost) in asks {
            now += gap;
            if book.wait(now, cost) == Some(0) {
                book.charge(now, cost);
                log.push((now, cost));
            }
        }
        match enforcement {
            Enforcement::Rolling => prop_assert!(peak(&log, window) <= limit),
            Enforcement::Bucket { burst } => {
                // In every stretch of time: the burst and what leaked meanwhile.
                for (i, first) in log.iter().enumerate() {
                    let mut sum = 0;
                    for last in &log[i..] {
                        sum += last.1;
                        let leaked = u128::from(last.0 - first.0) * u128::from(limit);
                        let most = u128::from(burst.unwrap_or(limit)) * u128::from(window) + leaked;
                        prop_assert!(u128::from(sum) * u128::from(window) <= most);
                    }
                }
            }
            Enforcement::Fixed | Enforcement::Quantised { .. } => {
                let (window, limit) = match enforcement {
                    Enforcement::Fixed => (window, limit),
                    _ => (SECOND, (limit / 6).max(1)),
                };
                let mut sums = std::collections::HashMap::new();
                for (at, cost) in log {
                    *sums.entry(at / window).or_insert(0) += cost;
                }
                prop_assert!(sums.values().all(|sum| *sum <= limit));
            }
        }
    }

    #[test]
    fn the_stated_wait_is_enough_and_nothing_less_is(
        enforcement in enforcements(),
        limit in 1_u64..60,
        asks in prop::collection::vec((0_u64..SECOND, 0_u64..20), 1..60),
        cost in 1_u64..20,
    ) {
        let mut book = Book::new(limit, 6 * SECOND, enforcement);
        let mut now = 0;
        for (gap, cost) in asks {
            now += gap;
            book.charge(now, cost);
        }
        match book.wait(now, cost) {
            None => prop_assert!(cost > book.capacity()),
            Some(0) => prop_assert!(book.used(now) + cost <= book.capacity() + 1),
            Some(wait) => {
                prop_assert!(book.clone().wait(now + wait - 1, cost) != Some(0));
                prop_assert_eq!(book.clone().wait(now + wait, cost), Some(0));
            }
        }
    }

    #[test]
    fn reset_is_when_nothing_is_in_use(
        enforcement in enforcements(),
        asks in prop::collection::vec((0_u64..SECOND, 0_u64..20), 1..60),
    ) {
        let mut book = Book::new(30, 6 * SECOND, enforcement);
        let mut now = 0;
        for (gap, cost) in asks {
            now += gap;
            book.charge(now, cost);
        }
        let reset = book.reset(now);
        prop_assert_eq!(book.clone().used(now + reset), 0);
        if reset > 0 {
            prop_assert!(book.clone().used(now + reset - 1) > 0);
        }
    }

    #[test]
    fn settling_to_the_same_cost_changes_nothing(
        enforcement in enforcements(),
        cost in 0_u64..20,
        later in 0_u64..5 * SECOND,
    ) {
        let mut book = Book::new(30, 6 * SECOND, enforcement);
        let held = book.charge(0, cost);
        let mut same = book.clone();
        book.settle(later, held, cost);
        prop_assert_eq!(book.used(later), same.used(later));
    }
}

#[test]
fn a_rolling_entry_leaves_exactly_one_window_later() {
    let mut book = Book::new(1, SECOND, Enforcement::Rolling);
    book.charge(5, 1);
    assert_eq!(book.wait(SECOND, 1), Some(5));
    assert_eq!(book.wait(SECOND + 4, 1), Some(1));
    assert_eq!(book.wait(SECOND + 5, 1), Some(0));
}

#[test]
fn a_bucket_states_what_openai_states() {
    // Messages found in public: (limit, used, requested) → the stated wait in milliseconds.
    for (limit, used, requested, stated) in [
        (1_000_000, 923_902, 96_709, 1_236),
        (30_000, 14_567, 24_754, 18_642),
        (10_000, 8_554, 3_082, 9_816),
        (8_000, 6_577, 2_112, 5_167),
    ] {
        let mut book = Book::new(limit, 60 * SECOND, Enforcement::Bucket { burst: None });
        book.charge(0, used);
        let wait = book.wait(0, requested).unwrap() / 1_000_000;
        assert_eq!(wait, stated, "{limit} {used} {requested}");
    }
}

#[test]
fn settling_gives_back_in_place_and_never_credits_a_new_window() {
    let mut rolling = Book::new(100, SECOND, Enforcement::Rolling);
    let held = rolling.charge(0, 80);
    rolling.settle(10, held, 30);
    assert_eq!(rolling.used(10), 30);
    rolling.settle(2 * SECOND, held, 0);
    assert_eq!(rolling.used(2 * SECOND), 0);

    let mut fixed = Book::new(100, SECOND, Enforcement::Fixed);
    let held = fixed.charge(0, 80);
    fixed.charge(SECOND, 50);
    fixed.settle(SECOND, held, 10);
    assert_eq!(fixed.used(SECOND), 50);

    let mut bucket = Book::new(100, SECOND, Enforcement::Bucket { burst: None });
    let held = bucket.charge(0, 80);
    bucket.settle(SECOND / 2, held, 20);
    assert_eq!(
        bucket.used(SECOND / 2),
        0,
        "half a window leaked 50, and 60 come back"
    );
}
