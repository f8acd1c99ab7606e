//! What a saga is at a moment.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::range::{EARLIEST, LATEST};

/// Where a saga stands. The first three need an alarm; the others are ends or wait for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A command is out, or will be sent again after a pause.
    Running,
    /// Waits for a signal, until a deadline.
    Waiting,
    /// Undoes, in reverse, what may have been done.
    Compensating,
    /// Every step is done.
    Completed,
    /// All that may have been done is undone.
    Compensated,
    /// Cannot go on by itself; an operator must look.
    Stuck,
    /// Given up by an operator.
    Abandoned,
}

/// Whether a step's effect is made or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    Do,
    Undo,
}

/// What a saga is started with.
#[derive(Clone, Debug)]
pub struct NewSaga {
    pub id: Uuid,
    pub subject_id: Uuid,
    pub input: Map<String, Value>,
    /// The trace that it belongs to; none: one of its own, by its id.
    pub trace: Option<Uuid>,
    /// The history begins after this number: a saga that continues another's story numbers its events on.
    pub seq: i64,
}

/// A saga's whole state.
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
    pub due_at: Option<DateTime<Utc>>,
    /// The batch that looks after this saga instead of an alarm, while the saga runs without a pause: see [`Saga::is_kept`].
    pub flight: Option<i64>,
    pub reason: Option<String>,
    pub rejection: Option<Value>,
    pub input: Arc<Value>,
    /// What commands carry: the input and the outputs so far.
    pub context: Arc<Value>,
    pub seq: i64,
    pub stuck_since: Option<DateTime<Utc>>,
    pub trace: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
}

/// A text that names no status, or no direction.
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
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::Running,
        Self::Waiting,
        Self::Compensating,
        Self::Completed,
        Self::Compensated,
        Self::Stuck,
        Self::Abandoned,
    ];

    /// Nothing will ever happen to it again, but for its last events.
    pub fn is_end(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Abandoned)
    }

    /// It needs no alarm once its last events are acknowledged: ended, or waiting for an operator.
    pub fn rests(self) -> bool {
        self.is_end() || self == Self::Stuck
    }

    /// Somebody outside may want to know: it waits, has ended or is stuck.
    pub fn is_settled(self) -> bool {
        !matches!(self, Self::Running | Self::Compensating)
    }

    /// Its name in the table and on the wire.
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
    /// Both.
    pub const ALL: [Self; 2] = [Self::Do, Self::Undo];

    /// Its name in the table and on the wire.
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

impl Saga {
    /// Whether it will be looked at again by itself, needs no look, or waits for an operator: no saga may be anything else.
    pub fn is_kept(&self) -> bool {
        self.due_at.is_some() || self.flight.is_some() || self.paused || self.status.rests()
    }

    /// Its batch looks after it no longer: its alarm rings now.
    pub fn let_go(&mut self, now: DateTime<Utc>) {
        self.flight = None;
        self.due_at = Some(now);
    }

    /// The time that stands in a field of the context; one that lies too far off counts as the nearest that can be.
    pub fn time(&self, field: &str) -> Option<DateTime<Utc>> {
        let text = self.context.get(field)?.as_str()?;
        let time = DateTime::parse_from_rfc3339(text).ok()?.with_timezone(&Utc);
        Some(time.clamp(EARLIEST, LATEST))
    }
}
