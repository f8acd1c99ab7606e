//! The way back in a transition: compensation, step by step in reverse order.

use super::TransitionBuilder;
use crate::action::Action;
use crate::group::{is_rejected, running_group};
use crate::state::{Direction, Status};

impl TransitionBuilder<'_> {
    /// The step's deadline has passed: undoes every step that may have run, this one included.
    pub(crate) fn miss_deadline(&mut self, index: usize) {
        let deadline = self.definition.steps[index].deadline.as_ref();
        let reason = deadline.map_or("deadline", |deadline| deadline.reason.as_str());
        self.compensate(reason, Some(index));
    }

    /// Starts the compensation at step `from`; in a group at its last member. After the pivot a saga cannot compensate and becomes stuck.
    pub(crate) fn compensate(&mut self, reason: &str, from: Option<usize>) {
        let here = self.definition.index(&self.saga.step).unwrap_or(0);
        if !self.definition.can_compensate(here) {
            return self.become_stuck(reason);
        }
        let group = running_group(self.definition, &self.saga);
        self.saga.keep_rejected_members();
        self.saga.reason = Some(reason.to_owned());
        self.undo_from(group.map(|group| group.end - 1).or(from));
        if self.saga.status == Status::Compensating {
            self.actions.push(Action::Notify);
        }
    }

    /// Undoes the nearest step at or before `from` that has an undo. If there is none, the saga is compensated.
    pub(crate) fn undo_from(&mut self, from: Option<usize>) {
        let below = from.map_or(0, |from| from + 1);
        let (definition, saga) = (self.definition, &self.saga);
        let is_undoable =
            |index: &usize| definition.steps[*index].undo.is_some() && !is_rejected(definition, saga, *index);
        let next = (0..below).rev().find(is_undoable);
        let here = definition.index(&saga.step);
        let has_undone = self.saga.status == Status::Compensating;
        if next.and_then(|next| definition.group(next)) != here.and_then(|here| definition.group(here)) {
            self.saga.members.clear();
        }
        let Some(step) = next.map(|next| &definition.steps[next]) else {
            // If nothing was compensated, emit no event.
            if has_undone {
                self.announce_end();
            }
            return self.end(Status::Compensated, has_undone && self.definition.announces_anything());
        };
        self.set_step(&step.name, Direction::Undo);
        self.saga.status = Status::Compensating;
        // A pause stops only forward steps.
        self.saga.paused = false;
        self.send();
    }

    /// Lets a stuck undo continue, with the reason for which the saga started to compensate.
    pub(crate) fn resume_compensation(&mut self) {
        if self.saga.status == Status::Stuck {
            let rejection = self.saga.rejection.as_ref();
            self.saga.reason = rejection.and_then(|why| Some(why["code"].as_str()?.to_owned()));
            self.saga.status = Status::Compensating;
        }
    }
}
