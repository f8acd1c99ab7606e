//! Sagas whose events are published again, in pages along their ids.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, PgPool};
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
            select id from open_sagas where id < $1
            union
            select id from sagas where id < $1 and finished_at >= $2
        ) as older
        where $3::text is null or exists (select from saga_view v where v.id = older.id and v.workflow = $3)
        order by id
        "#,
        before,
        since,
        workflow,
    )
    .fetch_all(db)
    .await
}

/// The ids of sagas about a subject, in the order in which they began.
pub async fn sagas_about(
    db: impl PgExecutor<'_>,
    subject: Uuid,
    workflow: Option<&str>,
) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
        select id as "id!" from saga_view
        where id in (select id from sagas where id = $1 and subject_id is null or subject_id = $1)
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
    pool: &PgPool,
    from: Uuid,
    below: Uuid,
    workflow: Option<&str>,
    limit: i64,
) -> Result<Vec<Saga>> {
    let ids = sqlx::query_scalar!(
        r#"
        select id as "id!" from saga_view
        where id >= $1 and id < $2 and ($3::text is null or workflow = $3)
        order by id
        limit $4
        "#,
        from,
        below,
        workflow,
        limit,
    )
    .fetch_all(pool)
    .await?;
    super::sagas::get_many(pool, &ids).await
}
