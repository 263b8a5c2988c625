//! The rows of the table: what the provider is, and what the client is told of it.
use crate::workload::Shape;

/// One row.
pub(crate) struct Case {
    /// For `--rows`.
    pub(crate) name: &'static str,
    /// For `--list`.
    pub(crate) about: &'static str,
    /// What is asked.
    pub(crate) shape: Shape,
    /// How often.
    pub(crate) rows: usize,
    /// The provider's limits; `None` is none.
    pub(crate) limits: Option<Limits>,
    /// More settings of the provider.
    pub(crate) provider: &'static [&'static str],
    /// What the client is told the limits are, as a multiple of what they are; `None`: nothing.
    pub(crate) told: Option<f64>,
    /// More arguments of the client.
    pub(crate) client: &'static [&'static str],
    /// Somebody else on the same key.
    pub(crate) competitor: Option<Competitor>,
}

/// Somebody else on the key, who follows no limit: so much of it evenly for a while, nothing for as long.
#[derive(Clone, Copy)]
pub(crate) struct Competitor {
    /// Of the token limit, while it sends.
    pub(crate) share: f64,
    /// For how many seconds it sends, and then does not.
    pub(crate) phase: f64,
}

/// Limits in each window.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) requests: u64,
    pub(crate) tokens: u64,
    pub(crate) window: f64,
}

const SIX_SECONDS: Limits = Limits {
    requests: 455,
    tokens: 220_000,
    window: 6.0,
};

const HALF_THE_TIME: Competitor = Competitor {
    share: 0.8,
    phase: 3.0,
};

const MAIN: Case = Case {
    name: "rolling",
    about: "counts exactly over the last six seconds, at every instant; limits told",
    shape: Shape::Chat,
    rows: 2_000,
    limits: Some(SIX_SECONDS),
    provider: &["--enforcement", "rolling"],
    told: Some(1.0),
    client: &[],
    competitor: None,
};

/// Every row.
pub(crate) fn all() -> Vec<Case> {
    vec![
        MAIN,
        Case {
            name: "bucket",
            about: "a bucket as large as the limit that leaks evenly; limits told",
            provider: &["--enforcement", "bucket"],
            ..MAIN
        },
        Case {
            name: "fixed",
            about: "a counter that starts anew every six seconds; limits told",
            provider: &["--enforcement", "fixed"],
            ..MAIN
        },
        Case {
            name: "unknown",
            about: "rolling; limits not told, learned from headers",
            told: None,
            ..MAIN
        },
        Case {
            name: "unknown-bucket",
            about: "bucket; limits not told, learned from headers",
            provider: &["--enforcement", "bucket"],
            told: None,
            ..MAIN
        },
        Case {
            name: "twice",
            about: "rolling; limits told twice too high",
            told: Some(2.0),
            ..MAIN
        },
        Case {
            name: "half",
            about: "rolling; limits told half of what they are",
            told: Some(0.5),
            ..MAIN
        },
        Case {
            name: "settle",
            about: "rolling, and the real usage takes the place of the charge when the answer ends; limits told",
            provider: &["--enforcement", "rolling", "--charging", "settle"],
            ..MAIN
        },
        Case {
            name: "burst",
            about: "a bucket that holds a sixtieth of the limit; limits told, the bucket's size not",
            provider: &["--enforcement", "bucket", "--burst", "0.016667"],
            ..MAIN
        },
        Case {
            name: "minute",
            about: "true minutes: 1,300 rows, 500 requests and 240,000 tokens a minute, rolling; limits told",
            rows: 1_300,
            limits: Some(Limits {
                requests: 500,
                tokens: 240_000,
                window: 60.0,
            }),
            ..MAIN
        },
        Case {
            name: "embeddings",
            about: "5,000 short inputs, 1,140 requests in six seconds, so that requests bind; rolling; limits told",
            shape: Shape::Embeddings,
            rows: 5_000,
            limits: Some(Limits {
                requests: 1_140,
                ..SIX_SECONDS
            }),
            ..MAIN
        },
        Case {
            name: "slow",
            about: "rolling; answers take three windows (median 18 s); limits told",
            provider: &["--enforcement", "rolling", "--latency-ms", "18000"],
            client: &["--concurrency", "2000"],
            ..MAIN
        },
        Case {
            name: "steady",
            about: "a bucket for 24 windows: 10,000 rows; limits told",
            rows: 10_000,
            provider: &["--enforcement", "bucket"],
            ..MAIN
        },
        Case {
            name: "competitor",
            about: "a bucket; a stranger takes 80 % of the limit for three seconds of six; limits told",
            rows: 4_000,
            provider: &["--enforcement", "bucket"],
            competitor: Some(HALF_THE_TIME),
            ..MAIN
        },
        Case {
            name: "competitor-rolling",
            about: "rolling; a stranger takes 80 % of the limit for three seconds of six; limits told",
            rows: 4_000,
            competitor: Some(HALF_THE_TIME),
            ..MAIN
        },
        Case {
            name: "slow-minute",
            about: "true minutes, 1,300 rows; answers take three windows (median 180 s); limits told",
            rows: 1_300,
            limits: Some(Limits {
                requests: 500,
                tokens: 240_000,
                window: 60.0,
            }),
            provider: &["--enforcement", "rolling", "--latency-ms", "180000"],
            client: &["--concurrency", "2000", "--timeout-secs", "3000"],
            ..MAIN
        },
        Case {
            name: "embeddings-quick",
            about: "as embeddings, and answers take half as long (median 120 ms)",
            shape: Shape::Embeddings,
            rows: 5_000,
            limits: Some(Limits {
                requests: 1_140,
                ..SIX_SECONDS
            }),
            provider: &["--enforcement", "rolling", "--latency-ms", "120"],
            ..MAIN
        },
        Case {
            name: "faults",
            about: "1,000 rows without limits, a fault for a fifth of all requests",
            rows: 1_000,
            limits: None,
            provider: &["--faults", "20"],
            told: None,
            ..MAIN
        },
        Case {
            name: "faults-limits",
            about: "rolling with a fault for a fifth of all requests; limits told",
            provider: &["--enforcement", "rolling", "--faults", "20"],
            ..MAIN
        },
    ]
}

/// The row of this name.
pub(crate) fn find(name: &str) -> Option<Case> {
    all().into_iter().find(|case| case.name == name)
}
