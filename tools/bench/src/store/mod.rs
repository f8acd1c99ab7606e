//! The SQL of the benchmarks. The service executes none of it.
//!
//! Statements are put together at run time, or are about extensions and tables that the schema does not have, so they are not
//! checked when they are compiled; the tests of this package run every one of them.

pub mod growth;
pub mod rivals;
pub mod shop;
pub mod plans;
pub mod rehearsal;
