//! What operators look at: parked messages, their own acts, start-ups.

use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// A message that nobody can act on, kept whole.
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

/// How many messages are parked.
pub async fn count_parked(db: impl PgExecutor<'_>) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from parked_messages"#).fetch_one(db).await
}

/// Who did what to a saga, and why.
#[derive(Clone, Debug)]
pub struct ActRow<'a> {
    pub actor: &'a str,
    pub act: &'a str,
    pub saga_id: Uuid,
    pub reason: &'a str,
    pub from_status: &'a str,
    pub to_status: &'a str,
}

/// Writes an operator's act down, in the transaction of the act.
pub async fn record_act(db: impl PgExecutor<'_>, act: &ActRow<'_>) -> Result<()> {
    sqlx::query!(
        r#"
        insert into operator_acts (at, actor, act, saga_id, reason, from_status, to_status)
        values (clock_timestamp(), $1, $2, $3, $4, $5, $6)
        "#,
        act.actor,
        act.act,
        act.saga_id,
        act.reason,
        act.from_status,
        act.to_status,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes that an instance has started.
pub async fn record_start(db: impl PgExecutor<'_>, id: Uuid, roles: &[String]) -> Result<()> {
    sqlx::query!("insert into instances (id, roles) values ($1, $2)", id, roles).execute(db).await?;
    Ok(())
}
