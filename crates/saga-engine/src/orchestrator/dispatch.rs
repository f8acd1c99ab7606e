//! Effects after a commit: commands, timers and events are published, and waiting callers are woken.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use fail::fail_point;
use saga_protocol::spans;
use uuid::Uuid;

use super::observations::Observations;
use super::rest::Rested;
use super::{Engine, announce, saga_spans};
use crate::bus::command_batch;
use crate::bus::events::{EventBatch, EventMessage, event_batches};
use crate::bus::messages::{self, Settled};
use crate::bus::publish::{Outgoing, PublishError, publish_each};
use crate::bus::subjects;
use crate::ids;
use crate::saga::{self, Action, Command, Poisoned, Saga, Transition, WorkflowRegistry};
use crate::store;
use crate::store::Control;

/// How often the broker looks for schedules that are due.
const ALARM_TICK: TimeDelta = TimeDelta::milliseconds(250);
const SAGAS_OF_ALARM_MAX: usize = 256;
/// Most transitions of one notice: with the longest names some 250 kB.
const TRANSITIONS_MAX: usize = 256;
/// Most commits whose effects are published at a time without their callers waiting: each holds its messages in memory.
pub(super) const MAX_DETACHED: usize = 256;

/// Everything to be done after a commit, and safe to be done again.
#[derive(Debug, Default)]
pub struct Effects {
    commands: Vec<Command>,
    alarms: Vec<(Uuid, DateTime<Utc>)>,
    events: Vec<EventMessage>,
    recalls: Vec<Uuid>,
    settled: Vec<Uuid>,
    rested: Vec<Rested>,
    transitions: Vec<messages::Transition>,
    moved: Vec<Saga>,
    observations: Observations,
}

/// What JetStream is to have of them.
#[derive(Debug)]
enum Message {
    Command(Command),
    Commands(Vec<Command>),
    /// Its id stays the same however often it is tried: each id is an alarm of its own.
    Alarm(Uuid, Vec<Uuid>, DateTime<Utc>),
    Events(EventBatch),
}

impl Message {
    fn kind(&self) -> &'static str {
        match self {
            Self::Command(_) | Self::Commands(_) => "command",
            Self::Alarm(..) => "alarm",
            Self::Events(_) => "event",
        }
    }

    /// Whether it has an event of this saga: the event's id begins with the saga's.
    fn has_event_of(&self, saga: Uuid) -> bool {
        let saga = saga.to_string();
        matches!(self, Self::Events(batch) if batch.ids.iter().any(|id| id.starts_with(&saga)))
    }

    fn commands(&self) -> &[Command] {
        match self {
            Self::Command(command) => std::slice::from_ref(command),
            Self::Commands(commands) => commands,
            _ => &[],
        }
    }

    fn outgoing(&self) -> Outgoing {
        match self {
            Self::Command(command) => messages::command(command),
            Self::Commands(commands) => command_batch::message(commands),
            Self::Alarm(id, sagas, at) => saga_protocol::messages::alarm(*id, sagas, *at),
            Self::Events(batch) => batch.outgoing(),
        }
    }
}

impl Effects {
    /// What the transitions ask for.
    pub(super) fn of(registry: &WorkflowRegistry, transitions: Vec<Transition>) -> Self {
        let mut all = Self::default();
        for transition in transitions {
            all.transitions.extend(messages::Transition::of(&transition));
            all.events.extend(announce::of_transition(registry, &transition));
            all.rested.extend(at_rest(&transition.saga));
            for action in transition.actions {
                all.add(transition.saga.id, action);
            }
            all.moved.push(transition.saga);
        }
        all
    }

    /// The commands that some rows ask for.
    pub(super) fn asked_by(registry: &WorkflowRegistry, sagas: &[Saga]) -> Self {
        let mut all = Self::default();
        for saga in sagas {
            if let Some(definition) = registry.get(&saga.workflow, saga.version) {
                let asked = saga::outstanding(&definition, saga).into_iter();
                asked
                    .filter(|action| matches!(action, Action::Send(_)))
                    .for_each(|send| all.add(saga.id, send));
            }
        }
        all
    }

    /// What the row of a saga asks for, once more: a crash may have left it undone. `step` is what the repeated message was about.
    pub(super) fn repeat(&mut self, registry: &WorkflowRegistry, saga: &Saga, step: Option<&str>) {
        let Some(definition) = registry.get(&saga.workflow, saga.version) else {
            return;
        };
        if step.is_some_and(|step| saga::is_in_running_group(&definition, saga, step)) {
            return;
        }
        for action in saga::outstanding(&definition, saga) {
            self.add(saga.id, action);
        }
    }

    /// This is to be counted after the commit.
    pub(super) fn observe(&mut self, observations: Observations) {
        self.observations.extend(observations);
    }

    /// Alarms are to be set for these sagas.
    pub(super) fn arm(&mut self, alarms: Vec<(Uuid, DateTime<Utc>)>) {
        self.alarms.extend(alarms);
    }

    /// These leave their flights once all is published.
    pub(super) fn rest(&mut self, left: Vec<Rested>) {
        self.rested.extend(left);
    }

