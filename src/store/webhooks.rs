//! Endpoints of webhooks, and the lease of the process that serves them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// An endpoint, without its secrets.
#[derive(Clone, Debug)]
pub struct EndpointRow {
    pub id: Uuid,
    pub url: String,
    pub events: Vec<String>,
    pub description: String,
    pub previous_until: Option<DateTime<Utc>>,
    pub failing_since: Option<DateTime<Utc>>,
    pub disabled_at: Option<DateTime<Utc>>,
    pub disabled_reason: Option<String>,
    pub created_at: DateTime<Utc>,
}

/// An endpoint that is not disabled, as far as it decides which events are queued for it.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: Uuid,
    pub events: Vec<String>,
    pub created_at: DateTime<Utc>,
}

/// Keeps others from adding endpoints until the transaction ends, and counts them.
pub async fn lock_and_count(conn: &mut sqlx::PgConnection) -> Result<i64> {
    sqlx::query!("lock table webhook_endpoints in share row exclusive mode").execute(&mut *conn).await?;
    sqlx::query_scalar!(r#"select count(*) as "count!" from webhook_endpoints"#).fetch_one(conn).await
}

/// Adds an endpoint; one of this id may be there already.
pub async fn insert(
    db: impl PgExecutor<'_>,
    id: Uuid,
    url: &str,
    events: &[String],
    description: &str,
    secret: &[u8],
) -> Result<()> {
    sqlx::query!(
        r#"
        insert into webhook_endpoints (id, url, events, description, secret) values ($1, $2, $3, $4, $5)
        on conflict (id) do nothing
        "#,
        id,
        url,
        events,
        description,
        secret,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The secret of an endpoint.
pub async fn secret(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Vec<u8>>> {
    sqlx::query_scalar!("select secret from webhook_endpoints where id = $1", id).fetch_optional(db).await
}

/// One endpoint.
pub async fn get(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<EndpointRow>> {
    sqlx::query_as!(
        EndpointRow,
        r#"
        select id, url, events, description, previous_until, failing_since, disabled_at, disabled_reason, created_at
        from webhook_endpoints where id = $1
        "#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Endpoints, newest first, before the endpoint `before`.
pub async fn list(db: impl PgExecutor<'_>, before: Option<Uuid>, limit: i64) -> Result<Vec<EndpointRow>> {
    sqlx::query_as!(
        EndpointRow,
        r#"
        select id, url, events, description, previous_until, failing_since, disabled_at, disabled_reason, created_at
        from webhook_endpoints where $1::uuid is null or id < $1 order by id desc limit $2
        "#,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Deletes an endpoint with its deliveries; false if there is none.
pub async fn delete(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool> {
    let deleted = sqlx::query!("delete from webhook_endpoints where id = $1", id).execute(db).await?;
    Ok(deleted.rows_affected() > 0)
}

/// Gives an endpoint another secret; the present one signs too for `overlap`.
pub async fn rotate(db: impl PgExecutor<'_>, id: Uuid, secret: &[u8], overlap: Duration) -> Result<bool> {
    let rotated = sqlx::query!(
        r#"
        update webhook_endpoints
        set previous_secret = secret, previous_until = clock_timestamp() + make_interval(secs => $3), secret = $2
        where id = $1
        "#,
        id,
        secret,
        overlap.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(rotated.rows_affected() > 0)
}

/// Lets a disabled endpoint have deliveries again; false if it was not disabled.
pub async fn enable(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool> {
    let enabled = sqlx::query!(
        r#"
        update webhook_endpoints set disabled_at = null, disabled_reason = null, failing_since = null
        where id = $1 and disabled_at is not null
        "#,
        id,
    )
    .execute(db)
    .await?;
    Ok(enabled.rows_affected() > 0)
}

/// Disables an endpoint; false if it was disabled already.
pub async fn disable(db: impl PgExecutor<'_>, id: Uuid, reason: &str) -> Result<bool> {
    let disabled = sqlx::query!(
        r#"
        update webhook_endpoints set disabled_at = clock_timestamp(), disabled_reason = $2
        where id = $1 and disabled_at is null
        "#,
        id,
        reason,
    )
    .execute(db)
    .await?;
    Ok(disabled.rows_affected() > 0)
}

/// Endpoints that are not disabled.
pub async fn subscriptions(db: impl PgExecutor<'_>) -> Result<Vec<Subscription>> {
    sqlx::query_as!(
        Subscription,
        "select id, events, created_at from webhook_endpoints where disabled_at is null order by id",
    )
    .fetch_all(db)
    .await
}

/// How many endpoints are disabled, and how many deliveries wait for the others.
pub async fn counts(db: impl PgExecutor<'_>) -> Result<(i64, i64)> {
    let counted = sqlx::query!(
        r#"
        select (select count(*) from webhook_endpoints where disabled_at is not null) as "disabled!",
               (select count(*) from webhook_endpoints e join webhook_deliveries d on d.endpoint_id = e.id
                where d.status = 'pending' and e.disabled_at is null) as "pending!"
        "#,
    )
    .fetch_one(db)
    .await?;
    Ok((counted.disabled, counted.pending))
}

/// Takes or keeps the lease; false if another process has it.
pub async fn hold_lease(db: impl PgExecutor<'_>, holder: Uuid, ttl: Duration) -> Result<bool> {
    let held = sqlx::query!(
        r#"
        update webhook_lease set holder = $1, lease_until = clock_timestamp() + make_interval(secs => $2)
        where holder = $1 or lease_until is null or lease_until < clock_timestamp()
        "#,
        holder,
        ttl.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(held.rows_affected() > 0)
}

/// Gives the lease back.
pub async fn release_lease(db: impl PgExecutor<'_>, holder: Uuid) -> Result<()> {
    sqlx::query!("update webhook_lease set holder = null, lease_until = null where holder = $1", holder)
        .execute(db)
        .await?;
    Ok(())
}
