//! The gate: checks queue tokens, and keeps the changes of places that are granted and still to be written.

mod check;
mod pending_writes;
mod pending_write;

pub use self::check::{PassState, PlaceState, Refused, check, identify, identify_for};
pub use self::pending_write::{NextWrite, PendingWrite};
pub use self::pending_writes::{Key, PendingWrites};
