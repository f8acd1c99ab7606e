//! The on-sale that the program plays against itself: hundreds of buyers, far fewer seats.
//!
//! Everything here is a client. It speaks HTTP, from the published contract alone, and trusts nothing: each
//! buyer keeps an account of their own points, and the audit looks over the service's shoulder meanwhile.

mod scenario;
mod choosing;
mod paying;
mod buyer;
mod service;
mod report;
mod progress;
mod client;
mod tally;
mod temper;
mod wire;

use std::time::Duration;

pub use progress::Progress;
pub use report::Outcome;
pub use scenario::{DemoError, Stage, play};
pub use service::{Service, ServiceError};
pub use tally::{Call, Happening, Latency};

/// The first argument of the process of this program that is the service.
pub const UP: &str = "up";

/// How large the on-sale is, and which one of the possible ones.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub buyers: usize,
    /// The same seed makes the same buyers with the same wishes; who is faster is up to the machine.
    pub seed: u64,
    /// Over how long they arrive.
    pub arrivals: Duration,
    /// A buyer without seats leaves this long after joining the line.
    pub patience: Duration,
}
