//! A tower layer that makes one exact record of every LLM call and attempt, also from streams.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
