//! The members of a group of parallel steps in a transition: what is done with each of them, and which one the row has afterwards.

use std::borrow::Cow;

use super::TransitionBuilder;
use crate::delay::reply_timeout;
use crate::group::{focused, open_steps, running_group};
use crate::members::MemberState;
use crate::state::Status;

impl TransitionBuilder<'_> {
    /// Does the same with the saga's step, or with each open member of its group.
    pub(super) fn each_open(&mut self, act: impl Fn(&mut Self)) {
        for index in open_steps(self.definition, &self.saga) {
            self.focus(index);
            act(self);
        }
    }

    /// Puts this open member of the group into the row.
    pub(crate) fn focus(&mut self, index: usize) {
        if let Some(Cow::Owned(saga)) = focused(self.definition, &self.saga, index) {
            self.saga = saga;
        }
    }

    /// Sends the commands of all open members again in the same visit; outside of a group the current command.
    pub(crate) fn resend_all(&mut self) {
        self.each_open(Self::resend);
    }

    /// Marks a member as rejected, so that its undo is left out.
    pub(crate) fn reject_member(&mut self, index: usize) {
        if let Some(group) = running_group(self.definition, &self.saga)
            && self.definition.can_compensate(index)
        {
            self.saga.close_member(self.definition, &group, index, MemberState::Rejected);
        }
    }

    /// Lets a group continue whose stuck member was completed by hand.
    pub(crate) fn resume_group(&mut self) {
        self.saga.status = Status::Running;
        self.saga.stuck_since = None;
        self.resend_all();
    }

    /// The row of a running saga has the open member that is due first.
    pub(super) fn put_earliest_into_row(&mut self) {
        if self.saga.status != Status::Running || running_group(self.definition, &self.saga).is_none() {
            return;
        }
        let mut saga = self.saga.clone();
        saga.put_earliest_into_row(self.definition, |index, member| {
            let step = &self.definition.steps[index];
            let resend_at = member.since + reply_timeout(step.timeout_ms, member.send);
            self.at_latest_at_deadline_of(step, resend_at)
        });
        self.saga = saga;
    }

    /// The steps that are due: this one, or the open members of its group whose due time has come.
    pub(crate) fn due_steps(&mut self, index: usize) -> Vec<usize> {
        if running_group(self.definition, &self.saga).is_none() {
            return vec![index];
        }
        self.put_earliest_into_row();
        let due = |index: &usize| {
            let saga = focused(self.definition, &self.saga, *index);
            saga.is_some_and(|saga| saga.due_at.is_some_and(|due| due <= self.now))
        };
        open_steps(self.definition, &self.saga).into_iter().filter(due).collect()
    }
}
