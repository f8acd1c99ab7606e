//! NATS JetStream, the carrier: what travels on which subject, and how it is published and received.
//!
//! Nothing here is the truth. Every stream can be deleted and is made again from the table in
//! [`topology`]; every message can be derived again from rows.

pub mod presence;
pub mod fences;
pub mod consumers;
pub mod messages;
pub mod publish;
pub mod probe;
pub mod deliveries;
pub mod topology;
pub mod connect;
pub mod access;
pub mod health;
pub mod denials;
pub mod retry;

pub use saga_protocol::{command_batch, events, headers, subjects};

pub use access::NatsAccess;
pub use connect::{Bus, connect, connect_as};
pub use deliveries::Deliveries;
