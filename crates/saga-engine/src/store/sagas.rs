//! Sagas: inserted, locked, saved and read in batches.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, PgExecutor, Row};
use uuid::Uuid;

use super::Control;
use super::Result;
use super::codes::{self, Codes, Unregistered};
use super::members::{self, MembersColumn};
use super::names::Name;
use super::tracked_rows::TrackedRows;
use super::write_batch::{LockOrder, Part, WriteBatch};
use crate::saga::{Direction, Saga, Status};

/// All columns of a saga in the view of sagas, as in [`get_many`], which is held against the schema.
pub const COLUMNS: &str = "id, workflow, version, subject_id, status, paused, step, direction, visit, attempt, resend_count, \
    sent_at, backing_off, due_at, flight, reason, rejection, input, context, seq, created_at, updated_at, \
    finished_at, entered_at, stuck_since, trace, members";

/// A saga from a row with [`COLUMNS`].
pub fn from_row(row: &PgRow) -> Result<Saga> {
    let Name(status) = row.try_get("status")?;
    let Name(direction) = row.try_get("direction")?;
    Ok(Saga {
        id: row.try_get("id")?,
        workflow: row.try_get("workflow")?,
        version: row.try_get("version")?,
        subject_id: row.try_get("subject_id")?,
        status,
        paused: row.try_get("paused")?,
        step: row.try_get("step")?,
        direction,
        visit: row.try_get("visit")?,
        attempt: row.try_get("attempt")?,
        send: row.try_get("resend_count")?,
        entered_at: row.try_get("entered_at")?,
        since: row.try_get("sent_at")?,
        backing_off: row.try_get("backing_off")?,
        members: row.try_get::<MembersColumn, _>("members")?.into(),
        due_at: row.try_get("due_at")?,
        flight: row.try_get("flight")?,
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

const INSERT_SAGAS: Part = Part::new("started_sagas", include_str!("../../sql/insert_sagas.sql"));
const _: fn(&Columns<'_>, &[Option<Uuid>]) = |c, subjects| {
    drop(sqlx::query_file!(
        "sql/insert_sagas.sql",
        &c.ids,
        &c.definitions,
        subjects as &[Option<Uuid>],
        &c.statuses,
        &c.steps,
        &c.directions,
        &c.updated,
        &c.due as &[Option<DateTime<Utc>>],
        &c.flights as &[Option<i64>],
        &c.seqs,
        subjects as &[Option<Uuid>],
    ));
};
const SAVE_SAGAS: Part = Part::new("saved_sagas", include_str!("../../sql/save_sagas.sql"));
const _: fn(&Columns<'_>) = |c| {
    drop(sqlx::query_file!(
        "sql/save_sagas.sql",
        &c.ids,
        &c.statuses,
        &c.steps,
        &c.directions,
        &c.visits,
        &c.attempts,
        &c.sends,
        &c.since,
        &c.backing_off,
        &c.due as &[Option<DateTime<Utc>>],
        &c.flights as &[Option<i64>],
        &c.reasons as &[Option<&str>],
        &c.rejections as &[Option<&Value>],
        &c.seqs,
        &c.updated,
        &c.finished as &[Option<DateTime<Utc>>],
        &c.entered,
        &c.paused,
        &c.stuck as &[Option<DateTime<Utc>>],
        &c.seqs,
        &c.updated,
        &c.members as &[Option<Vec<u8>>],
    ));
};

/// The mutable columns of a batch of sagas, as arrays for `unnest`.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    definitions: Vec<i16>,
    statuses: Vec<i16>,
    steps: Vec<i16>,
    directions: Vec<i16>,
    visits: Vec<i32>,
    attempts: Vec<i32>,
    sends: Vec<i32>,
    entered: Vec<DateTime<Utc>>,
    since: Vec<DateTime<Utc>>,
    backing_off: Vec<bool>,
    paused: Vec<bool>,
    stuck: Vec<Option<DateTime<Utc>>>,
    due: Vec<Option<DateTime<Utc>>>,
    flights: Vec<Option<i64>>,
    reasons: Vec<Option<&'a str>>,
    rejections: Vec<Option<&'a Value>>,
    seqs: Vec<i64>,
    updated: Vec<DateTime<Utc>>,
    finished: Vec<Option<DateTime<Utc>>>,
    members: Vec<Option<Vec<u8>>>,
}

impl<'a> Columns<'a> {
    fn of(codes: &Codes, sagas: &[&'a Saga]) -> std::result::Result<Self, Unregistered> {
        let mut columns = Self::default();
        for saga in sagas {
            let names = codes.of(saga)?;
            columns.ids.push(saga.id);
            columns.definitions.push(names.code);
            columns.statuses.push(codes::status(saga.status));
            columns.steps.push(names.step(&saga.step)?);
            columns.directions.push(codes::direction(saga.direction));
            columns.visits.push(saga.visit);
            columns.attempts.push(saga.attempt);
            columns.sends.push(saga.send);
            columns.entered.push(saga.entered_at);
            columns.since.push(saga.since);
            columns.backing_off.push(saga.backing_off);
            columns.paused.push(saga.paused);
            columns.stuck.push(saga.stuck_since);
            columns.due.push(saga.due_at);
            columns.flights.push(saga.flight);
            columns.reasons.push(saga.reason.as_deref());
            columns.rejections.push(saga.rejection.as_ref());
            columns.seqs.push(saga.seq);
            columns.updated.push(saga.updated_at);
            columns.finished.push(saga.finished_at);
            columns.members.push(members::encode(&saga.members));
        }
        Ok(columns)
    }
}

/// Inserts new sagas. One whose id is there already fails the whole statement, before all other parts. The members of a group that a
/// saga starts with stand as its row does, so none are written.
pub fn insert(changes: &mut WriteBatch, codes: &Codes, sagas: &[&Saga]) {
    let columns = match Columns::of(codes, sagas) {
        Ok(columns) => columns,
        Err(error) => return changes.refuse(error),
    };
    let subjects: Vec<Option<Uuid>> =
        sagas.iter().map(|saga| Some(saga.subject_id).filter(|id| *id != saga.id)).collect();
    let traces: Vec<Option<Uuid>> = sagas.iter().map(|saga| saga.trace).collect();
    changes
        .counted(LockOrder::SAGAS, INSERT_SAGAS, sagas.len())
        .bind(columns.ids)
        .bind(columns.definitions)
        .bind(subjects)
        .bind(columns.statuses)
        .bind(columns.steps)
        .bind(columns.directions)
        .bind(columns.updated)
        .bind(columns.due)
        .bind(columns.flights)
        .bind(columns.seqs)
        .bind(traces);
}

/// Writes the sagas that have changed, each compared with the one that was read: every write of a saga moves its number on, or at least
/// the time of its last change.
pub fn save(changes: &mut WriteBatch, codes: &Codes, sagas: &TrackedRows<Uuid, Saga>) {
    let sagas: Vec<(&Saga, &Saga)> = sagas.changed().map(|(_, before, now)| (before, now)).collect();
    if sagas.is_empty() {
        return;
    }
    let before: Vec<i64> = sagas.iter().map(|(before, _)| before.seq).collect();
    let updated: Vec<DateTime<Utc>> = sagas.iter().map(|(before, _)| before.updated_at).collect();
    let now: Vec<&Saga> = sagas.iter().map(|(_, now)| *now).collect();
    let columns = match Columns::of(codes, &now) {
        Ok(columns) => columns,
        Err(error) => return changes.refuse(error),
    };
    changes
        .counted(LockOrder::SAGAS, SAVE_SAGAS, sagas.len())
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
        .bind(columns.flights)
        .bind(columns.reasons)
        .bind(columns.rejections)
        .bind(columns.seqs)
        .bind(columns.updated)
        .bind(columns.finished)
        .bind(columns.entered)
        .bind(columns.paused)
        .bind(columns.stuck)
        .bind(before)
        .bind(updated)
        .bind(columns.members);
}

/// Reads sagas that are to be decided about, in the order of their ids, and the database's clock after that. Under locks,
/// this transaction is the one writer of these sagas, and of every effect of their steps in this database, until the
/// transaction ends.
pub async fn read(
    conn: &mut PgConnection,
    ids: &[Uuid],
    control: Control,
) -> Result<(Vec<Saga>, DateTime<Utc>)> {
    if control == Control::Pessimistic {
        return lock(conn, ids).await;
    }
    if ids.is_empty() {
        return Ok((Vec::new(), super::now(conn).await?));
    }
    let sql = format!(
        "select {COLUMNS}, clock_timestamp() as read_at from saga_view where id = any($1) order by id"
    );
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(ids).fetch_all(&mut *conn).await?;
    let now = match rows.last() {
        Some(last) => last.try_get("read_at")?,
        None => super::now(conn).await?,
    };
    Ok((rows.iter().map(from_row).collect::<Result<_>>()?, now))
}

/// Reads sagas under lock. The view is read by a statement of its own: it sees what was committed before the last lock.
pub async fn lock(conn: &mut PgConnection, ids: &[Uuid]) -> Result<(Vec<Saga>, DateTime<Utc>)> {
    let locked =
        sqlx::query_scalar!("select id from sagas where id = any($1) order by id for no key update", ids)
            .fetch_all(&mut *conn)
            .await?;
    let sagas = if locked.is_empty() { Vec::new() } else { get_many(&mut *conn, &locked).await? };
    Ok((sagas, super::now(conn).await?))
}

/// Sagas without a flight that have ended or are stuck, and whose events are all acknowledged, need no alarm any more.
pub async fn rest(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        update sagas set due_at = null
        where id in (select id from sagas where id = any($1) and due_at is not null
                     and status > 2 order by id for no key update)
        "#,
        ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// One saga as it stands.
pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Saga>> {
    Ok(get_many(db, &[id]).await?.pop())
}

/// Some sagas as they stand, in the order of their ids.
pub async fn get_many(db: impl PgExecutor<'_>, ids: &[Uuid]) -> Result<Vec<Saga>> {
    sqlx::query_as!(
        Saga,
        r#"
        select id as "id!", workflow as "workflow!", version as "version!", subject_id as "subject_id!",
            status as "status!: Name<Status>", paused as "paused!", step as "step!",
            direction as "direction!: Name<Direction>", visit as "visit!", attempt as "attempt!", resend_count as "send!",
            sent_at as "since!", backing_off as "backing_off!", due_at, flight, reason, rejection,
            input as "input!", context as "context!", seq as "seq!", created_at as "created_at!",
            updated_at as "updated_at!", finished_at, entered_at as "entered_at!", stuck_since, trace,
            members as "members!: MembersColumn"
        from saga_view where id = any($1) order by id
        "#,
        ids
    )
    .fetch_all(db)
    .await
}

/// The running sagas of a workflow.
pub async fn running(db: impl PgExecutor<'_>, workflow: &str) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select v.id as "id!" from saga_view v join open_sagas using (id)
        where v.workflow = $1 and v.status = 'running' order by v.id
        "#,
        workflow,
    )
    .fetch_all(db)
    .await
}

/// How many sagas there are in each status of each workflow, ended ones left out.
pub async fn count_open(db: impl PgExecutor<'_>) -> Result<Vec<(String, String, i64)>> {
    let rows = sqlx::query!(
        r#"
        select workflow as "workflow!", status as "status!: String", count(*) as "count!"
        from saga_view join open_sagas using (id)
        group by workflow, status
        "#
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.workflow, row.status, row.count)).collect())
}
