//! Fewer states for the same answer: what can no longer make a difference is evened out.
//!
//! - An answer to what the saga has left behind can only make the engine publish again what the row asks for. All
//!   such answers are one echo. What was left behind stays so: visits only rise, and within a visit a saga only
//!   goes forward, then back.
//! - A command that its worker would not work on any more is gone, or an echo if it would still be answered.
//! - Which send of a visit a message belongs to matters only as far as it is the last one or not.
//! - Which visit is which matters only as far as one is before another.
//! - What a worker remembers of a step matters as long as a command for that step is under way or may come.
//! - Deadlines matter as long as something can still be done, not undone.
//!
//! A model with a flaw keeps every message: its fence may take what a sound one has done with. A test compares the
//! verdicts with and without.

use std::sync::Arc;

use super::setting::Model;
use super::workers::Ruling;
use super::world::{Answer, Asked, Flying, Left, Place, World};
use crate::saga::{Direction, Status};

impl Model {
    /// Evens out what can be told apart no more.
    pub(super) fn be_thrifty(&self, world: &mut World) {
        if !self.thrifty || world.fault.is_some() {
            return;
        }
        self.drop_messages(world);
        forget_sends(world);
        self.forget_memories(world);
        let may_do = world.saga.direction == Direction::Do || flying_do(world, None);
        if !may_do && world.passed < self.small.last_deadline() {
            self.pass(world, self.small.last_deadline());
        }
        if self.is_over(world) {
            world.left = Left::default();
        }
        if !self.may_return(world) {
            world.left.returns = 0;
        }
        number_visits(world);
    }

    fn drop_messages(&self, world: &mut World) {
        let mut echo = false;
        let worths: Vec<Worth> = world.bus.iter().map(|message| self.worth(world, *message)).collect();
        let mut worths = worths.into_iter();
        world.bus.retain(|_| {
            let worth = worths.next().unwrap_or(Worth::Itself);
            echo |= worth == Worth::Echo;
            worth == Worth::Itself
        });
        if echo {
            world.send(Flying::Echo);
        }
    }

    fn worth(&self, world: &World, message: Flying) -> Worth {
        match message {
            Flying::Reply(asked, answer) if is_past(world, asked) || is_outdated(world, asked, answer) => {
                Worth::Echo
            }
            Flying::Command(asked) if is_past(world, asked) => match self.ruling(world, asked) {
                // In the engine's database the row itself is asked, and answers with what it asks for now.
                Ruling::Ignore if !self.is_elsewhere() => Worth::Echo,
                Ruling::Ignore => Worth::Nothing,
                Ruling::Repeat(_) => Worth::Echo,
                _ => Worth::Itself,
            },
            Flying::Echo | Flying::Signal(_) if self.is_over(world) => Worth::Nothing,
            Flying::Signal(_) if !self.may_wait(world) => Worth::Echo,
            _ => Worth::Itself,
        }
    }

    /// A step that is not entered again needs no memory once no command for it is under way.
    fn forget_memories(&self, world: &mut World) {
        let again = self.entered_again(world);
        for step in 0..world.places.len() as u8 {
            let flying = world.bus.iter().any(|message| match message {
                Flying::Command(asked) | Flying::Reply(asked, _) => asked.step == step,
                _ => false,
            });
            if !flying && again.is_none_or(|again| step < again) && (step != world.step || again.is_none()) {
                let Place { effect, unsure, excused, .. } = world.places[usize::from(step)];
                world.places[usize::from(step)] = Place { effect, unsure, excused, ..Place::default() };
            }
        }
    }

    /// Whether a rejection may still lead back to a wait.
    fn may_return(&self, world: &World) -> bool {
        let ahead = self.entered_again(world).map(|first| &self.small.definition.steps[usize::from(first)..]);
        ahead.is_some_and(|steps| steps.iter().any(|step| !step.back_to.is_empty()))
    }

    fn may_wait(&self, world: &World) -> bool {
        let steps = &self.small.definition.steps;
        self.entered_again(world)
            .is_some_and(|first| steps[usize::from(first)..].iter().any(|step| step.wait.is_some()))
    }

