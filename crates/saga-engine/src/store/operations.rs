//! What operators look at: parked messages, pauses, their own acts, start-ups.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// A message that cannot be handled, kept whole.
#[derive(Clone, Debug)]
pub struct Parked<'a> {
    pub stream: &'a str,
    pub subject: &'a str,
    pub headers: &'a Value,
    pub payload: &'a [u8],
    pub error: &'a str,
}

/// Keeps a message for an operator.
pub async fn park(db: impl PgExecutor<'_>, parked: &Parked<'_>) -> Result<()> {
    sqlx::query!(
        "insert into parked_messages (stream, subject, headers, payload, error) values ($1, $2, $3, $4, $5)",
        parked.stream,
        parked.subject,
        parked.headers,
        parked.payload,
        parked.error,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A message that was kept.
#[derive(Clone, Debug)]
pub struct ParkedRow {
    pub id: i64,
    pub stream: String,
    pub subject: String,
    pub headers: Value,
    pub payload: Vec<u8>,
    pub error: String,
    pub parked_at: DateTime<Utc>,
}

/// Kept messages, newest first, before the message `before`; `saga` narrows to those whose header names it.
pub async fn parked(
    db: impl PgExecutor<'_>,
    saga: Option<Uuid>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<ParkedRow>> {
    sqlx::query_as!(
        ParkedRow,
        r#"
        select id, stream, subject, headers, payload, error, parked_at
        from parked_messages
        where ($1::text is null or headers ->> 'Saga' = $1 or subject like '%.' || $1)
          and ($2::bigint is null or id < $2)
        order by id desc limit $3
        "#,
        saga.map(|saga| saga.to_string()),
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// One kept message.
pub async fn parked_message(db: impl PgExecutor<'_>, id: i64) -> Result<Option<ParkedRow>> {
    sqlx::query_as!(
        ParkedRow,
        "select id, stream, subject, headers, payload, error, parked_at
         from parked_messages where id = $1",
        id
    )
    .fetch_optional(db)
    .await
}

/// Removes a kept message; false if it is gone already.
pub async fn unpark(db: impl PgExecutor<'_>, id: i64) -> Result<bool> {
    let gone = sqlx::query!("delete from parked_messages where id = $1", id).execute(db).await?;
    Ok(gone.rows_affected() > 0)
}

/// How many messages are parked.
pub async fn count_parked(db: impl PgExecutor<'_>) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from parked_messages"#).fetch_one(db).await
}

/// What a pause is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum PauseKind {
    /// A workflow, by name: its forward commands are held back.
    Workflow,
    /// A step type, by its command: its consumers are paused.
    Step,
}

impl PauseKind {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Step => "step",
        }
    }
}

/// What is paused, by whom and why.
#[derive(Clone, Debug)]
pub struct Pause {
    pub kind: PauseKind,
    pub name: String,
    pub since: DateTime<Utc>,
    pub actor: String,
    pub reason: String,
}

/// Everything that is paused.
pub async fn pauses(db: impl PgExecutor<'_>) -> Result<Vec<Pause>> {
    sqlx::query_as!(
        Pause,
        r#"select kind as "kind: PauseKind", name, since, actor, reason from pauses order by since, kind, name"#
    )
    .fetch_all(db)
    .await
}

/// A paused saga, and the act that paused it.
#[derive(Clone, Debug)]
pub struct PausedSaga {
    pub saga_id: Uuid,
    pub since: Option<DateTime<Utc>>,
    pub actor: Option<String>,
    pub reason: Option<String>,
}

/// Paused sagas, all or this one, newest first.
pub async fn paused_sagas(
    db: impl PgExecutor<'_>,
    saga: Option<Uuid>,
    limit: i64,
) -> Result<Vec<PausedSaga>> {
    sqlx::query_as!(
        PausedSaga,
        r#"
        select paused.id as "saga_id!", last.at as "since?", last.actor as "actor?", last.reason as "reason?"
        from (select id from sagas where paused and ($1::uuid is null or id = $1) order by id desc limit $2) as paused
        left join lateral (
            select at, actor, reason from operator_acts
            where saga_id = paused.id and act = 'pause' order by id desc limit 1) as last on true
        order by paused.id desc
        "#,
        saga,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Notes a pause; `false` if it is one already.
pub async fn pause(
    db: impl PgExecutor<'_>,
    kind: PauseKind,
    name: &str,
    actor: &str,
    reason: &str,
) -> Result<bool> {
    let done = sqlx::query!(
        "insert into pauses (kind, name, actor, reason) values ($1, $2, $3, $4) on conflict do nothing",
        kind.name(),
        name,
        actor,
        reason,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Takes a pause away; `false` if there was none.
pub async fn resume(db: impl PgExecutor<'_>, kind: PauseKind, name: &str) -> Result<bool> {
    let done = sqlx::query!("delete from pauses where kind = $1 and name = $2", kind.name(), name)
        .execute(db)
        .await?;
    Ok(done.rows_affected() > 0)
}

/// Who did what, and why.
#[derive(Clone, Debug)]
pub struct ActRow<'a> {
    pub actor: &'a str,
    pub act: &'a str,
    /// None for an act on something else, which `target` names.
    pub saga_id: Option<Uuid>,
    pub target: Option<&'a str>,
    pub reason: &'a str,
    pub from: &'a str,
    pub to: &'a str,
    pub detail: Option<&'a Value>,
}

/// Writes an operator's act down, in the transaction of the act.
pub async fn record_act(db: impl PgExecutor<'_>, act: &ActRow<'_>) -> Result<()> {
    sqlx::query!(
        r#"
        insert into operator_acts (at, actor, act, saga_id, target, reason, from_status, to_status, detail)
        values (clock_timestamp(), $1, $2, $3, $4, $5, $6, $7, $8)
        "#,
        act.actor,
        act.act,
        act.saga_id,
        act.target,
        act.reason,
        act.from,
        act.to,
        act.detail,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An act as it was written down.
#[derive(Clone, Debug)]
pub struct OperatorAct {
    pub id: i64,
    pub at: DateTime<Utc>,
    /// The key's name, or `cli:` and the user of the command line.
    pub actor: String,
    pub act: String,
    /// The saga it was done to; null for an act on something else.
    pub saga_id: Option<Uuid>,
    /// What it was done to that is no saga: a workflow, a command, a parked message, or something of the program's own.
    pub target: Option<String>,
    pub reason: String,
    /// The status before.
    pub from_status: String,
    /// The status after.
    pub to_status: String,
    /// What belongs to the act: a hand-made output, what was left behind.
    pub detail: Option<Value>,
}

/// Acts whose names begin like this, on one target or on all, newest first, before the act `before`.
pub async fn acts_on(
    db: impl PgExecutor<'_>,
    beginning: &str,
    target: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OperatorAct>> {
    sqlx::query_as!(
        OperatorAct,
        r#"
        select id, at, actor, act, saga_id, reason, from_status, to_status, target, detail
        from operator_acts
        where starts_with(act, $1)
          and ($2::text is null or target = $2)
          and ($3::bigint is null or id < $3)
        order by id desc limit $4
        "#,
        beginning,
        target,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Acts, newest first, before the act `before`.
pub async fn acts(
    db: impl PgExecutor<'_>,
    saga: Option<Uuid>,
    actor: Option<&str>,
    since: Option<DateTime<Utc>>,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<OperatorAct>> {
    sqlx::query_as!(
        OperatorAct,
        r#"
        select id, at, actor, act, saga_id, reason, from_status, to_status, target, detail
        from operator_acts
        where ($1::uuid is null or saga_id = $1)
          and ($2::text is null or actor = $2)
          and ($3::timestamptz is null or at >= $3)
          and ($4::bigint is null or id < $4)
        order by id desc limit $5
        "#,
        saga,
        actor,
        since,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Notes that an instance has started.
pub async fn record_start(db: impl PgExecutor<'_>, id: Uuid, roles: &[String]) -> Result<()> {
    sqlx::query!("insert into instances (id, roles) values ($1, $2)", id, roles).execute(db).await?;
    Ok(())
}
