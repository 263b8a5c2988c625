//! The handle of a shared budget.
use std::{
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot};
use tollgate_budget::{Acquire, Ask, Asking, Budget, BudgetStore, Charging, Keys};

use crate::{
    builder::RedisBudgetBuilder,
    driver::Closer,
    status::{Status, StoreSnapshot},
};

/// A [`Budget`] whose limits are shared by all processes that name the same one on the same server. See the
/// [crate docs](crate).
///
/// It is used as a [`Budget`] is, and dereferences to one; its snapshot shows what this process uses.
#[derive(Clone)]
pub struct RedisBudget {
    budget: Budget,
    status: Arc<Mutex<Status>>,
    closer: mpsc::Sender<Closer>,
}

impl RedisBudget {
    pub(crate) fn new(
        budget: Budget,
        status: Arc<Mutex<Status>>,
        closer: mpsc::Sender<Closer>,
    ) -> Self {
        Self {
            budget,
            status,
            closer,
        }
    }

    /// A budget on the server at this address: `redis://[user:password@]host[:port][/db]`, `unix:///path`, or
    /// `rediss://…` with the feature `rustls`. Redis from 6.2 on, Valkey from 7.2 on.
    ///
    /// TLS trusts what this machine trusts, or the certificates in the file that `SSL_CERT_FILE` names. It takes the provider of
    /// cryptography that the program has installed (`rustls::crypto::ring::default_provider().install_default()`), and
    /// [`build`](RedisBudgetBuilder::build) refuses where there is none.
    pub fn connect(url: impl Into<String>) -> RedisBudgetBuilder {
        RedisBudgetBuilder::of(url.into())
    }

    /// A budget on the master that these sentinels name, also after a failover.
    ///
    /// `master`: its name (`"mymaster"`), or with what it asks for: `redis://[user:password@]mymaster[/db]`, and `rediss://…` if
    /// it wants TLS. The password of the sentinels themselves stands in their addresses.
    #[cfg(feature = "sentinel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "sentinel")))]
    pub fn sentinels(
        urls: impl IntoIterator<Item = impl Into<String>>,
        master: impl Into<String>,
    ) -> RedisBudgetBuilder {
        RedisBudgetBuilder::of_sentinels(urls.into_iter().map(Into::into).collect(), master.into())
    }

    /// A budget on a cluster, of which these are some nodes. All keys of a budget are in one slot.
    #[cfg(feature = "cluster")]
    #[cfg_attr(docsrs, doc(cfg(feature = "cluster")))]
    pub fn cluster(urls: impl IntoIterator<Item = impl Into<String>>) -> RedisBudgetBuilder {
        RedisBudgetBuilder::of_cluster(urls.into_iter().map(Into::into).collect())
    }

    /// The part of it that this process keeps.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Closes the budget for this process, all its handles: tells the server at once what was used, and gives back what
    /// is in hand. Returns whether the server has heard it.
    ///
    /// For the end of a process, when the last calls have been answered: without it a process that ends has its units in
    /// hand wasted, and what it used since its last visit is not told. Whoever waits, and whoever comes from now on, is
    /// refused ([`Reason::StoreDown`](tollgate_core::extensions::Reason::StoreDown), 503). What was admitted goes on;
    /// what it turns out to have used is told when this is called again, or when the last handle is dropped and the
    /// runtime goes on for a moment.
    ///
    /// Takes a few [`timeout`](RedisBudgetBuilder::timeout)s at most where the server is away; then `false`, and it may be
    /// called again. `false` too where the runtime in which the budget was built is gone.
    ///
    /// # Cancel safety
    ///
    /// The budget is closed, or not yet; what is told is told once.
    pub async fn close(&self) -> bool {
        let (tell, told) = oneshot::channel();
        self.closer.send(tell).await.is_ok() && told.await.unwrap_or(false)
    }

    /// The server, as this process sees it.
    #[must_use]
    pub fn store(&self) -> StoreSnapshot {
        let seen = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        StoreSnapshot {
            down: seen.down,
            trips: seen.trips,
            failures: seen.failures,
            processes: seen.processes,
            maxmemory_policy: seen.maxmemory_policy.clone(),
        }
    }
}

impl Deref for RedisBudget {
    type Target = Budget;

    fn deref(&self) -> &Budget {
        &self.budget
    }
}

impl BudgetStore for RedisBudget {
    type Acquire = Acquire;

    fn acquire(&self, ask: Ask) -> Acquire {
        self.budget.acquire(ask)
    }

    fn look(&self, keys: &mut Keys, asking: &Asking<'_>) {
        self.budget.look(keys, asking);
    }

    fn charging(&self) -> Charging {
        self.budget.charging()
    }
}

impl fmt::Debug for RedisBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBudget")
            .field("budget", &self.budget)
            .field("store", &self.store())
            .finish()
    }
}
