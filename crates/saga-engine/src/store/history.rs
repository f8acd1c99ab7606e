//! The history of sagas: written by number with each step, read by name.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use sqlx::error::BoxDynError;
use uuid::Uuid;

use super::Result;
use super::codes::{self, Codes};
use super::names::Name;
use super::write_batch::{Part, WriteBatch};
use crate::saga::{self, Direction, Entry, Saga};

/// A history row as it is read.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    pub saga_id: Uuid,
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub event: String,
    pub step: String,
    pub direction: Direction,
    pub visit: i32,
    pub attempt: i32,
    pub detail: Option<Value>,
    pub worker: Option<String>,
    pub emits: Vec<String>,
}

const RECORD_HISTORY: Part = Part::new("recorded", include_str!("../../sql/record_history.sql"));
const _: fn(&History<'_>) = |h| {
    drop(sqlx::query_file!(
        "sql/record_history.sql",
        &h.ids,
        &h.seqs,
        &h.times,
        &h.events,
        &h.steps,
        &h.directions,
        &h.visits,
        &h.attempts,
        &h.details as &[Option<String>],
        &h.instances as &[Option<i32>],
        &h.workers as &[Option<&str>],
        &h.emits as &[Option<Vec<u8>>],
    ));
};

/// Rows of the history, as arrays for `unnest`; number and time are the saga's own.
#[derive(Default)]
struct History<'a> {
    ids: Vec<Uuid>,
    seqs: Vec<i64>,
    times: Vec<DateTime<Utc>>,
    events: Vec<i16>,
    steps: Vec<i16>,
    directions: Vec<i16>,
    visits: Vec<i32>,
    attempts: Vec<i32>,
    details: Vec<Option<String>>,
    instances: Vec<Option<i32>>,
    workers: Vec<Option<&'a str>>,
    emits: Vec<Option<Vec<u8>>>,
}

impl<'a> History<'a> {
    fn of(codes: &Codes, entries: &[(&'a Saga, &'a Entry)]) -> std::result::Result<Self, BoxDynError> {
        let mut history = Self::default();
        for (saga, entry) in entries {
            let names = codes.of(saga)?;
            let (instance, worker) = codes.worker(entry.worker.as_deref());
            history.ids.push(saga.id);
            history.seqs.push(saga.seq);
            history.times.push(saga.updated_at);
            history.events.push(names.event(&entry.event)?);
            history.steps.push(names.step(&entry.step)?);
            history.directions.push(codes::direction(entry.direction));
            history.visits.push(entry.visit);
            history.attempts.push(entry.attempt);
            let detail = match entry.event == saga::STARTED {
                true => Some(serde_json::to_string(&saga.input)?),
                false => entry.detail.as_ref().map(serde_json::to_string).transpose()?,
            };
            history.details.push(detail);
            history.instances.push(instance);
            history.workers.push(worker);
            history.emits.push(names.emits(entry)?);
        }
        Ok(history)
    }
}

/// Adds to the history of sagas; number and time are the saga's own.
pub fn record(changes: &mut WriteBatch, codes: &Codes, entries: &[(&Saga, &Entry)]) {
    if entries.is_empty() {
        return;
    }
    let history = match History::of(codes, entries) {
        Ok(history) => history,
        Err(error) => return changes.refuse(error),
    };
    changes
        .add(RECORD_HISTORY)
        .bind(history.ids)
        .bind(history.seqs)
        .bind(history.times)
        .bind(history.events)
        .bind(history.steps)
        .bind(history.directions)
        .bind(history.visits)
        .bind(history.attempts)
        .bind(history.details)
        .bind(history.instances)
        .bind(history.workers)
        .bind(history.emits);
}

/// The history of some sagas, oldest first.
pub async fn of_sagas(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<Vec<HistoryRow>> {
    sqlx::query_as!(
        HistoryRow,
        r#"
        select saga_id as "saga_id!", seq as "seq!", at as "at!", event as "event!", step as "step!",
            direction as "direction!: Name<Direction>", visit as "visit!", attempt as "attempt!", detail,
            emits as "emits!", worker
        from history_view where saga_id = any($1) order by saga_id, seq
        "#,
        ids
    )
    .fetch_all(db)
    .await
}
