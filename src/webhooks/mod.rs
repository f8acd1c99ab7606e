//! Webhooks: events are posted to endpoints of shops, signed, at least once, and in order for each reservation.
//!
//! One process at a time does this, under a lease in Postgres: it queues the events of the stream `EVENTS` as deliveries, one
//! for each endpoint that wants the event, and attempts those that are due. A process that stops loses nothing: what it had
//! not acknowledged is queued again, and what it had begun is attempted again.

pub mod endpoints;
mod service;
mod sender;
mod attempt;
mod intake;
pub mod addresses;
mod signature;
mod retries;

pub use addresses::UrlRules;
pub use service::{Webhooks, purge};
pub use signature::Secret;
