//! Operators' acts: through the same lock and the same `apply` as everything else, written down with their reason.

use std::borrow::Cow;

use futures::future::BoxFuture;
use serde_json::{Map, Value};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Batch, Engine, Verdict};
use crate::bus::consumers::ConsumersError;
use crate::bus::fences::{self, Completed, Completion, FenceError};
use crate::bus::subjects;
use crate::saga::{self, Definition, Event, OperatorAction, Outcome, Saga, Status};
use crate::store;
use crate::store::operations::ActRow;

/// What an act has led to.
#[derive(Clone, Debug)]
pub struct Acted {
    pub saga: Saga,
    /// What belongs to the act: the hand-made output, or what is left behind, and the settlement.
    pub detail: Option<Value>,
}

/// An act that was done, with the saga before and after it.
#[derive(Clone, Debug)]
pub struct ActDone {
    pub before: Saga,
    pub after: Saga,
    pub act: OperatorAction,
}

/// What the services in the engine's own database do in the transaction of an act: they bring their own rows in line with it.
/// What they answer is kept with the record of the act; null if there is nothing to say.
pub type AfterAct = for<'a> fn(&'a mut PgConnection, &'a ActDone) -> BoxFuture<'a, store::Result<Value>>;

/// The field of an act's detail that has what [`AfterAct`] answered.
pub const SETTLEMENT: &str = "settlement";

