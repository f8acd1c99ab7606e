//! The result of the checker.

use std::sync::atomic::Ordering;
use std::time::Instant;

use serde::Serialize;
use stateright::{Checker, Model as _};

use super::actions::{Home, InjectedBug, Model, ModelAction};
use super::model::PROPERTY;
use super::parts::parts;
use super::state::State;
use super::violation::Violation;
use super::{Bounds, Effort};
use saga_core::Definition;

/// The verdict on one version of a workflow.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub workflow: String,
    pub version: i32,
    pub bounds: Bounds,
    /// One walk for each place where the workers can run; with a group of three or more parallel steps one for each pair of its members
    /// and place.
    pub walks: Vec<Walk>,
}

/// One run over all states.
#[derive(Clone, Debug, Serialize)]
pub struct Walk {
    pub workers: Home,
    /// The members of large groups of parallel steps that are in the walk, if the others are left out.
    pub members: Vec<String>,
    /// All states that were reached, repeated ones included.
    pub explored: usize,
    /// Different states.
    pub states: usize,
    /// The largest number of actions to reach a state.
    pub depth: usize,
    pub seconds: f64,
    pub finding: Option<Finding>,
    /// Whether the walk visited all states within the bounds, or found a problem.
    pub finished: bool,
}

/// A problem and the shortest path to it.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub problem: String,
    pub way: Vec<String>,
}

impl Report {
    /// Whether all states were visited and no problem was found.
    pub fn is_good(&self) -> bool {
        self.walks.iter().all(|walk| walk.finding.is_none() && walk.finished)
    }

    /// The first problem.
    pub fn finding(&self) -> Option<&Finding> {
        self.walks.iter().find_map(|walk| walk.finding.as_ref())
    }
}

/// Checks a workflow with external workers and with workers in the engine's database.
pub fn check(definition: &Definition, bounds: Bounds) -> Report {
    check_within(definition, bounds, Effort::default())
}

/// The same until all states are visited, a problem is found, or the effort is spent.
pub fn check_within(definition: &Definition, bounds: Bounds, effort: Effort) -> Report {
    let parts = parts(definition);
    let walks = [Home::Elsewhere, Home::Inside].into_iter().flat_map(|home| {
        parts.iter().map(move |part| {
            let walk = walk_within(&part.definition, home, bounds, None, effort);
            Walk { members: part.members.clone(), ..walk }
        })
    });
    Report { workflow: definition.name.clone(), version: definition.version, bounds, walks: walks.collect() }
}

/// Checks a workflow as a whole with its workers in one place, with an injected bug if one is given.
pub fn walk(definition: &Definition, home: Home, bounds: Bounds, bug: Option<InjectedBug>) -> Walk {
    walk_within(definition, home, bounds, bug, Effort::default())
}

fn walk_within(
    definition: &Definition,
    home: Home,
    bounds: Bounds,
    bug: Option<InjectedBug>,
    effort: Effort,
) -> Walk {
    let started = Instant::now();
    let model = || Model::of(definition, home, bounds, bug).within(effort).checker();
    let walked = model().threads(effort.threads).spawn_bfs().join();
    let found = walked.discovery(PROPERTY);
    let mut walk = Walk {
        workers: home,
        members: Vec::new(),
        explored: walked.state_count(),
        states: walked.unique_state_count(),
        depth: walked.max_depth(),
        seconds: 0.0,
        finding: None,
        finished: found.is_some() || !walked.model().was_cut_off.load(Ordering::Relaxed),
    };
    if let Some(found) = found {
        // Only a single thread visits the states in the order of their distance. If its effort is spent, the path that was found
        // first has to do.
        let alone = model().threads(1).spawn_bfs().join();
        let way = alone.discovery(PROPERTY).unwrap_or(found).into_vec();
        walk.finding = Some(walked.model().finding(&way));
    }
    walk.seconds = started.elapsed().as_secs_f64();
    walk
}

impl Model {
    fn finding(&self, way: &[(State, Option<ModelAction>)]) -> Finding {
        let lines = way.windows(2).filter_map(|pair| {
            let (before, step) = (&pair[0].0, pair[0].1.as_ref()?);
            Some(self.describe(before, step, &pair[1].0))
        });
        let last = way.last().map(|(state, _)| state);
        let violation =
            last.and_then(|state| state.violation.clone().or_else(|| self.reaches_end(state).err()));
        let violation = violation.unwrap_or(Violation::NeverEnds);
        Finding { problem: violation.describe(&self.workflow.definition), way: lines.collect() }
    }
}
