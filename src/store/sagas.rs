//! Sagas and their history: inserted, locked, saved and read in batches.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, FromRow, PgConnection, PgExecutor, Row};
use uuid::Uuid;

use super::Result;
use super::attempt::locking;
use super::changes::{Changes, Rank};
use super::names::Name;
use super::rows::Rows;
use crate::config::Control;
use crate::saga::{Entry, Saga};

/// A history row as it is read.
#[derive(Clone, Debug)]
pub struct HistoryRow {
    pub saga_id: Uuid,
    pub seq: i64,
    pub at: DateTime<Utc>,
    pub event: String,
    pub step: String,
    pub direction: crate::saga::Direction,
    pub visit: i32,
    pub attempt: i32,
    pub detail: Option<Value>,
    pub worker: Option<String>,
    pub emits: Vec<String>,
}

/// All columns of a saga, as in the functions below, which are held against the schema. They are named so that a statement
/// that is prepared already stays good when a migration adds a column.
pub(super) const COLUMNS: &str = "id, workflow, version, subject_id, owner_id, status, paused, step, direction, visit, attempt, send, \
    since, backing_off, due_at, reason, rejection, input, context, seq, created_at, updated_at, \
    finished_at, entered_at, stuck_since, trace";

/// A saga, and when it was read.
struct Read {
    saga: Saga,
    read_at: DateTime<Utc>,
}

impl FromRow<'_, PgRow> for Read {
    fn from_row(row: &PgRow) -> Result<Self> {
        Ok(Self { saga: from_row(row)?, read_at: row.try_get("read_at")? })
    }
}

/// A saga from a row with [`COLUMNS`].
pub(super) fn from_row(row: &PgRow) -> Result<Saga> {
    let Name(status) = row.try_get("status")?;
    let Name(direction) = row.try_get("direction")?;
    Ok(Saga {
        id: row.try_get("id")?,
        workflow: row.try_get("workflow")?,
        version: row.try_get("version")?,
        subject_id: row.try_get("subject_id")?,
        owner_id: row.try_get("owner_id")?,
        status,
        paused: row.try_get("paused")?,
        step: row.try_get("step")?,
        direction,
        visit: row.try_get("visit")?,
        attempt: row.try_get("attempt")?,
        send: row.try_get("send")?,
        entered_at: row.try_get("entered_at")?,
        since: row.try_get("since")?,
        backing_off: row.try_get("backing_off")?,
        due_at: row.try_get("due_at")?,
        reason: row.try_get("reason")?,
        rejection: row.try_get("rejection")?,
        input: row.try_get("input")?,
        context: row.try_get("context")?,
        seq: row.try_get("seq")?,
        stuck_since: row.try_get("stuck_since")?,
        trace: row.try_get("trace")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
        finished_at: row.try_get("finished_at")?,
    })
}

/// The mutable columns of a batch of sagas, as arrays for `unnest`.
struct Columns<'a> {
    ids: Vec<Uuid>,
    statuses: Vec<&'a str>,
    steps: Vec<&'a str>,
    directions: Vec<&'a str>,
    visits: Vec<i32>,
    attempts: Vec<i32>,
    sends: Vec<i32>,
    entered: Vec<DateTime<Utc>>,
    since: Vec<DateTime<Utc>>,
    backing_off: Vec<bool>,
    paused: Vec<bool>,
    stuck: Vec<Option<DateTime<Utc>>>,
    due: Vec<Option<DateTime<Utc>>>,
    reasons: Vec<Option<&'a str>>,
    rejections: Vec<Option<&'a Value>>,
    contexts: Vec<&'a Value>,
    seqs: Vec<i64>,
    updated: Vec<DateTime<Utc>>,
    finished: Vec<Option<DateTime<Utc>>>,
}