/// Why an act was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("there is no such saga")]
    Unknown,
    #[error("the saga is at {}; name one of these steps", .0.join(", "))]
    NotAtStep(Vec<String>),
    #[error("the saga is {status}; this act is not allowed now")]
    Illegal { status: Status, allowed: Vec<&'static str> },
    #[error("the output must have {}: later deadlines refer to it, as RFC 3339", .0.join(", "))]
    Lacking(Vec<String>),
    #[error("{0}")]
    TooLarge(String),
    #[error("the step did run: its service has an outcome of it, and the saga goes by that")]
    Ran(Outcome),
    #[error(transparent)]
    Fence(#[from] FenceError),
    #[error("no workflow has the command {0}, and no consumer takes it")]
    UnknownCommand(String),
    #[error("these consumers take more than {command}, and all of it would pause: {}", .consumers.join("; "))]
    Covers { command: String, consumers: Vec<String> },
    #[error(transparent)]
    Consumers(#[from] ConsumersError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Engine {
    /// Does an operator's act, and writes down who did it, why, and from which state to which.
    pub async fn act(
        &self,
        id: Uuid,
        act: OperatorAction,
        actor: &str,
        reason: &str,
    ) -> Result<Acted, ActError> {
        let fenced = match &act {
            OperatorAction::Complete { step, output } => {
                Some(self.write_fence(id, &act, step.as_deref(), output).await?)
            }
            _ => None,
        };
        let mut tx = self.pool.begin().await?;
        let mut batch = Batch::lock(self, &mut tx, &[id]).await?;
        let before = batch.saga(id).cloned().ok_or(ActError::Unknown)?;
        // It has moved on meanwhile: the output is not that of the step where it stands now.
        if fenced.is_some_and(|fenced| !self.is_still_at(&before, &fenced)) {
            return Err(ActError::Illegal { status: before.status, allowed: self.allowed_actions(&before) });
        }
        batch.caused_by(crate::trace_context::current());
        let name = act.name();
        let lacking = self.lacking(&before, &act);
        if batch.apply(&self.registry, id, &Event::Operator(act.clone())) != Verdict::Moved {
            let allowed = self.allowed_actions(&before);
            return Err(match lacking {
                Some(fields) if allowed.contains(&name) => ActError::Lacking(fields),
                _ => ActError::Illegal { status: before.status, allowed },
            });
        }
        let saga = batch.saga(id).cloned().ok_or(ActError::Unknown)?;
        let mut detail = batch.last_detail().cloned();
        let effects = batch.write(&mut tx, self).await?;
        let (done, mut settlement) = (ActDone { before, after: saga, act }, Value::Null);
        if let Some(after_act) = self.after_act {
            settlement = after_act(&mut tx, &done).await?;
        }
        settle_detail(&mut detail, settlement);
        let ActDone { before, after: saga, .. } = done;
        let row = ActRow {
            actor,
            act: name,
            saga_id: Some(id),
            target: None,
            reason,
            from: &state(&before),
            to: &state(&saga),
            detail: detail.as_ref(),
        };
        store::operations::record_act(&mut *tx, &row).await?;
        tx.commit().await?;
        self.dispatch_detached(effects);
        Ok(Acted { saga, detail })
    }

    /// Before a step is completed by hand, its service elsewhere writes that in its own fence, so that the step can not
    /// run any more. A step that did run answers with its outcome instead. For a service in this database the saga's row,
    /// locked, is the fence. What is not allowed is left to be refused by `apply`. Answers the saga as it stood, with the completed step in its
    /// row.
    async fn write_fence(
        &self,
        id: Uuid,
        act: &OperatorAction,
        step: Option<&str>,
        output: &Map<String, Value>,
    ) -> Result<Saga, ActError> {
        let saga = store::sagas::get(&self.pool, id).await?.ok_or(ActError::Unknown)?;
        store::definitions::learn(&self.pool, &self.registry, std::slice::from_ref(&saga)).await?;
        let definition = self.registry.get(&saga.workflow, saga.version);
        let saga = match &definition {
            Some(definition) => at_step(definition, saga, step)?,
            None => saga,
        };
        let step =
            definition.as_ref().and_then(|definition| Some(&definition.steps[definition.index(&saga.step)?]));
        let Some(command) = step.and_then(|step| step.command.as_deref()) else {
            return Ok(saga);
        };
        let service = subjects::service_of(command);
        let is_allowed = self.allowed_actions(&saga).contains(&act.name());
        if is_allowed && let Some(why) = saga::too_large(&saga.context, output) {
            return Err(ActError::TooLarge(why));
        }
        let refused = !is_allowed || self.lacking(&saga, act).is_some();
        if refused || self.participants.named(service).is_some() {
            return Ok(saga);
        }
        let wanted =
            Completion { saga: id, step: saga.step.clone(), visit: saga.visit, output: output.clone() };
        match fences::complete(&self.bus, service, &wanted).await? {
            Completed::Recorded => Ok(saga),
            // The same wish came before and got no further than the fence.
            Completed::Ran(Outcome::Done { output: saved }) if saved == *output => Ok(saga),
            Completed::Ran(outcome) => Err(ActError::Ran(outcome)),
        }
    }

    /// Whether a saga is still at the step that was completed in the fence, in the same visit.
    fn is_still_at(&self, saga: &Saga, fenced: &Saga) -> bool {
        let definition = self.registry.get(&saga.workflow, saga.version);
        let is_open = definition.is_some_and(|definition| {
            let index = definition.index(&fenced.step);
            index.is_some_and(|index| saga::focused(&definition, saga, index).is_some())
        });
        saga.visit == fenced.visit && (saga.step == fenced.step || is_open)
    }

    /// What a hand-made output must have and has not.
    fn lacking(&self, saga: &Saga, act: &OperatorAction) -> Option<Vec<String>> {
        let OperatorAction::Complete { output, .. } = act else { return None };
        let definition = self.registry.get(&saga.workflow, saga.version)?;
        Some(saga::missing_outputs(&definition, saga, output)).filter(|fields| !fields.is_empty())
    }

    /// The acts that a saga's state allows, by name.
    pub fn allowed_actions(&self, saga: &Saga) -> Vec<&'static str> {
        saga::allowed_actions(self.registry.get(&saga.workflow, saga.version).as_deref(), saga)
    }
}

/// The saga with this step in its row. In a group of parallel steps an operator has to name the member.
fn at_step(definition: &Definition, saga: Saga, step: Option<&str>) -> Result<Saga, ActError> {
    let open = saga::open_steps(definition, &saga);
    let wanted = match step {
        None if open.len() > 1 && saga.status == Status::Running => None,
        None => return Ok(saga),
        Some(step) => definition.index(step),
    };
    let focused = wanted.and_then(|index| saga::focused(definition, &saga, index)).map(Cow::into_owned);
    let names = || open.iter().map(|index| definition.steps[*index].name.clone()).collect();
    focused.ok_or_else(|| ActError::NotAtStep(names()))
}

/// Keeps the settlement with what belongs to the act. Nothing else has its name there, also not in a hand-made output.
fn settle_detail(detail: &mut Option<Value>, settlement: Value) {
    if let Some(Value::Object(fields)) = detail {
        fields.remove(SETTLEMENT);
    }
    if settlement.is_null() {
        return;
    }
    if let Value::Object(fields) = detail.get_or_insert_with(|| Value::Object(Map::new())) {
        fields.insert(SETTLEMENT.to_owned(), settlement);
    }
}

/// A saga's state in the records of acts.
fn state(saga: &Saga) -> String {
    if saga.paused { format!("{}, paused", saga.status) } else { saga.status.to_string() }
}
