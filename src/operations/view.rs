//! A saga as operators and programs see it: the saga object of the REST interface.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::saga::{Direction, Saga, Status};

/// Where a saga stands.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Saga)]
pub struct SagaView {
    pub id: Uuid,
    pub workflow: String,
    pub version: i32,
    #[schema(value_type = crate::schemas::SagaStatus)]
    pub status: Status,
    /// Paused by an operator; no timer fires until it is resumed.
    pub paused: bool,
    pub step: String,
    #[schema(value_type = crate::schemas::StepDirection)]
    pub direction: Direction,
    /// Rises whenever a step is entered anew.
    pub visit: i32,
    /// Failed answers in this visit.
    pub attempt: i32,
    /// When its timer is due; null if it has ended, is stuck or paused.
    pub due_at: Option<DateTime<Utc>>,
    /// Since when it waits for an operator.
    pub stuck_since: Option<DateTime<Utc>>,
    pub reason: Option<String>,
    #[schema(value_type = Value)]
    pub input: Arc<Value>,
    /// What its caller finds it by; left out of answers to acts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub attributes: Option<Map<String, Value>>,
    /// The trace that it belongs to (W3C trace id, 32 hexadecimal digits).
    pub trace_id: String,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

impl From<Saga> for SagaView {
    fn from(saga: Saga) -> Self {
        Self {
            id: saga.id,
            workflow: saga.workflow,
            version: saga.version,
            status: saga.status,
            paused: saga.paused,
            step: saga.step,
            direction: saga.direction,
            visit: saga.visit,
            attempt: saga.attempt,
            due_at: saga.due_at,
            stuck_since: saga.stuck_since,
            reason: saga.reason,
            input: saga.input,
            attributes: None,
            trace_id: saga.trace.unwrap_or(saga.id).simple().to_string(),
            created_at: saga.created_at,
            updated_at: saga.updated_at,
            finished_at: saga.finished_at,
        }
    }
}

impl SagaView {
    /// The same with its attributes.
    #[must_use]
    pub fn with_attributes(self, attributes: Map<String, Value>) -> Self {
        Self { attributes: Some(attributes), ..self }
    }
}
