//! The SQL of the box office, one file per noun; no other module writes any. The engine's own SQL is in the crate `saga-engine`.
//!
//! Functions take what they run on first: `impl PgExecutor` where one statement stands for itself,
//! `&mut PgConnection` where the caller's transaction must hold around it, and [`write_batch::WriteBatch`] where they add a part to
//! the one statement that writes all that was decided together. Times are parameters: the one
//! clock that decides is read by [`now`] inside the transaction.

pub mod access_codes;
pub mod api_keys;
pub mod audit;
pub mod batch_jobs;
pub mod dates;
pub mod catalog;
pub mod date_refunds;
pub mod direct_events;
pub mod exports;
pub mod free_seats;
pub mod payments;
pub mod personal_data;
pub mod points;
pub mod pulse;
pub mod queue;
pub mod queue_journal;
pub mod settlements;
pub mod support;
pub mod redemptions;
pub mod reservations;
pub mod saga_search;
pub mod sales_report;
pub mod seat_blocks;
pub mod seats;
pub mod seat_places;
pub mod tickets;
pub mod transfers;
pub mod users;
pub mod webhook_deliveries;
pub mod webhooks;
pub mod migrations;

pub use migrations::{fit, migrate};
pub use saga_engine::store::*;
