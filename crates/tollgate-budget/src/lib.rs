//! A tower layer that admits LLM requests only when the provider will: reserve, queue fairly, settle with real usage.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod body;
mod budget;
mod builder;
mod charging;
mod engine;
mod future;
mod layer;
mod limit;
mod memory;
mod service;
mod snapshot;
mod store;

pub use acquire::Acquire;
pub use body::ResponseBody;
pub use budget::Budget;
pub use builder::{BudgetBuilder, Oversized};
pub use charging::{ChargeProfile, Charging, Cost, DropPolicy, OutputCharge};
pub use future::ResponseFuture;
pub use layer::TokenBudgetLayer;
pub use limit::{Amount, Enforcement, Exhausted, InvalidLimit, Limit, Scope, Unit};
pub use service::TokenBudget;
pub use snapshot::{BudgetSnapshot, LimitSnapshot};
pub use store::{
    Ask, BudgetStore, Charge, Observation, Refusal, Reservation, Settle, Settlement, Ticket,
};
