//! The checker checked: sound workflows pass, each flaw is found, and thrift changes no verdict.

use super::setting::Model;
use super::*;
use crate::saga::{Catalogue, Definition};
use stateright::{Checker, Model as _};

const FEW: Bounds = Bounds { crashes: 0, losses: 1, duplicates: 1, acts: 0, returns: 1 };

fn booking() -> Definition {
    Catalogue::built_in().unwrap().latest("booking").unwrap().clone()
}

fn found(home: Home, bounds: Bounds, flaw: Flaw) -> Finding {
    walk(&booking(), home, bounds, Some(flaw)).finding.unwrap_or_else(|| panic!("{flaw:?} is not found"))
}

#[test]
fn the_built_in_workflows_pass() {
    for definition in Catalogue::built_in().unwrap().iter() {
        let report = check(definition, FEW);
        assert!(report.is_good(), "{report:#?}");
        assert!(report.walks.iter().all(|walk| walk.states > 50 && walk.depth > 5), "{report:#?}");
    }
}

#[test]
fn a_worker_that_forgets_undos_is_found() {
    let finding = found(Home::Elsewhere, FEW, Flaw::WorkerForgetsUndos);
    assert!(finding.problem.contains("takes effect after its undo"), "{finding:#?}");
}

#[test]
fn a_worker_that_forgets_outcomes_is_found() {
    let finding = found(Home::Elsewhere, FEW, Flaw::WorkerForgetsOutcomes);
    assert_eq!(finding.problem, "the effect of reserve is made twice");
    assert_eq!(finding.way.len(), 2, "{finding:#?}");
}

#[test]
fn an_engine_that_takes_every_reply_is_found() {
    let finding = found(Home::Elsewhere, FEW, Flaw::EngineTakesAnyReply);
    assert_eq!(finding.problem, "the saga has ended, but the effect of reserve is left behind");
}

#[test]
fn a_service_that_commits_apart_from_the_saga_is_found() {
    let crash = Bounds { crashes: 1, ..FEW };
    let finding = found(Home::Inside, crash, Flaw::WorkerCommitsApart);
    assert_eq!(finding.problem, "the effect of reserve is made twice");
}

#[test]
fn an_engine_that_never_looks_is_found() {
    let finding = found(Home::Inside, FEW, Flaw::EngineNeverSweeps);
    assert!(finding.problem.contains("no end"), "{finding:#?}");
    assert_eq!(finding.way, ["worker: do reserve (visit 1) -> failed, pauses before reserve"]);
}

#[test]
fn a_step_without_undo_before_one_that_may_be_refused_is_found() {
    let text = "name='t'\nversion=1\n[[steps]]\nname='a'\ncommand='x.y'\n[[steps]]\nname='b'\ncommand='x.z'\nundo='x.u'";
    let report = check(&Definition::parse("t", text).unwrap(), FEW);
    let finding = report.walks[0].finding.as_ref().unwrap();
    assert_eq!(finding.problem, "the saga has ended, but the effect of a is left behind");
}

#[test]
fn thrift_changes_no_verdict() {
    let few = Bounds { duplicates: 1, losses: 0, returns: 0, ..FEW };
    let mut plain = Model::of(&booking(), Home::Elsewhere, few, None);
    plain.thrifty = false;
    let checker = plain.checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery(model::RULE).is_none());
    let thrifty = walk(&booking(), Home::Elsewhere, few, None);
    assert!(thrifty.finding.is_none() && thrifty.states * 3 < checker.unique_state_count());
}
