//! Groups of steps that run in parallel. The members of a group are steps that follow each other in the definition; a saga that
//! enters the group sends all their commands at once, and goes on when all members are done.
//!
//! The saga's row describes one open member, the one that is due first: its step, attempt, send and due time. [`Members`] has the
//! others. A decision about another member first puts that member into the row ([`focused`]), so that the same code decides about a
//! member as about a step outside of a group.

use std::borrow::Cow;
use std::ops::Range;

use chrono::{DateTime, Utc};

use super::definition::Definition;
use super::members::{Member, MemberState, Members};
use super::state::{Direction, Saga};

impl Definition {
    /// The positions of the group that this step is a member of; `None` if it is in no group.
    pub fn group(&self, index: usize) -> Option<Range<usize>> {
        let name = self.steps.get(index)?.group.as_ref()?;
        let is_member = |index: &usize| self.steps[*index].group.as_ref() == Some(name);
        let start = (0..=index).rev().take_while(is_member).last()?;
        let end = (index..self.steps.len()).take_while(is_member).last()? + 1;
        Some(start..end)
    }
}

/// The group that the saga runs forward; `None` outside of a group.
pub(super) fn running_group(definition: &Definition, saga: &Saga) -> Option<Range<usize>> {
    let here = definition.index(&saga.step).filter(|_| saga.direction == Direction::Do)?;
    definition.group(here)
}

/// The members of the group at these positions, the one in the row included.
pub(super) fn members(definition: &Definition, saga: &Saga, group: &Range<usize>) -> Vec<Member> {
    let row = of_row(saga);
    let mut all = saga.members.0.clone();
    all.resize(group.len(), row);
    let here = definition.index(&saga.step).and_then(|here| here.checked_sub(group.start));
    if let Some(member) = here.and_then(|here| all.get_mut(here))
        && member.state == MemberState::Open
    {
        *member = row;
    }
    all
}

/// What the row says about its step, as a member.
fn of_row(saga: &Saga) -> Member {
    let Saga { attempt, send, since, backing_off, due_at, .. } = *saga;
    Member { state: MemberState::Open, attempt, send, since, backing_off, due_at }
}

/// The positions of the steps that the saga is at: its step, or the open members of its group.
pub fn open_steps(definition: &Definition, saga: &Saga) -> Vec<usize> {
    match running_group(definition, saga) {
        None => definition.index(&saga.step).into_iter().collect(),
        Some(group) => {
            let members = members(definition, saga, &group);
            let open =
                |(index, member): (usize, Member)| (member.state == MemberState::Open).then_some(index);
            group.zip(members).filter_map(open).collect()
        }
    }
}

/// The saga with this step in its row. `None` if the saga is not at the step.
pub fn focused<'a>(definition: &Definition, saga: &'a Saga, index: usize) -> Option<Cow<'a, Saga>> {
    let Some(group) = running_group(definition, saga) else {
        return (definition.index(&saga.step)? == index).then_some(Cow::Borrowed(saga));
    };
    let members = members(definition, saga, &group);
    let member = *members.get(index.checked_sub(group.start)?)?;
    if member.state != MemberState::Open {
        return None;
    }
    let mut saga = saga.clone();
    saga.members = Members(members);
    put_into_row(definition, &mut saga, index, member);
    Some(Cow::Owned(saga))
}

/// Whether the saga runs a group that this step is a member of. A repeated message about such a step needs no command to be published
/// again: what it did the first time published none, as other members were open.
pub fn is_in_running_group(definition: &Definition, saga: &Saga, step: &str) -> bool {
    let index = definition.index(step);
    let group = running_group(definition, saga);
    index.is_some_and(|index| group.is_some_and(|group| group.contains(&index)))
}

/// Whether a member of the group that the saga is at was rejected.
pub(super) fn is_rejected(definition: &Definition, saga: &Saga, index: usize) -> bool {
    let here = definition.index(&saga.step);
    let group = here.and_then(|here| definition.group(here)).filter(|group| group.contains(&index));
    let member = group.and_then(|group| saga.members.0.get(index - group.start));
    member.is_some_and(|member| member.state == MemberState::Rejected)
}

fn put_into_row(definition: &Definition, saga: &mut Saga, index: usize, member: Member) {
    let Member { attempt, send, since, backing_off, due_at, .. } = member;
    definition.steps[index].name.clone_into(&mut saga.step);
    (saga.attempt, saga.send, saga.since) = (attempt, send, since);
    (saga.backing_off, saga.due_at) = (backing_off, due_at);
}

impl Saga {
    /// Starts the group at these positions: every member stands as the row does, and has no due time yet.
    pub(super) fn begin_members(&mut self, group: &Range<usize>) {
        self.due_at = None;
        self.members = Members(vec![of_row(self); group.len()]);
    }

    /// Starts a new visit of the open members.
    pub(super) fn begin_open_members(&mut self, definition: &Definition) {
        let Some(group) = running_group(definition, self) else { return };
        let mut all = members(definition, self, &group);
        self.due_at = None;
        let row = of_row(self);
        all.iter_mut().filter(|member| member.state == MemberState::Open).for_each(|member| *member = row);
        self.members = Members(all);
    }

    /// Closes a member. Returns whether others are open; then the row has one of them.
    pub(super) fn close_member(
        &mut self,
        definition: &Definition,
        group: &Range<usize>,
        index: usize,
        state: MemberState,
    ) -> bool {
        let mut all = members(definition, self, group);
        all[index - group.start].state = state;
        let open = all.iter().position(|member| member.state == MemberState::Open);
        if let Some(open) = open {
            put_into_row(definition, self, group.start + open, all[open]);
        }
        self.members = Members(all);
        open.is_some()
    }

    /// Keeps of the members only which of them were rejected.
    pub(super) fn keep_rejected_members(&mut self) {
        let has_rejected = self.members.iter().any(|member| member.state == MemberState::Rejected);
        if !has_rejected {
            return self.members.clear();
        }
        let since = self.updated_at;
        for member in self.members.iter_mut() {
            let state = member.state;
            *member = Member { state, attempt: 0, send: 0, since, backing_off: false, due_at: None };
        }
    }

    /// Puts the open member into the row that is due first. An open member without a due time gets the one of `due_at`, unless the
    /// saga is in a flight or paused.
    pub fn put_earliest_into_row(
        &mut self,
        definition: &Definition,
        due_at: impl Fn(usize, &Member) -> DateTime<Utc>,
    ) {
        let Some(group) = running_group(definition, self) else { return };
        let mut all = members(definition, self, &group);
        let needs_due_time = self.flight.is_none() && !self.paused;
        for (index, member) in group.clone().zip(&mut all) {
            if needs_due_time && member.state == MemberState::Open && member.due_at.is_none() {
                member.due_at = Some(due_at(index, member));
            }
        }
        let open = all.iter().enumerate().filter(|(_, member)| member.state == MemberState::Open);
        let earliest = open.min_by_key(|(_, member)| (member.due_at.is_none(), member.due_at));
        let Some((at, member)) = earliest.map(|(at, member)| (at, *member)) else { return };
        let are_alike = all.iter().all(|other| *other == all[0]);
        put_into_row(definition, self, group.start + at, member);
        self.members = if are_alike { Members::default() } else { Members(all) };
    }
}
