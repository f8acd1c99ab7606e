//! Tests that take long: faults that last, generated requests, loads. `make test-slow` runs them; `make test` does not.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../worker_conformance/toolchains.rs"]
#[allow(dead_code)]
mod toolchains;

mod full_disk;
mod generated;
mod postgres;
mod refused;
mod trips;
