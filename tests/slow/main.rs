//! Tests that take long: faults that last, generated requests, loads. `make test-slow` runs them; `make test` does not.

#![allow(clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../worker_conformance/toolchains.rs"]
#[allow(dead_code)]
mod toolchains;

#[path = "../laws/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../browser/script.rs"]
mod script;

mod frozen_worker;
mod full_disk;
mod generated;
mod postgres;
mod refused;
mod shop_in_browser;
mod throttle;
mod trips;
