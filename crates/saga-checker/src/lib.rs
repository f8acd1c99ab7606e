//! A model checker for workflows. It runs the real [`saga_core::apply()`] with a model of the bus, the workers, the
//! operators and their faults, and visits every reachable state.

#[cfg(test)]
mod laws;
mod report;
mod parts;
mod model;
mod trace;
mod reduction;
mod choices;
mod workers;
mod engine;
mod rules;
mod actions;
mod state;
mod violation;
mod abstraction;

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Instant;

use serde::Serialize;

pub use actions::{Home, InjectedBug};
pub use report::{Finding, Report, Walk, check, check_within, walk};

/// The number of faults and choices on one path through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// Processes that crash between commit and acknowledgement.
    pub crashes: u8,
    /// Messages that the bus loses, and replies `unknown`.
    pub losses: u8,
    /// Messages that are delivered twice, and commands that are sent again too early.
    pub duplicates: u8,
    /// Actions of operators.
    pub acts: u8,
    /// Rejections that lead back to a wait.
    pub returns: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { crashes: 2, losses: 1, duplicates: 2, acts: 1, returns: 1 }
    }
}

/// How much a check may take.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// When both walks must have ended.
    pub until: Option<Instant>,
    /// How many states each walk may visit.
    pub states: Option<usize>,
    pub threads: usize,
}

impl Default for Effort {
    fn default() -> Self {
        let threads = available_parallelism().map_or(1, NonZero::get);
        Self { until: None, states: None, threads }
    }
}
