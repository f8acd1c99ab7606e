//! The saga engine: sagas are persisted state machines in Postgres, and NATS JetStream carries their steps and timers.
//!
//! A program starts an [`Engine`](orchestrator::Engine), gives it the services of its own database as
//! [`Participant`](orchestrator::Participant)s, and lets it run. Services elsewhere use the crate `saga-worker`. The pure rules
//! are in `saga-core`, the wire in `saga-protocol`. The engine knows no workflow by itself: definitions are deployed.
//!
//! A module uses only those below it.

pub mod orchestrator;

pub mod bus;

pub mod store;

pub mod input_schema;

pub mod background;

pub mod trace_context;
pub mod clock;
pub mod ids;

pub use saga_core as saga;
pub use saga_core::jsonb;
