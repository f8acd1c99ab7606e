//! What one instance at a time does, under a lease: admit users, mark silent ones, delete expired places, restore a lost
//! line. [`leader`] explains why the cap holds across every change of leader.

pub mod scheduler;
pub mod restoration;
mod leader;
mod liveness_scan;
mod expiry;
mod fenced_write;
pub mod lease;
