//! The workflows that are part of the program, and those of a folder.

use std::path::Path;

use anyhow::Context;

use crate::saga::{Definition, DefinitionError, WorkflowRegistry};

/// A definition with its text.
#[derive(Clone, Debug)]
pub struct WorkflowText {
    pub definition: Definition,
    pub text: String,
    /// Whether it is part of the program, and so was checked with it.
    pub is_built_in: bool,
}

/// The workflows whose sagas are started by the service itself.
pub const BUILT_IN_NAMES: &[&str] = &["booking", "cancellation"];

const BUILT_IN: [(&str, &str); 2] = [
    ("booking", include_str!("../workflows/booking.toml")),
    ("cancellation", include_str!("../workflows/cancellation.toml")),
];

/// The booking and the cancellation. Their sagas are started by the service itself.
pub fn built_in_texts() -> Result<Vec<WorkflowText>, DefinitionError> {
    let read = |(name, text): (&str, &str)| {
        let definition = Definition::parse(name, text)?;
        Ok(WorkflowText { definition, text: text.to_owned(), is_built_in: true })
    };
    BUILT_IN.into_iter().map(read).collect()
}

/// Whether sagas of this workflow are started by the service itself.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN_NAMES.contains(&name)
}

/// The built-in workflows, as a process knows them.
pub fn built_in() -> Result<WorkflowRegistry, DefinitionError> {
    Ok(registry(built_in_texts()?))
}

/// The built-in workflows, and those of the `*.toml` files of a folder. A file takes the place of the same version of a
/// built-in workflow.
///
/// # Errors
/// If a file cannot be read, or has no good definition.
pub fn with_folder(folder: Option<&Path>) -> anyhow::Result<Vec<WorkflowText>> {
    let mut all = built_in_texts()?;
    let Some(folder) = folder else { return Ok(all) };
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot read the folder {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let text =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let definition = Definition::parse(&path.display().to_string(), &text)?;
            let key = |known: &Definition| (known.name.clone(), known.version);
            all.retain(|known| key(&known.definition) != key(&definition));
            all.push(WorkflowText { definition, text, is_built_in: false });
        }
    }
    Ok(all)
}

/// These definitions, as a process knows them.
pub fn registry(texts: Vec<WorkflowText>) -> WorkflowRegistry {
    let registry = WorkflowRegistry::default();
    texts.into_iter().for_each(|known| registry.add(known.definition));
    registry
}
