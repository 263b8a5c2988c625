//! A tower layer that admits LLM requests only when the provider will: reserve, queue fairly, settle with real usage.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
