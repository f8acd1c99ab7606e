//! The workflows that are part of the program.

use crate::saga::definition::DefinitionError;
use crate::saga::{Catalogue, Definition};

/// The booking and the cancellation.
pub fn built_in() -> Result<Catalogue, DefinitionError> {
    let mut catalogue = Catalogue::default();
    catalogue.add(Definition::parse("booking", include_str!("../workflows/booking.toml"))?);
    catalogue.add(Definition::parse("cancellation", include_str!("../workflows/cancellation.toml"))?);
    Ok(catalogue)
}
