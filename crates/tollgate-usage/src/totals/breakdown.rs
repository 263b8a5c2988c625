//! Sums for each of a bounded number of names, and for the rest.
use std::{borrow::Borrow, collections::HashMap, hash::Hash};

use super::Totals;

/// Sums for each of a bounded number of names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Breakdown<K> {
    /// Sorted by name.
    pub entries: Vec<(K, Totals)>,
    /// All that found no room.
    pub other: Totals,
}

impl<K> Default for Breakdown<K> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            other: Totals::default(),
        }
    }
}

/// A value for each of the first names that come, and one for the rest.
pub(super) struct Groups<K, V = Totals> {
    most: usize,
    named: HashMap<K, V>,
    other: V,
}

impl<K: Clone + Eq + Hash, V: Default> Groups<K, V> {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            named: HashMap::new(),
            other: V::default(),
        }
    }

    /// Where what belongs to this name goes.
    pub(super) fn slot(&mut self, name: Option<&K>) -> &mut V {
        match name {
            Some(name) if self.named.contains_key(name) || self.named.len() < self.most => {
                self.named.entry(name.clone()).or_default()
            }
            _ => &mut self.other,
        }
    }

    /// The name's own value; `None` if it finds no room.
    pub(super) fn own(&mut self, name: &K) -> Option<&mut V> {
        (self.named.contains_key(name) || self.named.len() < self.most)
            .then(|| self.named.entry(name.clone()).or_default())
    }

    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, name: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.named.get(name)
    }
}

impl<K: Clone + Ord> Groups<K> {
    pub(super) fn snapshot(&self) -> Breakdown<K> {
        let named = self.named.iter();
        let mut entries: Vec<_> = named.map(|(name, sum)| (name.clone(), *sum)).collect();
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Breakdown {
            entries,
            other: self.other,
        }
    }
}
