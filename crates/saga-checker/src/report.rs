//! What the checker found out about a workflow.

use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Instant;

use serde::Serialize;
use stateright::{Checker, Model as _};

use super::Bounds;
use super::fault::Fault;
use super::model::RULE;
use super::setting::{Home, InjectedBug, Model, Move};
use super::state::State;
use saga_core::Definition;

/// The verdict on one version of a workflow.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub workflow: String,
    pub version: i32,
    pub bounds: Bounds,
    /// One walk for each place where the workers can be.
    pub walks: Vec<Walk>,
}

/// A walk through all states.
#[derive(Clone, Debug, Serialize)]
pub struct Walk {
    pub workers: Home,
    /// States that were reached, each as often as it was reached.
    pub explored: usize,
    /// Different states among them.
    pub states: usize,
    /// The most moves that it took to come to a state.
    pub depth: usize,
    pub seconds: f64,
    pub finding: Option<Finding>,
}

/// What is wrong, and the shortest way to it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub problem: String,
    pub way: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.walks.iter().all(|walk| walk.finding.is_none())
    }
}

/// Walks through all states of a workflow, with its workers elsewhere and in the engine's database.
pub fn check(definition: &Definition, bounds: Bounds) -> Report {
    let walks = [Home::Elsewhere, Home::Inside].map(|home| walk(definition, home, bounds, None));
    Report { workflow: definition.name.clone(), version: definition.version, bounds, walks: walks.into() }
}

/// Walks through all states of a workflow, with its workers in one place and perhaps with a defect on purpose.
pub fn walk(definition: &Definition, home: Home, bounds: Bounds, bug: Option<InjectedBug>) -> Walk {
    let begun = Instant::now();
    let threads = available_parallelism().map_or(1, NonZero::get);
    let model = || Model::of(definition, home, bounds, bug).checker();
    let walked = model().threads(threads).spawn_bfs().join();
    let mut walk = Walk {
        workers: home,
        explored: walked.state_count(),
        states: walked.unique_state_count(),
        depth: walked.max_depth(),
        seconds: 0.0,
        finding: None,
    };
    if walked.discovery(RULE).is_some() {
        // Only one thread alone goes strictly from the nearest states to the farthest.
        let alone = model().threads(1).spawn_bfs().join();
        let way = alone.discovery(RULE).map(stateright::Path::into_vec).unwrap_or_default();
        walk.finding = Some(alone.model().finding(&way));
    }
    walk.seconds = begun.elapsed().as_secs_f64();
    walk
}

impl Model {
    fn finding(&self, way: &[(State, Option<Move>)]) -> Finding {
        let lines = way.windows(2).filter_map(|pair| {
            let (before, step) = (&pair[0].0, pair[0].1.as_ref()?);
            Some(self.describe(before, step, &pair[1].0))
        });
        let last = way.last().map(|(state, _)| state);
        let fault = last.and_then(|state| state.fault.clone().or_else(|| self.leads_on(state).err()));
        let fault = fault.unwrap_or(Fault::NeverEnds);
        Finding { problem: fault.told(&self.workflow.definition), way: lines.collect() }
    }
}
