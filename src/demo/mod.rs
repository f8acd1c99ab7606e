//! The on-sale that the program plays against itself: hundreds of buyers, far fewer seats.
//!
//! Everything here is a client. It speaks HTTP, from the published contract alone, and trusts nothing: each
//! buyer keeps an account of their own points, and the audit looks over the service's shoulder meanwhile.
//! The exception is [`concerts`], the programme that `up` loads.

mod buyer;
mod choosing;
mod client;
mod paying;
pub mod concerts;
mod progress;
mod report;
mod scenario;
mod service;
mod tally;
mod temper;
mod wire;

pub use progress::Progress;
pub use report::Outcome;
pub use scenario::{DemoError, Plan, Stage, play};
pub use service::{Service, ServiceError};
pub use tally::{Call, Happening, Latency};
