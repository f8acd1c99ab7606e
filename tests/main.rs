//! Every integration test, as one binary: against a real Postgres and real NATS servers that it starts itself.

mod common;

mod booking;
mod events;
mod faults;
mod fence;
mod local;
