//! Rows that are decided about in memory: as they were read, and as they are to be written.

use std::collections::BTreeMap;

/// Rows by their key.
#[derive(Clone, Debug, PartialEq)]
pub struct TrackedRows<K, V> {
    now: BTreeMap<K, V>,
    /// Those that have changed, as they were read.
    read: BTreeMap<K, V>,
}

impl<K: Ord + Clone, V: Clone> TrackedRows<K, V> {
    /// A row as it stands by now.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.now.get(key)
    }

    /// All rows as they stand by now, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.now.iter()
    }

    /// Takes what was read.
    pub fn insert(&mut self, key: K, row: V) {
        self.now.insert(key, row);
    }

    /// A row that is about to change.
    pub fn change(&mut self, key: &K) -> Option<&mut V> {
        let row = self.now.get_mut(key)?;
        self.read.entry(key.clone()).or_insert_with(|| row.clone());
        Some(row)
    }

    /// Puts another row in the place of one.
    pub fn replace(&mut self, key: &K, row: V) {
        if let Some(now) = self.now.get_mut(key) {
            let before = std::mem::replace(now, row);
            self.read.entry(key.clone()).or_insert(before);
        }
    }

    /// The rows that have changed: key, as it was read, as it stands by now; in the order of their keys.
    pub fn changed(&self) -> impl Iterator<Item = (&K, &V, &V)> {
        self.read.iter().filter_map(|(key, before)| Some((key, before, self.now.get(key)?)))
    }
}

impl<K, V> Default for TrackedRows<K, V> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), read: BTreeMap::new() }
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for TrackedRows<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(rows: I) -> Self {
        Self { now: rows.into_iter().collect(), read: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twice_changed_row_is_compared_with_its_original() {
        let mut rows: TrackedRows<i32, &str> = [(2, "b"), (1, "a"), (3, "c")].into_iter().collect();
        *rows.change(&3).unwrap() = "d";
        *rows.change(&3).unwrap() = "e";
        rows.replace(&1, "x");
        rows.replace(&1, "f");
        rows.replace(&4, "g");
        assert_eq!(rows.change(&4), None, "what was not read cannot change");
        assert_eq!(rows.changed().collect::<Vec<_>>(), [(&1, &"a", &"f"), (&3, &"c", &"e")]);
        assert_eq!(rows.get(&3), Some(&"e"));
    }
}
