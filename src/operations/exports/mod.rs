//! Exports: all reservations, entries of the ledger, tickets or redemptions, as CSV or as a JSON object per line.
//!
//! An export reads one snapshot, page by page, so it needs the same memory however many rows there are. Each row carries a cursor.
//! A client whose export was cut off has the cursor of the last whole row, and goes on after it with another export.

mod stream;
mod run;
mod format;
mod cursor;

pub use cursor::Position;
pub use run::{Chunk, ExportOrder, ExportRun, record};
pub use stream::Exports;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What can be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Export {
    Reservations,
    Ledger,
    Tickets,
    Redemptions,
}

impl Export {
    pub const ALL: [Self; 4] = [Self::Reservations, Self::Ledger, Self::Tickets, Self::Redemptions];

    /// Its name in paths, files and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reservations => "reservations",
            Self::Ledger => "ledger",
            Self::Tickets => "tickets",
            Self::Redemptions => "redemptions",
        }
    }

    /// The export of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|export| export.name() == name)
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ExportFormat {
    /// RFC 4180, with a line of column names.
    Csv,
    /// A JSON object per line.
    #[default]
    Ndjson,
}

impl ExportFormat {
    /// Its name, which is also the extension of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
        }
    }
}

/// Why an export was not started, or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(
        "{0} exports are under way on this instance, and no more are allowed at a time; wait for one to end"
    )]
    TooMany(usize),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("a row could not be written: {0}")]
    Format(String),
}
