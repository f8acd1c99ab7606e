//! What another version of a workflow would mean for a saga that is under way. Sagas keep the version that they began
//! with; this is for whoever wants to know before the old one goes.

use super::definition::{Deadline, Definition, Step, Work};
use super::state::Direction;

/// One difference that matters to a saga at a step.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The step that differs.
    pub step: String,
    /// What differs, in words.
    pub what: String,
    /// The saga could not go on with the other version: there is no such step, or another one at its place.
    pub breaks: bool,
}

/// What differs for a saga that stands at `step` in `direction`, if it went on with `new` instead of `old`: the step
/// itself, the steps ahead of it, and the undos of those behind it.
pub fn compare(old: &Definition, new: &Definition, step: &str, direction: Direction) -> Vec<Change> {
    let Some(here) = old.index(step) else {
        return vec![Change {
            step: step.to_owned(),
            what: "the step is in neither".to_owned(),
            breaks: true,
        }];
    };
    let Some(there) = new.index(step) else {
        return vec![Change { step: step.to_owned(), what: "the step is gone".to_owned(), breaks: true }];
    };
    let mut changes = Vec::new();
    let mut note = |step: &Step, what: String, breaks: bool| {
        changes.push(Change { step: step.name.clone(), what, breaks });
    };
    let at = &old.steps[here];
    let ahead = match direction {
        Direction::Do => &old.steps[here..],
        Direction::Undo => &[],
    };
    for was in ahead {
        match new.index(&was.name).map(|index| &new.steps[index]) {
            None => note(was, "the step is gone".to_owned(), false),
            Some(is) => forward(was, is, |what, breaks| note(was, what, breaks && was.name == at.name)),
        }
    }
    for was in &old.steps[..=here] {
        match new.index(&was.name).map(|index| &new.steps[index]) {
            None if was.undo.is_some() => note(was, "the step is gone, and so is its undo".to_owned(), true),
            Some(is) if was.undo != is.undo => {
                note(was, changed("its undo", was.undo.as_deref(), is.undo.as_deref()), is.undo.is_none());
            }
            _ => {}
        }
    }
    for is in &new.steps[..there] {
        if old.index(&is.name).is_none() {
            note(is, "a new step comes before: it would not be done".to_owned(), false);
        }
    }
    if direction == Direction::Do {
        for is in new.steps[there..].iter().filter(|is| old.index(&is.name).is_none()) {
            note(is, "a new step is ahead".to_owned(), false);
        }
    }
    if old.can_turn_back(here) && !new.can_turn_back(there) {
        note(at, "there is no way back from here any more".to_owned(), false);
    }
    changes
}

fn forward(was: &Step, is: &Step, mut note: impl FnMut(String, bool)) {
    match (was.work(), is.work()) {
        (Work::Command { command: before, .. }, Work::Command { command: after, .. }) if before != after => {
            note(changed("its command", Some(before), Some(after)), false);
        }
        (Work::Wait { signal: before }, Work::Wait { signal: after }) if before != after => {
            note(changed("its signal", Some(before), Some(after)), false);
        }
        (Work::Command { .. }, Work::Wait { .. }) => note("it is a wait now".to_owned(), true),
        (Work::Wait { .. }, Work::Command { .. }) => note("it is a command now".to_owned(), true),
        _ => {}
    }
    let (before, after) = (told(was.deadline.as_ref()), told(is.deadline.as_ref()));
    if before != after {
        note(changed("its deadline", before.as_deref(), after.as_deref()), false);
    }
    if was.skip_if != is.skip_if {
        note("it is passed over in other cases".to_owned(), false);
    }
    if was.back_to != is.back_to {
        note("it leads back in other cases".to_owned(), false);
    }
}

fn changed(what: &str, before: Option<&str>, after: Option<&str>) -> String {
    match (before, after) {
        (Some(before), Some(after)) => format!("{what} changes from {before} to {after}"),
        (None, Some(after)) => format!("{what} is new: {after}"),
        (before, None) => format!("{what} is gone: {}", before.unwrap_or_default()),
    }
}

fn told(deadline: Option<&Deadline>) -> Option<String> {
    let deadline = deadline?;
    Some(match (&deadline.at, deadline.seconds) {
        (Some(field), _) => field.clone(),
        (None, seconds) => format!("{} s", seconds.unwrap_or_default()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn booking() -> Definition {
        crate::samples::workflow("booking")
    }

    fn told(new: &Definition, step: &str, direction: Direction) -> Vec<(String, bool)> {
        let changes = compare(&booking(), new, step, direction);
        changes
            .into_iter()
            .map(|change| (format!("{}: {}", change.step, change.what), change.breaks))
            .collect()
    }

    #[test]
    fn the_same_steps_mean_nothing_new() {
        let mut new = booking();
        new.version = 2;
        new.steps[0].timeout_ms = 1;
        for step in ["reserve", "await_payment", "confirm"] {
            assert!(told(&new, step, Direction::Do).is_empty());
        }
    }

    #[test]
    fn a_step_that_is_gone_breaks_only_those_that_stand_there() {
        let mut new = booking();
        new.steps.remove(3);
        assert_eq!(told(&new, "confirm", Direction::Do), [("confirm: the step is gone".to_owned(), true)]);
        assert_eq!(told(&new, "pay", Direction::Do), [("confirm: the step is gone".to_owned(), false)]);
        assert!(told(&new, "pay", Direction::Undo).is_empty());
    }

    #[test]
    fn an_undo_that_changes_matters_to_whoever_has_done_the_step() {
        let mut new = booking();
        new.steps[2].undo = Some("points.return".to_owned());
        let change = "pay: its undo changes from points.refund to points.return".to_owned();
        assert_eq!(told(&new, "confirm", Direction::Do), [(change.clone(), false)]);
        assert_eq!(told(&new, "pay", Direction::Undo), [(change, false)]);
        assert!(told(&new, "reserve", Direction::Do).is_empty());
        new.steps[2].undo = None;
        let gone = told(&new, "confirm", Direction::Undo);
        assert_eq!(gone, [("pay: its undo is gone: points.refund".to_owned(), true)]);
    }

    #[test]
    fn what_changes_ahead_is_told() {
        let mut new = booking();
        new.steps[1].deadline.as_mut().unwrap().at = Some("claimable_at".to_owned());
        new.steps[2].command = Some("cards.charge".to_owned());
        let mut gift = new.steps[3].clone();
        gift.name = "gift".to_owned();
        new.steps.push(gift);
        assert_eq!(
            told(&new, "reserve", Direction::Do).into_iter().map(|(what, _)| what).collect::<Vec<_>>(),
            [
                "await_payment: its deadline changes from expires_at to claimable_at",
                "pay: its command changes from points.deduct to cards.charge",
                "gift: a new step is ahead",
            ]
        );
    }
}
