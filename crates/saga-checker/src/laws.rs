//! Tests of the checker: correct workflows pass, each injected bug is found, and the reduction changes no verdict.

use super::actions::Model;
use super::*;
use saga_core::Definition;
use stateright::{Checker, Model as _};

const SMALL_BOUNDS: Bounds = Bounds { crashes: 0, losses: 1, duplicates: 1, acts: 0, returns: 1 };

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
fn built_in_workflows_pass() {
    for definition in [booking(), cancellation()] {
        let some = Bounds { acts: 1, ..SMALL_BOUNDS };
        for (home, bounds) in [(Home::Elsewhere, SMALL_BOUNDS), (Home::Inside, Bounds { crashes: 1, ..some })]
        {
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
fn worker_without_undo_records_is_found() {
    let finding = found(Home::Elsewhere, SMALL_BOUNDS, InjectedBug::WorkerForgetsUndos);
    assert!(finding.problem.contains("takes effect after its undo"), "{finding:#?}");
}

#[test]
fn worker_without_outcome_records_is_found() {
    let finding = found(Home::Elsewhere, SMALL_BOUNDS, InjectedBug::WorkerForgetsOutcomes);
    assert_eq!(finding.problem, "the effect of reserve is made twice");
    assert_eq!(finding.way.len(), 2, "{finding:#?}");
}

#[test]
fn engine_that_accepts_every_reply_is_found() {
    let finding = found(Home::Elsewhere, SMALL_BOUNDS, InjectedBug::EngineTakesAnyReply);
    assert_eq!(finding.problem, "the saga has ended, but the effect of reserve is left behind");
}

#[test]
fn effect_committed_before_the_saga_is_found() {
    let crash = Bounds { crashes: 1, ..SMALL_BOUNDS };
    let finding = found(Home::Inside, crash, InjectedBug::WorkerCommitsApart);
    assert_eq!(finding.problem, "the effect of reserve is made twice");
}

#[test]
fn engine_without_a_sweeper_is_found() {
    let finding = found(Home::Inside, SMALL_BOUNDS, InjectedBug::EngineNeverSweeps);
    assert!(finding.problem.contains("no end"), "{finding:#?}");
    assert_eq!(finding.way, ["worker: do reserve (visit 1) -> failed, pauses before reserve"]);
}

#[test]
fn missing_undo_before_a_rejectable_step_is_found() {
    let text = "name='t'\nversion=1\n[[steps]]\nname='a'\ncommand='x.y'\n[[steps]]\nname='b'\ncommand='x.z'\nundo='x.u'";
    let report = check(&Definition::parse("t", text).unwrap(), SMALL_BOUNDS);
    let finding = report.walks[0].finding.as_ref().unwrap();
    assert_eq!(finding.problem, "the saga has ended, but the effect of a is left behind");
}

#[test]
fn every_operator_action_leads_to_an_end() {
    let acts = Bounds { losses: 0, duplicates: 0, acts: 1, ..SMALL_BOUNDS };
    let walked = walk(&booking(), Home::Elsewhere, acts, None);
    assert!(walked.finding.is_none(), "{walked:#?}");
}

#[test]
fn check_that_is_cut_off_is_not_good() {
    let effort = Effort { states: Some(50), ..Effort::default() };
    let report = check_within(&booking(), SMALL_BOUNDS, effort);
    assert!(!report.is_good() && report.finding().is_none(), "{report:#?}");
    assert!(report.walks.iter().all(|walk| !walk.finished && walk.states < 5_000), "{report:#?}");
}

#[test]
fn reduction_changes_no_verdict() {
    let few = Bounds { losses: 0, returns: 0, ..SMALL_BOUNDS };
    for (definition, home) in [(booking(), Home::Inside), (cancellation(), Home::Elsewhere)] {
        check_reduction(&definition, home, few);
    }
}

/// The workflow is good with the reduction and without it, and the reduction saves states.
fn check_reduction(definition: &Definition, home: Home, bounds: Bounds) {
    let mut plain = Model::of(definition, home, bounds, None);
    plain.reduced = false;
    let checker = plain.checker().threads(2).spawn_bfs().join();
    assert!(checker.discovery(model::PROPERTY).is_none());
    let reduced = walk(definition, home, bounds, None);
    assert!(reduced.finding.is_none() && reduced.states < checker.unique_state_count());
}

/// A group of these members between two steps. Each member is a line of TOML.
fn with_group(members: &[&str]) -> Definition {
    let members: Vec<String> = members.iter().map(|member| format!("{{ {member} }}")).collect();
    let text = format!(
        "name='t'\nversion=1\n[[steps]]\nname='both'\nparallel=[{}]\n[[steps]]\nname='end'\ncommand='x.end'\nundo='x.unend'",
        members.join(", ")
    );
    Definition::parse("t", &text).unwrap()
}

const A: &str = "name='a', command='x.a', undo='x.una'";
const B: &str = "name='b', command='x.b', undo='x.unb', deadline={seconds=60, reason='late'}";

#[test]
fn group_of_parallel_steps_passes() {
    for (home, bounds) in [
        (Home::Elsewhere, Bounds { duplicates: 0, returns: 0, ..SMALL_BOUNDS }),
        (Home::Inside, Bounds { crashes: 1, losses: 0, duplicates: 0, acts: 1, returns: 0 }),
    ] {
        let walked = walk(&with_group(&[A, B]), home, bounds, None);
        assert!(walked.finding.is_none() && walked.finished, "{walked:#?}");
    }
}

#[test]
fn missing_undo_inside_a_group_is_found() {
    for (members, leak) in [(["name='a', command='x.a'", B], "a"), ([A, "name='b', command='x.b'"], "b")] {
        let report = check(&with_group(&members), SMALL_BOUNDS);
        let finding = report.finding().unwrap();
        let problem = format!("the saga has ended, but the effect of {leak} is left behind");
        assert_eq!(finding.problem, problem, "{finding:#?}");
        assert!(finding.way.len() <= 5, "{finding:#?}");
    }
}

#[test]
fn missing_undo_inside_a_large_group_is_found() {
    let members = [
        A,
        "name='c', command='x.c', undo='x.unc'",
        "name='d', command='x.d'",
        "name='e', command='x.e', undo='x.une'",
    ];
    let effort = Effort { states: Some(100_000), ..Effort::default() };
    let few = Bounds { crashes: 0, losses: 0, duplicates: 0, acts: 0, returns: 0 };
    let report = check_within(&with_group(&members), few, effort);
    assert_eq!(report.walks.len(), 6, "three pairs differ, in two places: {report:#?}");
    assert!(report.walks.iter().all(|walk| walk.finished));
    let leaks: Vec<Vec<String>> =
        report.walks.iter().filter(|walk| walk.finding.is_some()).map(|walk| walk.members.clone()).collect();
    assert_eq!(leaks, [["a", "d"], ["d", "e"], ["a", "d"], ["d", "e"]], "{report:#?}");
}

#[test]
fn reduction_changes_no_verdict_about_a_group() {
    let few = Bounds { losses: 0, duplicates: 0, returns: 0, ..SMALL_BOUNDS };
    let definition = with_group(&[A, "name='b', command='y.b', undo='y.unb'"]);
    for home in [Home::Inside, Home::Elsewhere] {
        check_reduction(&definition, home, few);
    }
}
