//! The checker checked: sound workflows pass, each bug is found, and the reduction changes no verdict.

use super::setting::Model;
use super::*;
use saga_core::Definition;
use stateright::{Checker, Model as _};

const FEW: Bounds = Bounds { crashes: 0, losses: 1, duplicates: 1, acts: 0, returns: 1 };

pub(super) fn booking() -> Definition {
    Definition::parse("booking", include_str!("../../../workflows/booking.toml")).unwrap()
}

fn cancellation() -> Definition {
    Definition::parse("cancellation", include_str!("../../../workflows/cancellation.toml")).unwrap()
}

fn found(home: Home, bounds: Bounds, bug: InjectedBug) -> Finding {
    walk(&booking(), home, bounds, Some(bug)).finding.unwrap_or_else(|| panic!("{bug:?} is not found"))
}

#[test]
fn the_built_in_workflows_pass() {
    for definition in [booking(), cancellation()] {
        let some = Bounds { acts: 1, ..FEW };
        for (home, bounds) in [(Home::Elsewhere, FEW), (Home::Inside, Bounds { crashes: 1, ..some })] {
            let walked = walk(&definition, home, bounds, None);
            assert!(walked.finding.is_none(), "{walked:#?}");
            assert!(
                walked.states > 100 && walked.explored > walked.states && walked.depth > 5,
                "{walked:#?}"
            );
        }
    }
}

#[test]
fn a_worker_that_forgets_undos_is_found() {
    let finding = found(Home::Elsewhere, FEW, InjectedBug::WorkerForgetsUndos);
    assert!(finding.problem.contains("takes effect after its undo"), "{finding:#?}");
}

#[test]
fn a_worker_that_forgets_outcomes_is_found() {
    let finding = found(Home::Elsewhere, FEW, InjectedBug::WorkerForgetsOutcomes);
    assert_eq!(finding.problem, "the effect of reserve is made twice");
    assert_eq!(finding.way.len(), 2, "{finding:#?}");
}

#[test]
fn an_engine_that_takes_every_reply_is_found() {
    let finding = found(Home::Elsewhere, FEW, InjectedBug::EngineTakesAnyReply);
    assert_eq!(finding.problem, "the saga has ended, but the effect of reserve is left behind");
}

#[test]
fn a_service_that_commits_apart_from_the_saga_is_found() {
    let crash = Bounds { crashes: 1, ..FEW };
    let finding = found(Home::Inside, crash, InjectedBug::WorkerCommitsApart);
    assert_eq!(finding.problem, "the effect of reserve is made twice");
}

#[test]
fn an_engine_that_never_looks_is_found() {
    let finding = found(Home::Inside, FEW, InjectedBug::EngineNeverSweeps);
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
fn every_act_of_an_operator_leads_to_an_end() {
    let acts = Bounds { losses: 0, duplicates: 0, acts: 1, ..FEW };
    let walked = walk(&booking(), Home::Elsewhere, acts, None);
    assert!(walked.finding.is_none(), "{walked:#?}");
}

#[test]
fn reduction_changes_no_verdict() {
    let few = Bounds { losses: 0, returns: 0, ..FEW };
    for (definition, home) in [(booking(), Home::Inside), (cancellation(), Home::Elsewhere)] {
        let mut plain = Model::of(&definition, home, few, None);
        plain.reduced = false;
        let checker = plain.checker().threads(2).spawn_bfs().join();
        assert!(checker.discovery(model::RULE).is_none());
        let reduced = walk(&definition, home, few, None);
        assert!(reduced.finding.is_none() && reduced.states < checker.unique_state_count());
    }
}
