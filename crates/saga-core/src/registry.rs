//! The workflow definitions that a process knows, and which version of each new sagas begin with.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use super::definition::Definition;

/// Most definitions that are kept. Beyond it the one that was added first is dropped; it can be read again.
pub const MAX_DEFINITIONS: usize = 1_000;

/// Definitions by name and version. Processes share one; a definition that is missing can be added at any time.
#[derive(Debug, Default)]
pub struct WorkflowRegistry {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    definitions: BTreeMap<String, BTreeMap<i32, Arc<Definition>>>,
    /// Name and version of each definition, in the order in which they were added.
    order: VecDeque<(String, i32)>,
    /// The version that new sagas of each workflow begin with.
    current: BTreeMap<String, i32>,
}

impl WorkflowRegistry {
    /// Adds a definition, in place of the same version of the same workflow. New sagas begin with it if it is the newest.
    pub fn add(&self, definition: Definition) {
        self.write(|known| {
            let current = known.current.entry(definition.name.clone()).or_insert(definition.version);
            *current = definition.version.max(*current);
            known.keep(definition);
        });
    }

    /// Adds definitions that were read because a saga needs them; the versions that new sagas begin with stay as they are.
    pub fn keep(&self, definitions: impl IntoIterator<Item = Definition>) {
        self.write(|known| definitions.into_iter().for_each(|definition| known.keep(definition)));
    }

    /// Sets the version that new sagas of each workflow begin with. A workflow that is not named begins no sagas.
    pub fn set_current(&self, current: BTreeMap<String, i32>) {
        self.write(|known| known.current = current);
    }

    /// The definition that a saga began with.
    pub fn get(&self, name: &str, version: i32) -> Option<Arc<Definition>> {
        self.read(|known| known.definitions.get(name)?.get(&version).cloned())
    }

    /// The definition that new sagas of a workflow begin with.
    pub fn latest(&self, name: &str) -> Option<Arc<Definition>> {
        self.read(|known| known.definitions.get(name)?.get(known.current.get(name)?).cloned())
    }

    /// Every command that any of them sends, undo included.
    pub fn commands(&self) -> BTreeSet<String> {
        self.all().iter().flat_map(|definition| definition.commands()).map(str::to_owned).collect()
    }

    /// All of them, by name and version.
    pub fn all(&self) -> Vec<Arc<Definition>> {
        self.read(|known| known.definitions.values().flat_map(BTreeMap::values).cloned().collect())
    }

    /// The same, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Definition>> + use<> {
        self.all().into_iter()
    }

    fn read<T>(&self, look: impl FnOnce(&Known) -> T) -> T {
        look(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Known {
    fn keep(&mut self, definition: Definition) {
        let (name, version) = (definition.name.clone(), definition.version);
        let versions = self.definitions.entry(name.clone()).or_default();
        if versions.insert(version, Arc::new(definition)).is_none() {
            self.order.push_back((name, version));
        }
        // What new sagas begin with is kept: it is not read again until the next deployment.
        let mut looked_at = 0;
        while self.order.len() > MAX_DEFINITIONS && looked_at < MAX_DEFINITIONS {
            looked_at += 1;
            let Some((name, version)) = self.order.pop_front() else { return };
            if self.current.get(&name) == Some(&version) {
                self.order.push_back((name, version));
            } else if let Some(versions) = self.definitions.get_mut(&name) {
                versions.remove(&version);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(name: &str, version: i32) -> Definition {
        let text = format!("name='{name}'\nversion={version}\n[[steps]]\nname='a'\ncommand='x.y'");
        Definition::parse("test", &text).unwrap()
    }

    #[test]
    fn new_sagas_use_the_newest_or_set_version() {
        let registry = WorkflowRegistry::default();
        registry.add(definition("trip", 2));
        registry.add(definition("trip", 1));
        assert_eq!(registry.latest("trip").unwrap().version, 2);
        registry.keep([definition("trip", 3)]);
        assert_eq!(registry.latest("trip").unwrap().version, 2, "read for a saga, not deployed");
        registry.set_current(BTreeMap::from([("trip".to_owned(), 1)]));
        assert_eq!(registry.latest("trip").unwrap().version, 1);
        registry.set_current(BTreeMap::new());
        assert!(registry.latest("trip").is_none() && registry.get("trip", 3).is_some());
    }

    #[test]
    fn registry_is_bounded_and_keeps_current_versions() {
        let registry = WorkflowRegistry::default();
        registry.add(definition("first", 1));
        registry.keep((1..=MAX_DEFINITIONS as i32).map(|version| definition("trip", version)));
        assert_eq!(registry.all().len(), MAX_DEFINITIONS);
        assert!(registry.get("first", 1).is_some() && registry.get("trip", 1).is_none());
    }
}
