//! Reads the facts about a saga's next transition: its row, its definition, pauses, parked messages, and what NATS knows.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::events;
use crate::bus::{Bus, consumers, presence};
use crate::operations::pauses::{self, PauseView};
use crate::operations::{AskError, SagaView};
use crate::saga::{self, Definition, Direction, Saga, Work, WorkflowRegistry};
use crate::store;

/// Parked messages are counted up to so many.
const PARKED_MAX: i64 = 100;
/// After an end its last events are published within this time, unless something is wrong.
const PUBLISHED_WITHIN: TimeDelta = TimeDelta::seconds(3);

/// The facts about a saga's next transition.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Facts {
    /// The database's clock when it was asked.
    pub now: DateTime<Utc>,
    pub saga: SagaView,
    /// When the current command last went out, or the wait began.
    pub since: DateTime<Utc>,
    /// How often the current command was sent beyond the first time.
    pub send: i32,
    /// The last answer was a failure; no command is out until `asked_again_at`.
    pub backing_off: bool,
    /// What that failure was, or why the worker could not know.
    pub last_error: Option<String>,
    /// The command that is out or comes next.
    pub command: Option<String>,
    /// The commands of the other members of its group of parallel steps that have not replied yet.
    pub parallel: Vec<String>,
    /// The signal that is waited for.
    pub signal: Option<String>,
    /// Other signals that move it, in alphabetical order.
    pub other_signals: Vec<String>,
    /// When the command is sent again if no answer comes.
    pub asked_again_at: Option<DateTime<Utc>>,
    /// When its deadline starts the compensation.
    pub turns_back_at: Option<DateTime<Utc>>,
    /// The reason of that compensation.
    pub turns_back_for: Option<String>,
    /// Whether its workflow's version is known here.
    pub defined: bool,
    /// What an operator may do now.
    pub allowed: Vec<&'static str>,
    /// What holds it back.
    pub pauses: Vec<PauseView>,
    /// Messages about it that no process could act on; a hundred at most are counted.
    pub parked: usize,
    /// What NATS knows about the command; null if there is none.
    pub carrier: Option<Carrier>,
    /// Why NATS will never store an event of it, where it waits for nothing else; null if it may.
    pub event_refused: Option<String>,
}

/// What NATS knows about a command.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
pub struct Carrier {
    /// Why NATS could not be asked; null if it could.
    pub unknown: Option<String>,
    pub consumers: Vec<Backlog>,
    pub workers: Vec<Present>,
}

/// A consumer of the command and what is before it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Backlog {
    pub consumer: String,
    /// Messages that were not delivered yet.
    pub pending: u64,
    /// Messages that were delivered and are not acknowledged yet.
    pub unanswered: usize,
    /// Those of them that were delivered more than once.
    pub redelivered: usize,
    pub paused_until: Option<DateTime<Utc>>,
}

/// A worker that serves the command and answered just now.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Present {
    pub service: String,
    pub instance: Option<String>,
}

/// Gathers the facts about a saga. Without NATS, or if it does not answer, they say so.
pub async fn ask(
    pool: &PgPool,
    registry: &WorkflowRegistry,
    bus: Option<&Bus>,
    id: Uuid,
) -> Result<Facts, AskError> {
    let mut saga = store::sagas::get(pool, id).await?.ok_or(AskError::Unknown)?;
    store::flights::show_next_look(pool, std::slice::from_mut(&mut saga)).await?;
    let now = store::now(pool).await?;
    store::definitions::learn(pool, registry, std::slice::from_ref(&saga)).await?;
    let definition = registry.get(&saga.workflow, saga.version);
    let mut facts = of_row(definition.as_deref(), saga, now);
    let workflow = facts.saga.workflow.clone();
    facts.pauses = pauses::of_saga(pool, id, &workflow, facts.command.as_deref()).await?;
    facts.parked = store::operations::parked(pool, Some(id), None, PARKED_MAX).await?.len();
    if facts.backing_off {
        let history = store::history::of_sagas(pool, &[id]).await?;
        facts.last_error = history.last().and_then(|row| row.detail.as_ref()).and_then(cause);
    }
    if let Some(command) = &facts.command {
        facts.carrier = Some(carrier(bus, command).await);
    }
    if facts.lacks_events()
        && let Some(bus) = bus.filter(is_connected)
    {
        facts.event_refused = events::refusal(pool, registry, bus, id).await?;
    }
    Ok(facts)
}

