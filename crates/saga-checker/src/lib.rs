//! A model checker for workflows: the real [`saga_core::apply()`], with a model of the bus, the workers, the
//! operators and everything that can go wrong between them, walked through all its states.

#[cfg(test)]
mod laws;
mod report;
mod model;
mod trace;
mod reduction;
mod choices;
mod workers;
mod shell;
mod rules;
mod setting;
mod state;
mod fault;
mod abstraction;

use serde::Serialize;

pub use report::{Finding, Report, Walk, check, walk};
pub use setting::{Home, InjectedBug};

/// How often each thing may go wrong on one way through the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bounds {
    /// Processes that die between commit and acknowledgement.
    pub crashes: u8,
    /// Messages that the bus loses, and answers that say nothing, because the worker cannot know.
    pub losses: u8,
    /// Messages that are delivered twice, and commands that are sent again too early.
    pub duplicates: u8,
    /// Acts of operators.
    pub acts: u8,
    /// Rejections that lead back to a wait.
    pub returns: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { crashes: 2, losses: 1, duplicates: 2, acts: 1, returns: 1 }
    }
}
