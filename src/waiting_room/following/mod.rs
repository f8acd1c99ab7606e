//! What every instance does all the time to know how things stand, and to tell the others: each file is a loop that runs
//! until the process stops.

pub mod watch;
pub mod writer;
pub mod payments;
pub mod refresh;
mod alarm;
pub mod openings;
pub mod reports;
pub mod strain;