/// What row and definition say.
fn of_row(definition: Option<&Definition>, saga: Saga, now: DateTime<Utc>) -> Facts {
    let step = definition.and_then(|definition| Some(&definition.steps[definition.index(&saga.step)?]));
    let open = !saga.status.is_end();
    let (command, signal) = match (step.map(saga::Step::work), saga.direction) {
        (Some(Work::Command { command, .. }), Direction::Do) => (Some(command), None),
        (Some(Work::Command { undo, .. }), Direction::Undo) => (undo, None),
        (Some(Work::Wait { signal }), _) => (None, Some(signal)),
        (None, _) => (None, None),
    };
    let other = definition.filter(|_| signal.is_some()).map(|definition| definition.signals.keys().cloned());
    let coming =
        definition.map(|definition| saga::next_transition(definition, &saga, now)).unwrap_or_default();
    let (turns_back_at, turns_back_for) = coming.compensates_at.unzip();
    let allowed = saga::allowed_actions(definition, &saga);
    Facts {
        now,
        since: saga.since,
        send: saga.send,
        backing_off: saga.backing_off,
        last_error: None,
        command: command.filter(|_| open).map(str::to_owned),
        parallel: definition.map(|definition| parallel(definition, &saga)).unwrap_or_default(),
        signal: signal.filter(|_| open).map(str::to_owned),
        other_signals: other.filter(|_| open).into_iter().flatten().collect(),
        asked_again_at: coming.resend_at,
        turns_back_at,
        turns_back_for,
        defined: definition.is_some(),
        allowed,
        pauses: Vec::new(),
        parked: 0,
        carrier: None,
        event_refused: None,
        saga: saga.into(),
    }
}

/// The commands of the open members of the saga's group beside the one in its row.
fn parallel(definition: &Definition, saga: &Saga) -> Vec<String> {
    let open = saga::open_steps(definition, saga).into_iter().map(|index| &definition.steps[index]);
    let others = open.filter(|step| step.name != saga.step && !saga.status.is_end());
    others.filter_map(|step| step.command.clone()).collect()
}

impl Facts {
    /// Whether it ended some time ago and its last events are not acknowledged.
    fn lacks_events(&self) -> bool {
        let ended_at = self.saga.finished_at.filter(|_| self.saga.status.is_end());
        self.saga.due_at.is_some() && ended_at.is_some_and(|at| self.now - at >= PUBLISHED_WITHIN)
    }
}

/// A failure's code, or the reason of an answer that knew nothing.
fn cause(detail: &Value) -> Option<String> {
    detail.get("code").or_else(|| detail.get("reason"))?.as_str().map(str::to_owned)
}

fn is_connected(bus: &&Bus) -> bool {
    bus.is_connected()
}

async fn carrier(bus: Option<&Bus>, command: &str) -> Carrier {
    let unknown = |reason: String| Carrier { unknown: Some(reason), ..Carrier::default() };
    let Some(bus) = bus.filter(is_connected) else {
        return unknown("NATS does not answer".to_owned());
    };
    let (found, present) = tokio::join!(consumers::of_command(bus, command), presence::present(bus));
    match (found, present) {
        (Ok(found), Ok(present)) => Carrier {
            unknown: None,
            consumers: found.into_iter().map(Backlog::from).collect(),
            workers: presence::served_by(&present, command).into_iter().map(Present::from).collect(),
        },
        (Err(error), _) => unknown(error.to_string()),
        (_, Err(error)) => unknown(error.to_string()),
    }
}

impl From<consumers::ConsumerState> for Backlog {
    fn from(state: consumers::ConsumerState) -> Self {
        Self {
            consumer: state.name,
            pending: state.pending,
            unanswered: state.ack_pending,
            redelivered: state.redelivered,
            paused_until: state.paused_until,
        }
    }
}

impl From<&presence::WorkerSeen> for Present {
    fn from(worker: &presence::WorkerSeen) -> Self {
        Self { service: worker.service.clone(), instance: worker.instance.clone() }
    }
}
