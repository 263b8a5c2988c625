//! A tower layer that sends a failed LLM call to the next model of a chain.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
