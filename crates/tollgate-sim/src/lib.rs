//! A simulated LLM provider for tests: rate limits, real headers and error bodies, streams, scripted faults.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