impl<'a> Columns<'a> {
    fn of(sagas: &[&'a Saga]) -> Self {
        Self {
            ids: sagas.iter().map(|saga| saga.id).collect(),
            statuses: sagas.iter().map(|saga| saga.status.name()).collect(),
            steps: sagas.iter().map(|saga| saga.step.as_str()).collect(),
            directions: sagas.iter().map(|saga| saga.direction.name()).collect(),
            visits: sagas.iter().map(|saga| saga.visit).collect(),
            attempts: sagas.iter().map(|saga| saga.attempt).collect(),
            sends: sagas.iter().map(|saga| saga.send).collect(),
            entered: sagas.iter().map(|saga| saga.entered_at).collect(),
            since: sagas.iter().map(|saga| saga.since).collect(),
            backing_off: sagas.iter().map(|saga| saga.backing_off).collect(),
            paused: sagas.iter().map(|saga| saga.paused).collect(),
            stuck: sagas.iter().map(|saga| saga.stuck_since).collect(),
            due: sagas.iter().map(|saga| saga.due_at).collect(),
            reasons: sagas.iter().map(|saga| saga.reason.as_deref()).collect(),
            rejections: sagas.iter().map(|saga| saga.rejection.as_ref()).collect(),
            contexts: sagas.iter().map(|saga| &*saga.context).collect(),
            seqs: sagas.iter().map(|saga| saga.seq).collect(),
            updated: sagas.iter().map(|saga| saga.updated_at).collect(),
            finished: sagas.iter().map(|saga| saga.finished_at).collect(),
        }
    }
}

/// Rows of the history, as arrays for `unnest`; number and time are the saga's own.
struct History<'a> {
    ids: Vec<Uuid>,
    seqs: Vec<i64>,
    times: Vec<DateTime<Utc>>,
    events: Vec<&'a str>,
    steps: Vec<&'a str>,
    directions: Vec<&'a str>,
    visits: Vec<i32>,
    attempts: Vec<i32>,
    details: Vec<Option<&'a Value>>,
    workers: Vec<Option<&'a str>>,
    emits: Vec<String>,
}

impl<'a> History<'a> {
    fn of(entries: &[(&'a Saga, &'a Entry)]) -> Self {
        Self {
            ids: entries.iter().map(|(saga, _)| saga.id).collect(),
            seqs: entries.iter().map(|(saga, _)| saga.seq).collect(),
            times: entries.iter().map(|(saga, _)| saga.updated_at).collect(),
            events: entries.iter().map(|(_, entry)| entry.event.as_str()).collect(),
            steps: entries.iter().map(|(_, entry)| entry.step.as_str()).collect(),
            directions: entries.iter().map(|(_, entry)| entry.direction.name()).collect(),
            visits: entries.iter().map(|(_, entry)| entry.visit).collect(),
            attempts: entries.iter().map(|(_, entry)| entry.attempt).collect(),
            details: entries.iter().map(|(_, entry)| entry.detail.as_ref()).collect(),
            workers: entries.iter().map(|(_, entry)| entry.worker.as_deref()).collect(),
            emits: entries.iter().map(|(_, entry)| entry.emits.join(",")).collect(),
        }
    }
}

