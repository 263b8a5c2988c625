//! A tower layer that retries refused and failed LLM calls as long as waiting can help.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]
