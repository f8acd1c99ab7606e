//! Finding sagas among millions: lists by filter, and how many there are.
//!
//! Every question runs in a short transaction of its own that is planned for its values: with `$1 is null or …` a plan
//! for any values would read the whole table, one for these values takes the index that fits. A question that is
//! too wide all the same is cut off by the server.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Result;
use super::names::Name;
use crate::saga::{Direction, Saga, Status};
use crate::schemas::{SagaStatus, StepDirection};

/// How long the server looks before it gives up.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What sagas are narrowed by; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub workflow: Option<String>,
    pub version: Option<i32>,
    pub status: Option<Status>,
    pub step: Option<String>,
    pub direction: Option<Direction>,
    pub paused: Option<bool>,
    /// Only those that have not ended.
    pub open: bool,
    pub subject_id: Option<Uuid>,
    pub owner_id: Option<Uuid>,
    /// What the input names as its performance.
    pub performance_id: Option<Uuid>,
    /// Stands in the reason, in capitals or not.
    pub reason: Option<String>,
    /// Started so long ago or longer.
    pub older_than: Option<TimeDelta>,
    /// Nothing has happened for so long or longer.
    pub idle_for: Option<TimeDelta>,
}

/// How many sagas stand in one place.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Count {
    pub workflow: String,
    pub version: i32,
    #[schema(value_type = SagaStatus)]
    pub status: Status,
    pub step: String,
    #[schema(value_type = StepDirection)]
    pub direction: Direction,
    pub count: i64,
}

/// Sagas, newest first, older than `before`: ids are ordered by time.
pub async fn list(pool: &PgPool, filter: &Filter, before: Option<Uuid>, limit: i64) -> Result<Vec<Saga>> {
    let mut tx = pool.begin().await?;
    let times = prepare(&mut tx, filter).await?;
    let found = sqlx::query_as!(
        Saga,
        r#"
        select id, workflow, version, subject_id, owner_id, status, paused, step, direction, visit, attempt,
            send, since, backing_off, due_at, reason, rejection, input, context, seq, created_at,
            updated_at, finished_at, entered_at, stuck_since, trace
        from sagas
        where ($1::text is null or workflow = $1)
          and ($2::int is null or version = $2)
          and ($3::text is null or status = $3)
          and ($4::text is null or step = $4)
          and ($5::text is null or direction = $5)
          and ($6::bool is null or paused = $6)
          and ($7::uuid is null or (subject_id = $7 and (id = $7 or subject_id <> id)))
          and ($8::uuid is null or owner_id = $8)
          and ($9::text is null or input ->> 'performance_id' = $9)
          and ($10::text is null or strpos(lower(reason), lower($10)) > 0)
          and ($11::timestamptz is null or created_at <= $11)
          and ($12::timestamptz is null or updated_at <= $12)
          and (not $13::bool or (finished_at is null and (due_at is not null or stuck_since is not null or paused)))
          and (not $14::bool or stuck_since is not null)
          and ($15::uuid is null or id < $15)
        order by id desc
        limit $16
        "#,
        filter.workflow.as_deref(),
        filter.version,
        filter.status.map(Status::name),
        filter.step.as_deref(),
        filter.direction.map(Direction::name),
        filter.paused,
        filter.subject_id,
        filter.owner_id,
        filter.performance_id.map(|id| id.to_string()),
        filter.reason.as_deref(),
        times.created_before,
        times.updated_before,
        filter.is_open(),
        filter.status == Some(Status::Stuck),
        before,
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(found)
}

/// How many sagas stand where.
pub async fn counts(pool: &PgPool, filter: &Filter) -> Result<Vec<Count>> {
    let mut tx = pool.begin().await?;
    let times = prepare(&mut tx, filter).await?;
    let found = sqlx::query_as!(
        Count,
        r#"
        select workflow, version, status as "status: Name<Status>", step, direction as "direction: Name<Direction>",
               count(*) as "count!"
        from sagas
        where ($1::text is null or workflow = $1)
          and ($2::int is null or version = $2)
          and ($3::text is null or status = $3)
          and ($4::text is null or step = $4)
          and ($5::text is null or direction = $5)
          and ($6::bool is null or paused = $6)
          and ($7::uuid is null or (subject_id = $7 and (id = $7 or subject_id <> id)))
          and ($8::uuid is null or owner_id = $8)
          and ($9::text is null or input ->> 'performance_id' = $9)
          and ($10::text is null or strpos(lower(reason), lower($10)) > 0)
          and ($11::timestamptz is null or created_at <= $11)
          and ($12::timestamptz is null or updated_at <= $12)
          and (not $13::bool or (finished_at is null and (due_at is not null or stuck_since is not null or paused)))
          and (not $14::bool or stuck_since is not null)
        group by workflow, version, status, step, direction
        order by workflow, version, status, step, direction
        "#,
        filter.workflow.as_deref(),
        filter.version,
        filter.status.map(Status::name),
        filter.step.as_deref(),
        filter.direction.map(Direction::name),
        filter.paused,
        filter.subject_id,
        filter.owner_id,
        filter.performance_id.map(|id| id.to_string()),
        filter.reason.as_deref(),
        times.created_before,
        times.updated_before,
        filter.is_open(),
        filter.status == Some(Status::Stuck),
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(found)
}

/// How many sagas of each workflow are stuck; none where there are none.
pub async fn count_stuck(pool: &PgPool) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select workflow, count(*) as "count!" from sagas where stuck_since is not null group by workflow"#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.workflow, row.count)).collect())
}

impl Filter {
    /// Only sagas that have not ended can match: they are few, and an index of their own knows them.
    fn is_open(&self) -> bool {
        self.open || self.status.is_some_and(|status| !status.is_end())
    }
}

/// Whether the server gave up on a question that was too wide.
pub fn was_cut_off(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code == "57014"))
}

struct Times {
    created_before: Option<DateTime<Utc>>,
    updated_before: Option<DateTime<Utc>>,
}

/// Plans for the values at hand, bounds the search, and turns ages into times by the database's clock.
async fn prepare(conn: &mut PgConnection, filter: &Filter) -> Result<Times> {
    let patience = PATIENCE.as_millis().to_string();
    let now = sqlx::query_scalar!(
        r#"
        select clock_timestamp() as "now!"
        from set_config('plan_cache_mode', 'force_custom_plan', true) as planned,
             set_config('statement_timeout', $1, true) as bounded
        "#,
        patience,
    )
    .fetch_one(conn)
    .await?;
    let ago = |age: Option<TimeDelta>| age.and_then(|age| now.checked_sub_signed(age));
    Ok(Times { created_before: ago(filter.older_than), updated_before: ago(filter.idle_for) })
}
