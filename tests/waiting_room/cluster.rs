//! The same on three servers, where the replicas must agree before a write counts.
