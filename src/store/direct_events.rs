//! Domain events of acts that have no saga: written in the transaction of the act, and kept to be published again.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// The names of all these events.
pub const NAMES: [&str; 3] = ["performance.changed", "performance.cancelled", "reservation.seats_cancelled"];

/// An event of an act that has no saga.
#[derive(Clone, Debug)]
pub struct DirectEvent {
    pub id: Uuid,
    pub name: String,
    pub subject_id: Uuid,
    pub sequence: i64,
    pub data: Value,
    pub at: DateTime<Utc>,
}

/// Writes an event that is to be published.
pub async fn insert(db: impl PgExecutor<'_>, event: &DirectEvent) -> Result<()> {
    sqlx::query!(
        "insert into direct_events (id, name, subject_id, sequence, data, at) values ($1, $2, $3, $4, $5, $6)",
        event.id,
        event.name,
        event.subject_id,
        event.sequence,
        event.data,
        event.at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How many of these events are about a subject.
pub async fn count(db: impl PgExecutor<'_>, subject: Uuid) -> Result<i64> {
    sqlx::query_scalar!(r#"select count(*) as "count!" from direct_events where subject_id = $1"#, subject)
        .fetch_one(db)
        .await
}

/// Events that JetStream has not acknowledged, oldest first.
pub async fn unannounced(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<DirectEvent>> {
    sqlx::query_as!(
        DirectEvent,
        r#"
        select id, name, subject_id, sequence, data, at from direct_events
        where announced_at is null order by id limit $1
        "#,
        limit,
    )
    .fetch_all(db)
    .await
}

/// JetStream has these events.
pub async fn announced(db: impl PgExecutor<'_>, ids: &[Uuid], now: DateTime<Utc>) -> Result<()> {
    sqlx::query!("update direct_events set announced_at = $2 where id = any($1)", ids, now)
        .execute(db)
        .await?;
    Ok(())
}

/// Up to `limit` events from an id on and below another, of one subject or of all, in the order of their ids.
pub async fn page(
    db: impl PgExecutor<'_>,
    from: Uuid,
    below: Uuid,
    subject: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DirectEvent>> {
    sqlx::query_as!(
        DirectEvent,
        r#"
        select id, name, subject_id, sequence, data, at from direct_events
        where id >= $1 and id < $2 and ($3::uuid is null or subject_id = $3)
        order by id limit $4
        "#,
        from,
        below,
        subject,
        limit,
    )
    .fetch_all(db)
    .await
}
