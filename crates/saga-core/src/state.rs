//! The state of a saga: the fields of its row.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::members::Members;
use super::range::{EARLIEST, LATEST};

/// The first three need a due time or a flight. The others are ends, or wait for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A command was sent, or is due to be retried.
    Running,
    /// Waits for a signal until a deadline.
    Waiting,
    /// Undoes the steps that may have run, in reverse order.
    Compensating,
    /// Every step is done.
    Completed,
    /// Every step that may have run is undone.
    Compensated,
    /// Needs an operator.
    Stuck,
    /// Ended by an operator as it was.
    Abandoned,
}

/// Whether a step's effect is made or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Do,
    Undo,
}

#[derive(Clone, Debug)]
pub struct NewSaga {
    pub id: Uuid,
    pub subject_id: Uuid,
    pub input: Map<String, Value>,
    /// The trace that the saga belongs to. `None`: its own trace, named by its id.
    pub trace: Option<Uuid>,
    /// The number before the first history row. A saga that continues the events of another saga starts above 0.
    pub seq: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Saga {
    pub id: Uuid,
    pub workflow: String,
    pub version: i32,
    pub subject_id: Uuid,
    pub status: Status,
    pub paused: bool,
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub attempt: i32,
    pub send: i32,
    pub entered_at: DateTime<Utc>,
    pub since: DateTime<Utc>,
    pub backing_off: bool,
    /// The members of a group of parallel steps, while the saga is in the group.
    pub members: Members,
    pub due_at: Option<DateTime<Utc>>,
    /// The batch whose due time covers this saga while the saga runs without a pause. A saga has a flight or a due time,
    /// never both.
    pub flight: Option<i64>,
    pub reason: Option<String>,
    pub rejection: Option<Value>,
    pub input: Arc<Value>,
    /// What commands carry: the input and the outputs of the finished steps.
    pub context: Arc<Value>,
    pub seq: i64,
    pub stuck_since: Option<DateTime<Utc>>,
    pub trace: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} names no status and no direction of a saga")]
pub struct UnknownName(String);

impl FromStr for Status {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|status| status.name() == name);
        found.ok_or_else(|| UnknownName(name.to_owned()))
    }
}

impl FromStr for Direction {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        let found = Self::ALL.into_iter().find(|direction| direction.name() == name);
        found.ok_or_else(|| UnknownName(name.to_owned()))
    }
}

impl Status {
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Waiting,
        Self::Compensating,
        Self::Completed,
        Self::Compensated,
        Self::Stuck,
        Self::Abandoned,
    ];

    /// Whether the state is final. Only the last events may still have to be published.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Abandoned)
    }

    /// Whether the saga needs no due time once its last events are acknowledged.
    pub fn is_quiescent(self) -> bool {
        self.is_end() || self == Self::Stuck
    }

    /// Whether a request that waits for this saga can be answered now.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Running | Self::Compensating)
    }

    /// The name in the database and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Stuck => "stuck",
            Self::Abandoned => "abandoned",
        }
    }
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Do, Self::Undo];

    /// The name in the database and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Do => "do",
            Self::Undo => "undo",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// What the row and the history keep of a rejection.
pub(super) fn rejection(step: &str, code: &str, detail: &Value) -> Value {
    json!({ "step": step, "code": code, "detail": detail })
}

impl Saga {
    /// Whether the saga cannot be forgotten: it has a due time or a flight, has ended, or waits for an operator. This must
    /// hold for every saga.
    pub fn is_supervised(&self) -> bool {
        self.due_at.is_some() || self.flight.is_some() || self.paused || self.status.is_quiescent()
    }

    /// Takes the saga out of its flight. It is due now.
    pub fn leave_flight(&mut self, now: DateTime<Utc>) {
        self.flight = None;
        self.due_at = Some(now);
    }

    /// The time in a field of the context, limited to the range of [`super::range`].
    pub fn time(&self, field: &str) -> Option<DateTime<Utc>> {
        let text = self.context.get(field)?.as_str()?;
        let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
        Some(time.clamp(EARLIEST, LATEST))
    }
}