    /// All events of these sagas are to be published again, and then they are at rest.
    pub(super) fn recall(sagas: Vec<Uuid>) -> Self {
        Self { recalls: sagas, ..Self::default() }
    }

    fn add(&mut self, id: Uuid, action: Action) {
        match action {
            Action::Send(command) => self.commands.push(command),
            Action::SetTimer(at) => self.alarms.push((id, at)),
            Action::RepublishEvents => self.recalls.push(id),
            Action::Notify => self.settled.push(id),
        }
    }
}

/// Why what follows could not be done; it is done later, by redelivery or by the sweeper.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("the history could not be read: {0}")]
    History(#[from] sqlx::Error),
}

impl Engine {
    /// Does what follows from a committed transaction and waits until JetStream has all of it.
    pub async fn dispatch(&self, effects: Effects) -> Result<(), FollowError> {
        self.try_follow(effects).await.map_err(|(error, _commands)| error)
    }

    /// The same. With an error come back the commands that JetStream may not have.
    pub(super) async fn try_follow(&self, mut effects: Effects) -> Result<(), (FollowError, Vec<Command>)> {
        self.remember(&mut effects);
        std::mem::take(&mut effects.observations).record();
        let Effects { mut commands, alarms, mut events, .. } = effects;
        let Effects { recalls, settled, mut rested, transitions, .. } = effects;
        commands.retain(|command| !self.pauses.hold_back(command));
        self.tell_settled(settled).await;
        self.notify_watchers(&transitions).await;
        let fresh = events.len();
        if !recalls.is_empty() {
            let (recalled, at_rest) = match store::bounded(self.recall(&recalls)).await {
                Ok(recalled) => recalled,
                Err(error) => return Err((error.into(), commands)),
            };
            events.extend(recalled);
            rested.extend(at_rest);
        }
        let mut messages = self.command_messages(commands);
        messages.extend(alarm_messages(alarms));
        messages.extend(event_batches(&events).into_iter().map(Message::Events));
        let begun = spans::begin();
        let published = match messages.is_empty() {
            true => Ok(()),
            false => publish_each(&self.bus, &messages, Message::outgoing).await,
        };
        if let Some(begun) = begun {
            let left = published.as_ref().err();
            let is_published = |at: usize| {
                left.is_none_or(|left| {
                    !left.failed.contains(&at) && left.refused.iter().all(|(refused, _)| *refused != at)
                })
            };
            let commands = messages.iter().enumerate().flat_map(|(at, message)| {
                message.commands().iter().map(move |command| (command, is_published(at)))
            });
            saga_spans::record_published(commands, &events[..fresh], begun);
        }
        if let Err(left) = published {
            for (at, reason) in &left.refused {
                rested.retain(|rested| !messages[*at].has_event_of(rested.saga));
                self.give_up(&messages[*at], reason).await;
            }
            if !left.failed.is_empty() {
                let commands = left.failed.iter().flat_map(|at| messages[*at].commands()).cloned().collect();
                return Err((PublishError::from(left).into(), commands));
            }
        }
        fail_point!("follow::published");
        for saga in rested {
            // The receiver is gone only when the service stops; the sweeper puts the saga to rest then.
            let _queued = self.resting.send(saga);
        }
        Ok(())
    }

    /// Commands for services in this database travel together, see [`command_batch`]. One that is sent again travels alone:
    /// its message id lets the broker drop a repeat.
    fn command_messages(&self, commands: Vec<Command>) -> Vec<Message> {
        let is_bundled = |command: &Command| command.send == 0 && self.is_in_database(&command.subject);
        let (bundled, alone): (Vec<Command>, Vec<Command>) = commands.into_iter().partition(is_bundled);
        let mut groups: Vec<Vec<Command>> = Vec::new();
        for command in bundled {
            let fits = |group: &&mut Vec<Command>| {
                group.len() < command_batch::COMMANDS_MAX && command_batch::fit_together(&group[0], &command)
            };
            match groups.iter_mut().find(fits) {
                Some(group) => group.push(command),
                None => groups.push(vec![command]),
            }
        }
        let alone = alone.into_iter().map(Message::Command);
        let groups = groups.into_iter().map(|mut group| match group.len() {
            1 => Message::Command(group.remove(0)),
            _ => Message::Commands(group),
        });
        alone.chain(groups).collect()
    }

    /// The same without waiting: for what no message will bring again, the sweeper stands behind it.
    ///
    /// While JetStream does not answer each of these takes seconds. At most `MAX_DETACHED` are under way in a process; what
    /// follows from further commits is left to the sweeper at once.
    pub fn dispatch_detached(&self, mut effects: Effects) {
        let Ok(permit) = Arc::clone(&self.detached).try_acquire_owned() else {
            metrics::counter!("boxoffice_effects_left_to_sweeper_total").increment(1);
            self.remember(&mut effects);
            return self.waiters.wake(&effects.settled);
        };
        let engine = self.clone();
        self.tasks.spawn(async move {
            let _permit = permit;
            engine.execute_while_failing(&mut effects).await;
            if let Err((error, commands)) = engine.try_follow(effects).await {
                metrics::counter!("boxoffice_effects_left_to_sweeper_total").increment(1);
                tracing::warn!(%error, "what follows from a commit is left to the sweeper");
                engine.execute_directly(commands).await;
            }
        });
    }

