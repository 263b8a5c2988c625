//! Many random cancellations, straight at the books.
#![allow(clippy::unwrap_used)]
#[path = "support/cancellations.rs"]
mod cancellations;

/// How many; a million by `TOLLGATE_CANCELLATIONS=1000000`, as the bench does.
fn many() -> u64 {
    std::env::var("TOLLGATE_CANCELLATIONS").map_or(30_000, |n| n.parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn whoever_is_cancelled_at_whatever_point_nothing_is_lost_and_nothing_leaks() {
    for seed in 1..=3 {
        let done = cancellations::run(seed, many() / 3).await;
        let least = done
            .cancelled_waiting
            .min(done.cancelled_held)
            .min(done.cancelled_sent);
        assert!(least > many() / 100, "every point was met: {done:?}");
    }
}
