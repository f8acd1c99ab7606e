//! What one instance at a time does for everybody, under a lease: admit, pass over, end what is over, restore a lost line.
//!
//! [`leader`] says why the cap holds whatever happens to whoever leads.

pub mod scheduler;
pub mod restoration;
mod leader;
mod silence;
mod closing;
mod fenced;
pub mod lease;