    /// The first step that may still be done; none once the saga only undoes.
    fn entered_again(&self, world: &World) -> Option<u8> {
        let definition = &self.small.definition;
        let here = usize::from(world.step);
        let ahead = definition.steps[here..].iter().flat_map(|step| step.back_to.values());
        let back = ahead.filter_map(|wait| definition.index(wait)).min().unwrap_or(here);
        (world.saga.direction == Direction::Do).then_some(back.min(here) as u8)
    }
}

#[derive(PartialEq)]
enum Worth {
    Itself,
    Echo,
    Nothing,
}

/// Sends of this visit: 1 is the last, 0 are those before; if there are none before, the last is 0.
fn forget_sends(world: &mut World) {
    let last = world.saga.send;
    let commands = |message: &Flying| matches!(message, Flying::Command(_));
    let (moving, mut bus): (Vec<Flying>, Vec<Flying>) =
        std::mem::take(&mut world.bus).into_iter().partition(commands);
    let is_old = |message: &Flying| matches!(message, Flying::Command(asked) if world.asks_for(*asked) && i32::from(asked.send) < last);
    let newest = u8::from(moving.iter().any(is_old));
    for message in &mut bus {
        if let Flying::Reply(asked, answer) = message {
            let counts = matches!(answer, Answer::Failed | Answer::Unknown);
            asked.send = if counts { newest } else { 0 };
        }
    }
    if world.saga.send != i32::from(newest) {
        Arc::make_mut(&mut world.saga).send = newest.into();
    }
    for message in moving {
        if let Flying::Command(mut asked) = message {
            let old = is_old_copy(world, asked, last);
            asked.send = if old { 0 } else { newest };
            if !world.asks_for(asked) {
                asked.by = 0;
            }
            bus.push(Flying::Command(asked));
        }
    }
    bus.sort_unstable();
    bus.dedup();
    world.bus = bus;
}

/// Visits are only compared: those that are still named are numbered anew, from 1.
fn number_visits(world: &mut World) {
    let mut named = vec![world.saga.visit as u8];
    for message in &world.bus {
        if let Flying::Command(asked) | Flying::Reply(asked, _) = message {
            named.push(asked.visit);
        }
    }
    for place in &world.places {
        named.extend([place.visit, place.undone, place.truly_undone]);
    }
    named.sort_unstable();
    named.dedup();
    let gaps = usize::from(named[0] == 0);
    if usize::from(named[named.len() - 1]) == named.len() - gaps {
        return;
    }
    let number = |visit: u8| match visit {
        0 => 0,
        visit => (named.partition_point(|other| *other < visit) + 1 - gaps) as u8,
    };
    Arc::make_mut(&mut world.saga).visit = number(world.saga.visit as u8).into();
    for message in &mut world.bus {
        if let Flying::Command(asked) | Flying::Reply(asked, _) = message {
            asked.visit = number(asked.visit);
        }
    }
    for place in &mut world.places {
        (place.visit, place.undone, place.truly_undone) =
            (number(place.visit), number(place.undone), number(place.truly_undone));
    }
    world.bus.sort_unstable();
}

fn is_old_copy(world: &World, asked: Asked, last: i32) -> bool {
    !world.asks_for(asked) || i32::from(asked.send) < last
}

fn flying_do(world: &World, step: Option<u8>) -> bool {
    world.bus.iter().any(|message| {
        matches!(message, Flying::Command(asked) if !asked.undo && step.is_none_or(|step| step == asked.step))
    })
}

/// Whether the saga has left behind what this fence says, for good.
pub(super) fn is_past(world: &World, asked: Asked) -> bool {
    let saga = &world.saga;
    let visit = i32::from(asked.visit);
    if visit != saga.visit || saga.status.is_end() {
        return visit < saga.visit || saga.status.is_end();
    }
    // A stuck saga goes on with a new visit, or the other way.
    let stuck_here = saga.status == Status::Stuck && asked.step == world.step;
    match (saga.direction, asked.undo) {
        (Direction::Undo, false) => true,
        (Direction::Undo, true) => asked.step > world.step || stuck_here,
        (Direction::Do, _) => asked.step < world.step || stuck_here,
    }
}

/// A second no to an earlier send says nothing about the one that is out, now or later.
fn is_outdated(world: &World, asked: Asked, answer: Answer) -> bool {
    let saga = &world.saga;
    world.asks_for(asked)
        && matches!(answer, Answer::Failed | Answer::Unknown)
        && (saga.backing_off || i32::from(asked.send) < saga.send)
}
