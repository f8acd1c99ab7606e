//! Why a saga does not move, in one line: its row joined with what NATS knows about its command.

mod sentence;
mod facts;
mod events;

pub use facts::{Backlog, Carrier, Facts, Present, ask};

use serde::Serialize;
use utoipa::ToSchema;

use crate::text::escape_line;

/// One line, and what it is made of.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = SagaWhy)]
pub struct Why {
    /// What it waits for, since when, until when, and who could move it.
    pub sentence: String,
    pub facts: Facts,
}

impl From<Facts> for Why {
    fn from(facts: Facts) -> Self {
        Self { sentence: escape_line(&sentence::of(&facts)).into_owned(), facts }
    }
}
