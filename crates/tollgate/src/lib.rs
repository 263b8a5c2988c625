//! Rate limits, token budgets, fallback models and usage records for LLM APIs, as tower layers around any HTTP service.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
