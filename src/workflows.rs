//! The workflows that are part of the program.

use crate::saga::definition::DefinitionError;
use crate::saga::{Definition, WorkflowRegistry};

/// The booking and the cancellation.
pub fn built_in() -> Result<WorkflowRegistry, DefinitionError> {
    let mut registry = WorkflowRegistry::default();
    registry.add(Definition::parse("booking", include_str!("../workflows/booking.toml"))?);
    registry.add(Definition::parse("cancellation", include_str!("../workflows/cancellation.toml"))?);
    Ok(registry)
}
