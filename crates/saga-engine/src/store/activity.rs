//! Sagas of the last minutes by when they were started and where they stand now: a bounded read of the newest rows.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use super::names::Name;
use crate::saga::Status;

/// Most rows that are read.
pub const ACTIVITY_ROWS_MAX: i64 = 50_000;

/// Sagas that were started within one interval and have the same status now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityRow {
    pub at: DateTime<Utc>,
    pub status: Status,
    pub count: i64,
    /// The oldest of them.
    pub first: DateTime<Utc>,
}

/// The newest sagas, at most [`ACTIVITY_ROWS_MAX`], with ids from `from` and a start from `since`, by intervals of `bucket`.
pub async fn activity(
    db: impl PgExecutor<'_>,
    from: Uuid,
    since: DateTime<Utc>,
    bucket: TimeDelta,
) -> Result<Vec<ActivityRow>> {
    let bucket = bucket.to_std().unwrap_or(Duration::from_secs(10)).as_secs_f64();
    sqlx::query_as!(
        ActivityRow,
        r#"
        select date_bin(make_interval(secs => $4), created_at, to_timestamp(0)) as "at!",
               saga_status_name(status) as "status!: Name<Status>", count(*) as "count!", min(created_at) as "first!"
        from (select status, created_at from sagas where id >= $1 order by id desc limit $3) as newest
        where created_at >= $2
        group by 1, status
        order by 1, status
        "#,
        from,
        since,
        ACTIVITY_ROWS_MAX,
        bucket,
    )
    .fetch_all(db)
    .await
}
