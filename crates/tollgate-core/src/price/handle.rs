//! Prices that change while requests run.
use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use super::PriceTable;

/// The price table in force: a handle, made first and passed to the layers that want it.
///
/// Clones share the table. A call is charged by the table that is in force when it ends.
///
/// ```
/// use tollgate_core::price::{Price, PriceTable, Prices};
///
/// let prices = Prices::new(PriceTable::new());
/// let seen_elsewhere = prices.clone();
/// prices.replace(PriceTable::new().with("m-1", Price::per_million("1", "2")?));
/// assert!(seen_elsewhere.table().get("m-1").is_some());
/// # Ok::<(), tollgate_core::price::InvalidPrice>(())
/// ```
#[derive(Clone, Default)]
pub struct Prices(Arc<RwLock<Arc<PriceTable>>>);

impl Prices {
    /// A handle to this table.
    #[must_use]
    pub fn new(table: impl Into<Arc<PriceTable>>) -> Self {
        Self(Arc::new(RwLock::new(table.into())))
    }

    /// The table in force.
    #[must_use]
    pub fn table(&self) -> Arc<PriceTable> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another table in force, for all clones.
    pub fn replace(&self, table: impl Into<Arc<PriceTable>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = table.into();
    }
}

impl From<PriceTable> for Prices {
    fn from(table: PriceTable) -> Self {
        Self::new(table)
    }
}

impl From<Arc<PriceTable>> for Prices {
    fn from(table: Arc<PriceTable>) -> Self {
        Self::new(table)
    }
}

impl fmt::Debug for Prices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        f.debug_struct("Prices")
            .field("about", table.about())
            .field("models", &table.len())
            .finish()
    }
}
