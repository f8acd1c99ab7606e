//! Deliveries of events to endpoints: queued, attempted, ended, looked at, attempted again.
//!
//! Of the deliveries to one endpoint about one subject only the first that is pending is attempted. The others wait behind it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;

/// An event for an endpoint.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    pub id: Uuid,
    pub endpoint_id: Uuid,
    pub event_id: String,
    pub event: String,
    pub subject_id: Uuid,
    pub sequence: i64,
    pub body: String,
}

/// A delivery that is to be attempted now, with what it takes.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    pub id: Uuid,
    pub endpoint_id: Uuid,
    pub event_id: String,
    pub body: String,
    /// This attempt included.
    pub attempts: i32,
    pub url: String,
    pub secret: Vec<u8>,
    /// Signs too.
    pub previous_secret: Option<Vec<u8>>,
}

/// A delivery as the log shows it.
#[derive(Clone, Debug)]
pub struct DeliveryRow {
    pub id: Uuid,
    pub event_id: String,
    pub event: String,
    pub subject_id: Uuid,
    pub sequence: i64,
    pub status: String,
    pub attempts: i32,
    pub next_attempt_at: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub response_status: Option<i16>,
    pub error: Option<String>,
}

/// What came of an attempt.
#[derive(Clone, Debug)]
pub struct AttemptEnd<'a> {
    pub id: Uuid,
    pub response_status: Option<i16>,
    pub error: Option<&'a str>,
}

/// Queues deliveries. One of the same event to the same endpoint that is there already stays as it is.
pub async fn enqueue(db: impl PgExecutor<'_>, new: &[NewDelivery]) -> Result<u64> {
    let ids: Vec<Uuid> = new.iter().map(|one| one.id).collect();
    let endpoints: Vec<Uuid> = new.iter().map(|one| one.endpoint_id).collect();
    let event_ids: Vec<&str> = new.iter().map(|one| one.event_id.as_str()).collect();
    let events: Vec<&str> = new.iter().map(|one| one.event.as_str()).collect();
    let subjects: Vec<Uuid> = new.iter().map(|one| one.subject_id).collect();
    let sequences: Vec<i64> = new.iter().map(|one| one.sequence).collect();
    let bodies: Vec<&str> = new.iter().map(|one| one.body.as_str()).collect();
    let queued = sqlx::query!(
        r#"
        insert into webhook_deliveries (id, endpoint_id, event_id, event, subject_id, sequence, body, next_attempt_at)
        select new.id, new.endpoint_id, new.event_id, new.event, new.subject_id, new.sequence, new.body, clock_timestamp()
        from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::uuid[], $6::bigint[], $7::text[])
            as new (id, endpoint_id, event_id, event, subject_id, sequence, body)
        -- An endpoint may have been deleted since it was read.
        join webhook_endpoints e on e.id = new.endpoint_id
        on conflict on constraint webhook_deliveries_once do nothing
        "#,
        &ids,
        &endpoints,
        &event_ids as &[&str],
        &events as &[&str],
        &subjects,
        &sequences,
        &bodies as &[&str],
    )
    .execute(db)
    .await?;
    Ok(queued.rows_affected())
}

/// Claims deliveries that are due for `claim`: of each endpoint at most its slots, and of each subject the first alone.
pub async fn claim(
    db: impl PgExecutor<'_>,
    endpoints: &[Uuid],
    slots: &[i64],
    claim: Duration,
) -> Result<Vec<DueDelivery>> {
    sqlx::query_as!(
        DueDelivery,
        r#"
        with wanted as materialized (
            select due.id
            from unnest($1::uuid[], $2::bigint[]) as free (endpoint_id, slots)
            cross join lateral (
                select d.id from webhook_deliveries d
                where d.endpoint_id = free.endpoint_id and d.status = 'pending' and d.next_attempt_at <= clock_timestamp()
                  and not exists (
                      select from webhook_deliveries before
                      where before.endpoint_id = d.endpoint_id and before.subject_id = d.subject_id and before.status = 'pending'
                        and (before.sequence, before.id) < (d.sequence, d.id))
                order by d.next_attempt_at limit free.slots) as due
        )
        update webhook_deliveries d
        set attempts = d.attempts + 1, next_attempt_at = clock_timestamp() + make_interval(secs => $3)
        from wanted, webhook_endpoints e
        where d.id = wanted.id and e.id = d.endpoint_id and e.disabled_at is null and d.status = 'pending'
          and d.next_attempt_at <= clock_timestamp()
        returning d.id, d.endpoint_id, d.event_id, d.body, d.attempts, e.url, e.secret,
                  case when e.previous_until > clock_timestamp() then e.previous_secret end as previous_secret
        "#,
        endpoints,
        slots,
        claim.as_secs_f64(),
    )
    .fetch_all(db)
    .await
}

