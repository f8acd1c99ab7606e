//! The tests of the benchmark, as one binary. They share the servers and helpers of the service's tests.

// A test reports an error by a panic.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/common/mod.rs"]
mod common;

mod contention;
mod growth;
mod scenarios;