/// Inserts new sagas. One whose id is there already fails the whole statement.
pub fn insert(changes: &mut Changes, sagas: &[&Saga]) {
    let columns = Columns::of(sagas);
    let workflows: Vec<&str> = sagas.iter().map(|saga| saga.workflow.as_str()).collect();
    let versions: Vec<i32> = sagas.iter().map(|saga| saga.version).collect();
    let subjects: Vec<Uuid> = sagas.iter().map(|saga| saga.subject_id).collect();
    let owners: Vec<Option<Uuid>> = sagas.iter().map(|saga| saga.owner_id).collect();
    let traces: Vec<Option<Uuid>> = sagas.iter().map(|saga| saga.trace).collect();
    let inputs: Vec<&Value> = sagas.iter().map(|saga| &*saga.input).collect();
    let sql = "
        insert into sagas (id, workflow, version, subject_id, owner_id, status, step, direction, visit, attempt, send,
                           entered_at, since, due_at, input, context, seq, trace, created_at, updated_at)
        select id, workflow, version, subject_id, owner_id, status, step, direction, 1, 0, 0,
               at, at, due_at, input, context, seq, trace, at, at
        from unnest($1::uuid[], $2::text[], $3::int[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[],
                    $9::timestamptz[], $10::timestamptz[], $11::jsonb[], $12::jsonb[], $13::bigint[], $14::uuid[])
            as new (id, workflow, version, subject_id, owner_id, status, step, direction,
                    at, due_at, input, context, seq, trace)";
    changes
        .add("started_sagas", sql)
        .bind(columns.ids)
        .bind(workflows)
        .bind(versions)
        .bind(subjects)
        .bind(owners)
        .bind(columns.statuses)
        .bind(columns.steps)
        .bind(columns.directions)
        .bind(columns.updated)
        .bind(columns.due)
        .bind(inputs)
        .bind(columns.contexts)
        .bind(columns.seqs)
        .bind(traces);
}

/// Writes the sagas that have changed, each compared with the one that was read: every write of a saga moves its number on, or at least
/// the time of its last change.
pub fn save(changes: &mut Changes, sagas: &Rows<Uuid, Saga>) {
    let sagas: Vec<(&Saga, &Saga)> = sagas.changed().map(|(_, before, now)| (before, now)).collect();
    if sagas.is_empty() {
        return;
    }
    let before: Vec<i64> = sagas.iter().map(|(before, _)| before.seq).collect();
    let updated: Vec<DateTime<Utc>> = sagas.iter().map(|(before, _)| before.updated_at).collect();
    let now: Vec<&Saga> = sagas.iter().map(|(_, now)| *now).collect();
    let columns = Columns::of(&now);
    let sql = "
        update sagas set
            status = new.status, step = new.step, direction = new.direction, visit = new.visit,
            attempt = new.attempt, send = new.send, since = new.since, backing_off = new.backing_off,
            due_at = new.due_at, reason = new.reason, rejection = new.rejection, context = new.context,
            seq = new.seq, updated_at = new.updated_at, finished_at = new.finished_at,
            entered_at = new.entered_at, paused = new.paused, stuck_since = new.stuck_since
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[],
                    $8::timestamptz[], $9::bool[], $10::timestamptz[], $11::text[], $12::jsonb[], $13::jsonb[],
                    $14::bigint[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::bool[],
                    $19::timestamptz[], $20::bigint[], $21::timestamptz[])
            as new (id, status, step, direction, visit, attempt, send, since, backing_off, due_at, reason,
                    rejection, context, seq, updated_at, finished_at, entered_at, paused, stuck_since,
                    seq_before, updated_before)
        where sagas.id = new.id and sagas.seq = new.seq_before and sagas.updated_at = new.updated_before
        returning 1";
    changes
        .counted(Rank::Sagas, "saved_sagas", sagas.len(), sql)
        .bind(columns.ids)
        .bind(columns.statuses)
        .bind(columns.steps)
        .bind(columns.directions)
        .bind(columns.visits)
        .bind(columns.attempts)
        .bind(columns.sends)
        .bind(columns.since)
        .bind(columns.backing_off)
        .bind(columns.due)
        .bind(columns.reasons)
        .bind(columns.rejections)
        .bind(columns.contexts)
        .bind(columns.seqs)
        .bind(columns.updated)
        .bind(columns.finished)
        .bind(columns.entered)
        .bind(columns.paused)
        .bind(columns.stuck)
        .bind(before)
        .bind(updated);
}

/// Adds to the history of sagas; number and time are the saga's own.
pub fn record(changes: &mut Changes, entries: &[(&Saga, &Entry)]) {
    if entries.is_empty() {
        return;
    }
    let history = History::of(entries);
    let sql = "
        insert into saga_history (saga_id, seq, at, event, step, direction, visit, attempt, detail, worker, emits)
        select saga_id, seq, at, event, step, direction, visit, attempt, detail, worker, string_to_array(emits, ',')
        from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
                    $7::int[], $8::int[], $9::jsonb[], $10::text[], $11::text[])
            as new (saga_id, seq, at, event, step, direction, visit, attempt, detail, worker, emits)";
    changes
        .add("recorded", sql)
        .bind(history.ids)
        .bind(history.seqs)
        .bind(history.times)
        .bind(history.events)
        .bind(history.steps)
        .bind(history.directions)
        .bind(history.visits)
        .bind(history.attempts)
        .bind(history.details)
        .bind(history.workers)
        .bind(history.emits);
}

