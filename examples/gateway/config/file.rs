//! The configuration file as it is written down: names and types, no meaning yet.
use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) admin_listen: Option<Spanned<String>>,
    pub(super) max_body: Option<Spanned<u64>>,
    pub(super) max_buffered: Option<Spanned<u64>>,
    pub(super) max_requests: Option<Spanned<u32>>,
    pub(super) drain_delay: Option<Spanned<String>>,
    pub(super) drain: Option<Spanned<String>>,
    pub(super) pass_unmetered: Option<bool>,
    pub(super) digest_key_env: Option<Spanned<String>>,
    pub(super) redis: Option<Spanned<String>>,
    pub(super) redis_env: Option<Spanned<String>>,
    pub(super) redis_name: Option<Spanned<String>>,
    pub(super) redis_timeout: Option<Spanned<String>>,
    #[serde(default, rename = "target")]
    pub(super) targets: Vec<Spanned<Target>>,
    #[serde(default, rename = "chain")]
    pub(super) chains: Vec<Spanned<Chain>>,
    #[serde(default, rename = "limit")]
    pub(super) limits: Vec<Spanned<Limit>>,
    #[serde(default, rename = "key")]
    pub(super) keys: Vec<Spanned<Key>>,
    pub(super) prices: Option<Spanned<Prices>>,
    #[serde(default)]
    pub(super) sinks: Sinks,
    #[serde(default)]
    pub(super) retry: Retry,
    #[serde(default)]
    pub(super) timeouts: Timeouts,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Target {
    pub(super) name: Spanned<String>,
    pub(super) origin: Spanned<String>,
    pub(super) prefix: Option<Spanned<String>>,
    pub(super) path: Option<Spanned<String>>,
    pub(super) credential_env: Option<Spanned<String>>,
    pub(super) credential_header: Option<Spanned<String>>,
    pub(super) dialect: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    pub(super) http2: bool,
    pub(super) learn: Option<bool>,
    #[serde(default)]
    pub(super) limits: Vec<Spanned<Limit>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chain {
    pub(super) candidates: Vec<Spanned<Candidate>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidate {
    pub(super) target: Option<Spanned<String>>,
    pub(super) model: Option<String>,
    pub(super) context_window: Option<u64>,
    #[serde(default)]
    pub(super) rename: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) without: Vec<String>,
    #[serde(default)]
    pub(super) cannot: Vec<Spanned<String>>,
    #[serde(default)]
    pub(super) pool: Vec<Spanned<Candidate>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    pub(super) requests: Option<u64>,
    pub(super) tokens: Option<u64>,
    pub(super) input_tokens: Option<u64>,
    pub(super) output_tokens: Option<u64>,
    pub(super) images: Option<u64>,
    pub(super) dollars: Option<Spanned<String>>,
    pub(super) per: Option<Spanned<String>>,
    pub(super) calendar: Option<Spanned<String>>,
    pub(super) zone: Option<String>,
    pub(super) start_hour: Option<u8>,
    pub(super) first_day: Option<u8>,
    pub(super) scope: Option<Spanned<String>>,
    pub(super) models: Option<Vec<String>>,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) refuse: bool,
    pub(super) enforcement: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) unpriced_pass: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    pub(super) name: Spanned<String>,
    pub(super) sha256: Spanned<String>,
    pub(super) tenant: Option<String>,
    pub(super) tag: Option<String>,
    pub(super) priority: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Prices {
    #[serde(default)]
    pub(super) shipped: bool,
    pub(super) table: Option<Spanned<PathBuf>>,
    #[serde(default)]
    pub(super) models: BTreeMap<String, Spanned<Price>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Price {
    pub(super) input: String,
    pub(super) output: String,
    pub(super) cached_input: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sinks {
    pub(super) jsonl: Option<Spanned<PathBuf>>,
    pub(super) ledger: Option<Spanned<PathBuf>>,
    pub(super) metrics: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Retry {
    pub(super) attempts: Option<Spanned<u32>>,
    pub(super) wait_cap: Option<Spanned<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) connect: Option<Spanned<String>>,
    pub(super) first_byte: Option<Spanned<String>>,
    pub(super) first_token: Option<Spanned<String>>,
    pub(super) idle: Option<Spanned<String>>,
    pub(super) total: Option<Spanned<String>>,
    pub(super) request_body: Option<Spanned<String>>,
    pub(super) request_total: Option<Spanned<String>>,
    pub(super) queue: Option<Spanned<String>>,
}