/// A delivery has arrived: its endpoint works.
pub async fn delivered(conn: &mut PgConnection, end: &AttemptEnd<'_>) -> Result<()> {
    ended(&mut *conn, end, "delivered").await?;
    sqlx::query!(
        r#"
        update webhook_endpoints e set failing_since = null
        from webhook_deliveries d where d.id = $1 and e.id = d.endpoint_id and e.failing_since is not null
        "#,
        end.id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A delivery was attempted for the last time.
pub async fn failed(conn: &mut PgConnection, end: &AttemptEnd<'_>) -> Result<Option<DateTime<Utc>>> {
    ended(&mut *conn, end, "failed").await?;
    failing_since(conn, end.id).await
}

async fn ended(conn: &mut PgConnection, end: &AttemptEnd<'_>, status: &str) -> Result<()> {
    sqlx::query!(
        r#"
        update webhook_deliveries
        set status = $2, ended_at = clock_timestamp(), response_status = $3, error = $4
        where id = $1 and status = 'pending'
        "#,
        end.id,
        status,
        end.response_status,
        end.error,
    )
    .execute(&mut *conn)
    .await?;
    // Those behind it need not wait for the time of its next attempt.
    sqlx::query!(
        r#"
        update webhook_deliveries behind set next_attempt_at = clock_timestamp()
        from webhook_deliveries d
        where d.id = $1 and behind.endpoint_id = d.endpoint_id and behind.subject_id = d.subject_id
          and behind.status = 'pending' and behind.next_attempt_at > clock_timestamp() and behind.attempts = 0
        "#,
        end.id,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A delivery is to be attempted again after `wait`. Answers since when its endpoint has failed.
pub async fn put_off(
    conn: &mut PgConnection,
    end: &AttemptEnd<'_>,
    wait: Duration,
) -> Result<Option<DateTime<Utc>>> {
    sqlx::query!(
        r#"
        update webhook_deliveries
        set next_attempt_at = clock_timestamp() + make_interval(secs => $2), response_status = $3, error = $4
        where id = $1 and status = 'pending'
        "#,
        end.id,
        wait.as_secs_f64(),
        end.response_status,
        end.error,
    )
    .execute(&mut *conn)
    .await?;
    // Those behind it are not looked at before it is due.
    sqlx::query!(
        r#"
        update webhook_deliveries behind set next_attempt_at = d.next_attempt_at
        from webhook_deliveries d
        where d.id = $1 and d.status = 'pending' and behind.endpoint_id = d.endpoint_id
          and behind.subject_id = d.subject_id and behind.status = 'pending' and behind.id <> d.id
          and behind.next_attempt_at < d.next_attempt_at
        "#,
        end.id,
    )
    .execute(&mut *conn)
    .await?;
    failing_since(conn, end.id).await
}

async fn failing_since(conn: &mut PgConnection, delivery: Uuid) -> Result<Option<DateTime<Utc>>> {
    let since = sqlx::query_scalar!(
        r#"
        update webhook_endpoints e set failing_since = coalesce(e.failing_since, clock_timestamp())
        from webhook_deliveries d where d.id = $1 and e.id = d.endpoint_id
        returning e.failing_since
        "#,
        delivery,
    );
    Ok(since.fetch_optional(conn).await?.flatten())
}

/// Endpoints for which more than `most` deliveries wait.
pub async fn overfull(db: impl PgExecutor<'_>, most: i64) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select e.id from webhook_endpoints e
        where e.disabled_at is null and $1::bigint < (
            select count(*) from (
                select from webhook_deliveries d where d.endpoint_id = e.id and d.status = 'pending' limit $1::bigint + 1) as counted)
        "#,
        most,
    )
    .fetch_all(db)
    .await
}

/// The log of an endpoint, newest first, before the delivery `before`; `status` narrows it.
pub async fn list(
    db: impl PgExecutor<'_>,
    endpoint: Uuid,
    status: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DeliveryRow>> {
    sqlx::query_as!(
        DeliveryRow,
        r#"
        select id, event_id, event, subject_id, sequence, status, attempts, next_attempt_at, created_at, ended_at,
               response_status, error
        from webhook_deliveries
        where endpoint_id = $1 and ($2::text is null or status = $2) and ($3::uuid is null or id < $3)
        order by id desc limit $4
        "#,
        endpoint,
        status,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Lets a delivery be attempted anew, from now on; none if the endpoint has no such delivery.
pub async fn replay(db: impl PgExecutor<'_>, endpoint: Uuid, delivery: Uuid) -> Result<Option<DeliveryRow>> {
    sqlx::query_as!(
        DeliveryRow,
        r#"
        update webhook_deliveries
        set status = 'pending', attempts = 0, next_attempt_at = clock_timestamp(), ended_at = null
        where endpoint_id = $1 and id = $2
        returning id, event_id, event, subject_id, sequence, status, attempts, next_attempt_at, created_at, ended_at,
                  response_status, error
        "#,
        endpoint,
        delivery,
    )
    .fetch_optional(db)
    .await
}

/// Deletes up to `limit` deliveries that ended before this moment.
pub async fn purge(db: impl PgExecutor<'_>, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from webhook_deliveries where id = any (array(
            select id from webhook_deliveries where ended_at < $1 order by ended_at limit $2))
        "#,
        before,
        limit,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}