/// Reads sagas that are to be decided about, in the order of their ids, and the database's clock after that. Under locks,
/// whoever has them is the one writer of these sagas, and of every effect of their steps in this database, until the
/// transaction ends.
pub async fn read(
    conn: &mut PgConnection,
    ids: &[Uuid],
    control: Control,
) -> Result<(Vec<Saga>, DateTime<Utc>)> {
    if ids.is_empty() {
        return Ok((Vec::new(), super::now(conn).await?));
    }
    let locks = locking(control, "for no key update");
    let sql = format!(
        "select {COLUMNS}, clock_timestamp() as read_at
         from (select {COLUMNS} from sagas where id = any($1) order by id {locks}) as found"
    );
    let rows: Vec<Read> = sqlx::query_as(AssertSqlSafe(sql)).bind(ids).fetch_all(&mut *conn).await?;
    let now = match rows.last() {
        Some(last) => last.read_at,
        None => super::now(conn).await?,
    };
    Ok((rows.into_iter().map(|row| row.saga).collect(), now))
}

/// Reads sagas under lock.
pub async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> Result<(Vec<Saga>, DateTime<Utc>)> {
    read(conn, ids, Control::Pessimistic).await
}

/// Sagas that have ended or are stuck, and whose events are all acknowledged, need no alarm any more.
pub async fn rest(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        update sagas set due_at = null
        where id in (select id from sagas where id = any($1)
                     and status in ('completed', 'compensated', 'abandoned', 'stuck') order by id for no key update)
        "#,
        ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// One saga as it stands.
pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Saga>> {
    sqlx::query_as!(
        Saga,
        "select id, workflow, version, subject_id, owner_id, status, paused, step, direction, visit, attempt,
             send, since, backing_off, due_at, reason, rejection, input, context, seq, created_at,
             updated_at, finished_at, entered_at, stuck_since, trace
         from sagas where id = $1",
        id
    )
    .fetch_optional(db)
    .await
}

/// Some sagas as they stand.
pub async fn get_many(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<Vec<Saga>> {
    sqlx::query_as!(
        Saga,
        "select id, workflow, version, subject_id, owner_id, status, paused, step, direction, visit, attempt,
             send, since, backing_off, due_at, reason, rejection, input, context, seq, created_at,
             updated_at, finished_at, entered_at, stuck_since, trace
         from sagas where id = any($1)",
        ids
    )
    .fetch_all(db)
    .await
}

/// The history of some sagas, oldest first.
pub async fn history(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<Vec<HistoryRow>> {
    sqlx::query_as!(
        HistoryRow,
        "select saga_id, seq, at, event, step, direction, visit, attempt, detail, emits, worker
         from saga_history where saga_id = any($1) order by saga_id, seq",
        ids
    )
    .fetch_all(db)
    .await
}

/// The running sagas of a workflow: each has an alarm, and is found by it.
pub async fn running(db: impl PgExecutor<'_>, workflow: &str) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select id from sagas where due_at is not null and workflow = $1 and status = 'running' order by id",
        workflow,
    )
    .fetch_all(db)
    .await
}

/// How many sagas there are in each status of each workflow, ended ones left out.
pub async fn count_open(db: impl PgExecutor<'_>) -> Result<Vec<(String, String, i64)>> {
    let rows = sqlx::query!(
        r#"
        select workflow, status as "status: String", count(*) as "count!" from sagas
        where finished_at is null and (due_at is not null or stuck_since is not null or paused)
        group by workflow, status
        "#
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.workflow, row.status, row.count)).collect())
}
