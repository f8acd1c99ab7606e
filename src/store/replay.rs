//! What events are told from again: sagas in pages along their ids. Charges are in `payments`.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use crate::saga::Saga;

/// The ids of sagas older than `before` that were still under way at `since`: found without reading the others.
pub async fn older_sagas(
    db: impl PgExecutor<'_>,
    before: Uuid,
    since: DateTime<Utc>,
    workflow: Option<&str>,
) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select id as "id!" from (
            select id, workflow from sagas
            where id < $1 and finished_at is null and (due_at is not null or stuck_since is not null or paused)
            union all
            select id, workflow from sagas where id < $1 and finished_at >= $2
        ) as older
        where $3::text is null or workflow = $3
        order by id
        "#,
        before,
        since,
        workflow,
    )
    .fetch_all(db)
    .await
}

/// The ids of sagas about a reservation, in the order in which they began.
pub async fn sagas_about(
    db: impl PgExecutor<'_>,
    subject: Uuid,
    workflow: Option<&str>,
) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select id from sagas
        where subject_id = $1 and (id = $1 or subject_id <> id)
          and ($2::text is null or workflow = $2)
        order by id
        "#,
        subject,
        workflow,
    )
    .fetch_all(db)
    .await
}

/// Up to `limit` sagas from an id on and below another, in their order.
pub async fn sagas(
    db: impl PgExecutor<'_>,
    from: Uuid,
    below: Uuid,
    workflow: Option<&str>,
    limit: i64,
) -> Result<Vec<Saga>> {
    sqlx::query_as!(
        Saga,
        r#"
        select id, workflow, version, subject_id, owner_id, status, paused, step, direction, visit, attempt,
            send, since, backing_off, due_at, reason, rejection, input, context, seq, created_at,
            updated_at, finished_at, entered_at, stuck_since, trace
        from sagas
        where id >= $1 and id < $2 and ($3::text is null or workflow = $3)
        order by id
        limit $4
        "#,
        from,
        below,
        workflow,
        limit,
    )
    .fetch_all(db)
    .await
}