    /// The same for the sweeper. While JetStream does not work it waits for the steps in this database, however much else
    /// is to be published. It does so too for a backlog: thousands of commands would wait in JetStream longer than the
    /// silence after which the sweeper sends them again, and each would be handled twice.
    pub(super) async fn dispatch_swept(&self, mut effects: Effects, is_backlog: bool) {
        if is_backlog {
            self.execute_here(&mut effects).await;
        } else {
            self.execute_while_failing(&mut effects).await;
        }
        self.dispatch_detached(effects);
    }

    async fn execute_while_failing(&self, effects: &mut Effects) {
        if self.bus.health.is_failing() {
            self.execute_here(effects).await;
        }
    }

    async fn execute_here(&self, effects: &mut Effects) {
        // The rows as they were committed, before their next step reads them.
        self.remember(effects);
        let commands = effects.commands.extract_if(.., |command| self.can_execute(command)).collect();
        self.execute_directly(commands).await;
    }

    /// Takes note of what was committed, so that the next step need not read it.
    fn remember(&self, effects: &mut Effects) {
        if self.control == Control::Optimistic {
            self.cache.note(std::mem::take(&mut effects.moved));
        }
    }

    /// A message that JetStream will never store. The saga that asks for a command is stuck from now on; an alarm is rung by the
    /// sweeper; an event is missing until an operator mends what is wrong.
    async fn give_up(&self, message: &Message, reason: &str) {
        let kind = message.kind();
        tracing::error!(kind, reason, "JetStream refuses a message for good");
        metrics::counter!("boxoffice_publish_refused_total", "kind" => kind).increment(1);
        for Command { saga_id, step, direction, visit, .. } in message.commands() {
            let error = format!("its command cannot be published: {reason}");
            let poisoned = Poisoned { step: step.clone(), direction: *direction, visit: *visit, error };
            self.poisoned(*saga_id, poisoned).await;
        }
    }

    /// One core message per batch wakes the callers that wait, on whichever instance they do.
    async fn tell_settled(&self, sagas: Vec<Uuid>) {
        if sagas.is_empty() {
            return;
        }
        self.waiters.wake(&sagas);
        if let Ok(body) = serde_json::to_vec(&Settled { sagas })
            && let Err(error) = self.bus.notify(subjects::SETTLED, body.into()).await
        {
            tracing::debug!(%error, "the notice of settled sagas failed; callers that wait read the saga once more");
        }
    }

    /// One core message per workflow and [`TRANSITIONS_MAX`] transitions, for watchers. Without a connection they are not sent:
    /// they would only fill the client's queue, and later messages would wait behind them.
    async fn notify_watchers(&self, transitions: &[messages::Transition]) {
        for group in transitions.chunk_by(|one, other| one.workflow == other.workflow) {
            for some in group.chunks(TRANSITIONS_MAX) {
                let subject = subjects::transitions(Some(&some[0].workflow));
                if let Ok(body) = serde_json::to_vec(some)
                    && let Err(error) = self.bus.notify(subject, body.into()).await
                {
                    return tracing::debug!(%error, "publishing transitions failed; watchers miss them");
                }
            }
        }
    }

    /// All events of these sagas again, and those of them that are at rest then.
    async fn recall(&self, ids: &[Uuid]) -> store::Result<(Vec<EventMessage>, Vec<Rested>)> {
        let sagas = store::sagas::get_many(&self.pool, ids).await?;
        let history = store::history::of_sagas(&self.pool, ids).await?;
        store::definitions::learn(&self.pool, &self.registry, &sagas).await?;
        let rested = sagas.iter().filter_map(at_rest).collect();
        Ok((announce::of_history(&self.registry, &sagas, &history), rested))
    }
}

/// One that has ended or is stuck is at rest once its events are published.
fn at_rest(saga: &Saga) -> Option<Rested> {
    let is_supervised = saga.due_at.is_some() || saga.flight.is_some();
    (saga.status.is_quiescent() && is_supervised).then_some(Rested { saga: saga.id, flight: saga.flight })
}

/// One alarm for all sagas that are due in the same quarter of a second: the broker looks no more often.
fn alarm_messages(alarms: Vec<(Uuid, DateTime<Utc>)>) -> impl Iterator<Item = Message> {
    let mut by_time: BTreeMap<DateTime<Utc>, Vec<Uuid>> = BTreeMap::new();
    for (saga, at) in alarms {
        let rounded = at.duration_trunc(ALARM_TICK).unwrap_or(at);
        let at = if rounded < at { rounded + ALARM_TICK } else { at };
        by_time.entry(at).or_default().push(saga);
    }
    by_time.into_iter().flat_map(|(at, sagas)| {
        let chunks: Vec<Message> = sagas
            .chunks(SAGAS_OF_ALARM_MAX)
            .map(|some| Message::Alarm(ids::new(), some.to_vec(), at))
            .collect();
        chunks
    })
}
