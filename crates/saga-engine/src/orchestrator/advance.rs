//! The one writer of saga state: read the rows and the database's clock, apply, write rows and history.

use std::borrow::Cow;
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use saga_protocol::spans::{self, SpanContext};
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::Engine;
use super::dispatch::Effects;
use super::observations::Observations;
use super::rest::Rested;
use super::saga_spans;
use crate::saga::{
    self, Decision, Definition, Entry, Event, NewSaga, Saga, Status, Transition, WorkflowRegistry,
};
use crate::store;
use crate::store::codes::Codes;
use crate::store::flights;
use crate::store::tracked_rows::TrackedRows;
use crate::store::write_batch::WriteBatch;

/// Sagas as they were read, and what was decided about them since.
#[derive(Debug)]
pub struct Batch {
    /// The database's clock when they were read: the time that decides.
    pub now: DateTime<Utc>,
    sagas: TrackedRows<Uuid, Saga>,
    transitions: Vec<Transition>,
    observations: Observations,
    /// Sagas with stale messages, each with the step that its message is about; a signal is about none.
    stale: Vec<(Uuid, Option<String>)>,
    /// Sagas that have an alarm of their own now, and the flights that looked after them.
    left: Vec<Rested>,
    /// The flight of sagas that a signal wakes.
    flight: i64,
    /// When the work on the batch began, where spans are made.
    begun: Option<SystemTime>,
    /// The span that caused the next event.
    cause: Option<SpanContext>,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The saga moved.
    Moved,
    /// Twice, late, or not what the saga waits for: nothing changed.
    Stale,
    /// It cannot be, or there is no such saga: the caller parks the message.
    Illegal(String),
    /// The saga's definition cannot be read now: the saga waits, and is looked at again.
    Undefined(String),
}

impl Batch {
    /// Locks these sagas, in the order of their ids.
    pub async fn lock(engine: &Engine, conn: &mut PgConnection, ids: &[Uuid]) -> store::Result<Self> {
        let (sagas, now) = store::sagas::lock(&mut *conn, ids).await?;
        engine.learn(conn, &sagas).await?;
        Ok(Self::of(sagas, now))
    }

    /// Locks those of these sagas that are due, or will be within [`store::due::EARLY`].
    pub async fn lock_rung(engine: &Engine, conn: &mut PgConnection, ids: &[Uuid]) -> store::Result<Self> {
        let sagas = store::due::lock_rung(&mut *conn, ids).await?;
        engine.learn(&mut *conn, &sagas).await?;
        let now = store::now(conn).await?;
        Ok(Self::of(sagas, now))
    }

    /// Sagas as they were read, and the time that decides about them.
    pub fn of(sagas: Vec<Saga>, now: DateTime<Utc>) -> Self {
        let sagas = sagas.into_iter().map(|saga| (saga.id, saga)).collect();
        let flight = flights::new_id();
        let observations = Observations::default();
        Self {
            now,
            sagas,
            transitions: Vec::new(),
            observations,
            stale: Vec::new(),
            left: Vec::new(),
            flight,
            begun: spans::begin(),
            cause: None,
        }
    }

    /// The work on the batch began earlier than its rows were read: its spans begin then.
    pub(super) fn begun_at(&mut self, begun: Option<SystemTime>) {
        self.begun = begun;
    }

    /// The span that caused the next event, if it is known.
    pub(super) fn caused_by(&mut self, cause: Option<SpanContext>) {
        self.cause = cause;
    }

    /// The sagas' ids.
    pub fn ids(&self) -> Vec<Uuid> {
        self.sagas.iter().map(|(id, _)| *id).collect()
    }

    /// A saga as it stands by now.
    pub fn saga(&self, id: Uuid) -> Option<&Saga> {
        self.sagas.get(&id)
    }

    /// Lets an event happen to a saga. Several events of one saga take effect one after the other.
    pub fn apply(&mut self, registry: &WorkflowRegistry, id: Uuid, event: &Event) -> Verdict {
        let Some(saga) = self.sagas.get(&id) else {
            return Verdict::Illegal(format!("there is no saga {id}"));
        };
        let (flight, cause) = (saga.flight, self.cause.take());
        let woken = (matches!(event, Event::Signal(_)) && saga.status == Status::Waiting)
            .then(|| Saga { flight: Some(self.flight), ..saga.clone() });
        let saga = woken.as_ref().unwrap_or(saga);
        let definition = registry.get(&saga.workflow, saga.version);
        let decision = match &definition {
            Some(definition) => saga::apply(definition, saga, event, self.now),
            None => match saga::apply_undefined(saga, event, self.now) {
                Some(decision) => decision,
                None => return undefined(saga),
            },
        };
        match decision {
            Decision::Transition(transition) => {
                let seen = definition.as_ref().and_then(|definition| member_of(definition, saga, event));
                self.observations.note(seen.as_ref().unwrap_or(saga), event, &transition.saga, self.now);
                if let Some(begun) = self.begun {
                    let span = saga_spans::of_event(event, &transition, definition.as_deref(), begun, cause);
                    self.observations.trace(span);
                }
                if let Some(flight) = flight.filter(|_| transition.saga.flight.is_none()) {
                    self.left.push(Rested { saga: id, flight: Some(flight) });
                }
                self.sagas.replace(&id, transition.saga.clone());
                self.transitions.push(*transition);
                Verdict::Moved
            }
            Decision::Stale => Verdict::Stale,
            Decision::Illegal(why) => Verdict::Illegal(why),
        }
    }

