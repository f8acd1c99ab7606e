//! A simulated on-sale against the program's own service: hundreds of buyers, far fewer seats.
//!
//! All code here is a client. It uses HTTP by the published contract alone, and verifies the answers: each
//! buyer keeps an account of their own points, and the audit checks the database meanwhile.

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
    /// The same seed makes the same buyers with the same wishes; their timing depends on the machine.
    pub seed: u64,
    /// Over how long they arrive.
    pub arrivals: Duration,
    /// A buyer without seats leaves this long after joining the line.
    pub patience: Duration,
}
