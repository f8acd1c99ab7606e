//! Box Office: a fair line, seats that are sold once, points that add up, and the saga engine under them.
//!
//! The modules stand in the order in which a booking meets them; a module uses only those below it.
//! Read [`booking`] first, then [`saga`]: the first is what a buyer asks for, the second the one pure
//! function that decides what happens next. `ARCHITECTURE.md` walks one reservation through all of it.

pub mod cli;
pub mod sample_concerts;

pub mod app;

pub mod http;
pub mod crowd;
pub mod waiting_room;

pub mod booking;
pub mod redemptions;
pub mod transfers;
pub mod catalog;
pub mod audit;
pub mod webhooks;

pub mod operations;

pub mod cancellation;

pub mod steps;

pub use saga_engine::orchestrator;

pub mod bus;

pub mod store;

pub mod workflows;
pub mod schemas;

pub use saga_core as saga;

pub mod telemetry;

pub mod background;

pub mod config;

pub use saga_engine::clock;
pub use saga_engine::trace_context;
pub mod ids;
pub mod text;
pub mod ticket_codes;

#[cfg(test)]
mod hostile;

pub use saga_core::jsonb;
