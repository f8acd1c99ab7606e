//! Compares two versions of a workflow for a saga that is under way. A saga keeps the version that it started with; the
//! comparison shows what would change if the old version were removed.

use super::definition::{Deadline, Definition, Step, Work};
use super::state::Direction;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    pub step: String,
    pub what: String,
    /// The saga could not continue with the new version.
    pub breaks: bool,
}

/// What changes for a saga at `step` in `direction` if it continues with `new` instead of `old`: this step, the later
/// steps, and the undos of the earlier ones.
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
    if old.can_compensate(here) && !new.can_compensate(there) {
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
    let (before, after) = (describe(was.deadline.as_ref()), describe(is.deadline.as_ref()));
    if before != after {
        note(changed("its deadline", before.as_deref(), after.as_deref()), false);
    }
    if was.group != is.group {
        note(changed("its group", was.group.as_deref(), is.group.as_deref()), true);
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

fn describe(deadline: Option<&Deadline>) -> Option<String> {
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

    fn changes(new: &Definition, step: &str, direction: Direction) -> Vec<(String, bool)> {
        compare(&booking(), new, step, direction)
            .into_iter()
            .map(|change| (format!("{}: {}", change.step, change.what), change.breaks))
            .collect()
    }

    #[test]
    fn same_steps_change_nothing() {
        let mut new = booking();
        new.version = 2;
        new.steps[0].timeout_ms = 1;
        for step in ["reserve", "await_payment", "confirm"] {
            assert!(changes(&new, step, Direction::Do).is_empty());
        }
    }

    #[test]
    fn removed_step_breaks_only_sagas_at_it() {
        let mut new = booking();
        new.steps.remove(3);
        assert_eq!(changes(&new, "confirm", Direction::Do), [("confirm: the step is gone".to_owned(), true)]);
        assert_eq!(changes(&new, "pay", Direction::Do), [("confirm: the step is gone".to_owned(), false)]);
        assert!(changes(&new, "pay", Direction::Undo).is_empty());
    }

    #[test]
    fn changed_undo_matters_only_after_its_step() {
        let mut new = booking();
        new.steps[2].undo = Some("points.return".to_owned());
        let change = "pay: its undo changes from points.refund to points.return".to_owned();
        assert_eq!(changes(&new, "confirm", Direction::Do), [(change.clone(), false)]);
        assert_eq!(changes(&new, "pay", Direction::Undo), [(change, false)]);
        assert!(changes(&new, "reserve", Direction::Do).is_empty());
        new.steps[2].undo = None;
        let gone = changes(&new, "confirm", Direction::Undo);
        assert_eq!(gone, [("pay: its undo is gone: points.refund".to_owned(), true)]);
    }

    #[test]
    fn later_changes_are_listed() {
        let mut new = booking();
        new.steps[1].deadline.as_mut().unwrap().at = Some("claimable_at".to_owned());
        new.steps[2].command = Some("cards.charge".to_owned());
        let mut gift = new.steps[3].clone();
        gift.name = "gift".to_owned();
        new.steps.push(gift);
        assert_eq!(
            changes(&new, "reserve", Direction::Do).into_iter().map(|(what, _)| what).collect::<Vec<_>>(),
            [
                "await_payment: its deadline changes from expires_at to claimable_at",
                "pay: its command changes from points.deduct to cards.charge",
                "gift: a new step is ahead",
            ]
        );
    }
}