    /// What belongs to the latest transition.
    pub(super) fn last_detail(&self) -> Option<&Value> {
        self.transitions.last()?.entry.as_ref()?.detail.as_ref()
    }

    /// A message about this saga came twice or late: a crash may have cut short what followed the first time, so
    /// what the row asks for is published again. A message about a member of the group that the saga still runs is not such a one:
    /// it would only multiply the commands of the other members.
    pub fn note_stale(&mut self, id: Uuid, step: Option<&str>) {
        self.stale.push((id, step.map(str::to_owned)));
    }

    /// Writes what was decided on a connection that has the locks; what follows is to be done after the commit.
    pub async fn write(self, conn: &mut PgConnection, engine: &Engine) -> store::Result<Effects> {
        let mut changes = WriteBatch::default();
        let effects = self.decided(&mut changes, engine);
        changes.write(conn).await?;
        Ok(effects)
    }

    /// What was decided is to be written with the rest; what follows is to be done after the commit.
    pub fn decided(self, changes: &mut WriteBatch, engine: &Engine) -> Effects {
        let Engine { codes, registry, .. } = engine;
        store::sagas::save(changes, codes, &self.sagas);
        record(changes, codes, &self.transitions);
        let joined = |(id, saga): (&Uuid, &Saga)| (saga.flight == Some(self.flight)).then_some(*id);
        let woken: Vec<Uuid> = self.sagas.iter().filter_map(joined).collect();
        flights::insert(changes, self.flight, &woken, self.now);
        let mut effects = Effects::of(registry, self.transitions);
        effects.observe(self.observations);
        effects.rest(self.left);
        for (id, step) in &self.stale {
            if let Some(saga) = self.sagas.get(id) {
                effects.repeat(registry, saga, step.as_deref());
            }
        }
        effects
    }
}

/// The saga with the member of its group in its row that a reply is about; `None` if its row has it.
fn member_of(definition: &Definition, saga: &Saga, event: &Event) -> Option<Saga> {
    let Event::Reply(reply) = event else { return None };
    if saga.members.is_empty() || reply.step == saga.step {
        return None;
    }
    saga::focused(definition, saga, definition.index(&reply.step)?).map(Cow::into_owned)
}

fn undefined(saga: &Saga) -> Verdict {
    let Saga { workflow, version, .. } = saga;
    Verdict::Undefined(format!(
        "the definition of {workflow} version {version} cannot be read; deploy it with `boxoffice workflow deploy`"
    ))
}

/// Starts sagas of a workflow's newest version: rows and their first history, to be written with the rest. `now` is the
/// database's clock.
///
/// # Errors
/// When there is no such workflow.
pub fn start(
    changes: &mut WriteBatch,
    engine: &Engine,
    workflow: &str,
    new: Vec<NewSaga>,
    now: DateTime<Utc>,
) -> store::Result<Effects> {
    let definition = engine.registry.latest(workflow).ok_or(sqlx::Error::RowNotFound)?;
    Ok(start_version(changes, engine, &definition, new, now))
}

/// Starts sagas of this version of a workflow.
pub(super) fn start_version(
    changes: &mut WriteBatch,
    engine: &Engine,
    definition: &Definition,
    new: Vec<NewSaga>,
    now: DateTime<Utc>,
) -> Effects {
    let Engine { codes, registry, .. } = engine;
    let flight = flights::new_id();
    let begun = new.into_iter().map(|new| saga::start_in(Some(flight), definition, new, now));
    let transitions: Vec<Transition> = begun.collect();
    let sagas: Vec<&Saga> = transitions.iter().map(|transition| &transition.saga).collect();
    store::sagas::insert(changes, codes, &sagas);
    record(changes, codes, &transitions);
    let flying: Vec<Uuid> = sagas.iter().filter(|saga| saga.flight.is_some()).map(|saga| saga.id).collect();
    flights::insert(changes, flight, &flying, now);
    let mut observations = Observations::default();
    sagas.iter().for_each(|saga| observations.note_start(saga));
    let mut effects = Effects::of(registry, transitions);
    effects.observe(observations);
    effects
}

/// What goes into the history, each with the saga as it then was.
fn record(changes: &mut WriteBatch, codes: &Codes, transitions: &[Transition]) {
    let entries = transitions.iter();
    let entries: Vec<(&Saga, &Entry)> =
        entries.filter_map(|transition| Some((&transition.saga, transition.entry.as_ref()?))).collect();
    store::history::record(changes, codes, &entries);
}
