//! What the budget says of itself: `tracing` events under the target `tollgate_budget`.
//!
//! The state machine only notes what happened, for it runs under the lock and a subscriber is foreign code; the shell
//! tells it once the lock is free. No event holds a prompt, a key or whose request it was.
use std::{sync::Arc, time::Duration};

use tollgate_core::extensions::Refused;

use crate::{engine::rate::Nanos, limit::Enforcement};

pub(crate) const TARGET: &str = "tollgate_budget";

/// Something that the state machine noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The provider refused, and all who share the gate wait.
    GateShut {
        model: Option<Arc<str>>,
        wait: Nanos,
    },
    /// It takes requests again.
    GateOpened { model: Option<Arc<str>> },
    /// A limit was read from headers.
    LimitLearned {
        limit: Arc<str>,
        amount: u64,
        period: Nanos,
        model: Option<Arc<str>>,
    },
    /// The provider states another limit than before.
    LimitChanged {
        limit: Arc<str>,
        from: u64,
        to: u64,
        model: Option<Arc<str>>,
    },
    /// Answers have shown how a limit is enforced.
    Enforced {
        limit: Arc<str>,
        by: Enforcement,
        model: Option<Arc<str>>,
    },
    /// In shadow mode: it would have waited.
    WouldWait {
        wait: Option<Nanos>,
        model: Option<Arc<str>>,
    },
    /// In shadow mode: it would have been refused.
    WouldRefuse {
        refused: Refused,
        model: Option<Arc<str>>,
    },
}

impl Event {
    pub(crate) fn tell(&self) {
        match self {
            Self::GateShut { model, wait } => tracing::warn!(
                target: TARGET,
                { gen_ai.request.model = model.as_deref(), tollgate.wait_ms = wait / 1_000_000 },
                "refused by the provider: the gate is shut",
            ),
            Self::GateOpened { model } => tracing::info!(
                target: TARGET,
                { gen_ai.request.model = model.as_deref() },
                "the gate is open again",
            ),
            Self::LimitLearned {
                limit,
                amount,
                period,
                model,
            } => tracing::info!(
                target: TARGET,
                {
                    gen_ai.request.model = model.as_deref(),
                    tollgate.limit = &**limit,
                    tollgate.amount = amount,
                    tollgate.period_ms = period / 1_000_000,
                },
                "a limit was learned",
            ),
            Self::LimitChanged {
                limit,
                from,
                to,
                model,
            } => tracing::info!(
                target: TARGET,
                {
                    gen_ai.request.model = model.as_deref(),
                    tollgate.limit = &**limit,
                    tollgate.amount_before = from,
                    tollgate.amount = to,
                },
                "the provider states another limit",
            ),
            Self::Enforced { limit, by, model } => tracing::info!(
                target: TARGET,
                {
                    gen_ai.request.model = model.as_deref(),
                    tollgate.limit = &**limit,
                    tollgate.enforcement = ?by,
                },
                "a limit is enforced otherwise than was taken for granted",
            ),
            Self::WouldWait { wait, model } => tracing::debug!(
                target: TARGET,
                {
                    gen_ai.request.model = model.as_deref(),
                    tollgate.wait_ms = wait.map(|wait| wait / 1_000_000),
                },
                "shadow: it would have waited",
            ),
            Self::WouldRefuse { refused, model } => tracing::debug!(
                target: TARGET,
                {
                    gen_ai.request.model = model.as_deref(),
                    tollgate.limit = refused.limit.as_deref(),
                    tollgate.reason = refused.reason.code(),
                    tollgate.wait_ms = refused.retry_after.map(millis),
                },
                "shadow: it would have been refused",
            ),
        }
    }
}

/// Admitted after a wait; `waited` is worked out only if somebody listens.
pub(crate) fn admitted(waited: impl FnOnce() -> Duration) {
    if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        tracing::debug!(
            target: TARGET,
            { tollgate.wait_ms = millis(waited()) },
            "admitted after a wait",
        );
    }
}

/// Said once for each budget.
pub(crate) fn uncapped(model: Option<&str>) {
    tracing::warn!(
        target: TARGET,
        { gen_ai.request.model = model },
        "a request states no output cap",
    );
}

pub(crate) fn refused(refused: &Refused) {
    tracing::debug!(
        target: TARGET,
        {
            tollgate.limit = refused.limit.as_deref(),
            tollgate.reason = refused.reason.code(),
            tollgate.wait_ms = refused.retry_after.map(millis),
        },
        "refused",
    );
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
