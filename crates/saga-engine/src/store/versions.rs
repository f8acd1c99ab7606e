//! Which versions of which workflows are still under way.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use super::names::Name;
use crate::saga::{Direction, Status};

/// Sagas that have not ended, of one version, at one place.
#[derive(Clone, Debug)]
pub struct UnderWay {
    pub workflow: String,
    pub version: i32,
    pub status: Status,
    pub direction: Direction,
    pub step: String,
    pub count: i64,
    /// A few of them, the oldest first.
    pub examples: Vec<Uuid>,
}

/// Every place where sagas are that have not ended.
pub async fn under_way(db: impl PgExecutor<'_>) -> Result<Vec<UnderWay>> {
    sqlx::query_as!(
        UnderWay,
        r#"
        select workflow as "workflow!", version as "version!", status as "status!: Name<Status>",
               direction as "direction!: Name<Direction>", step as "step!",
               count(*) as "count!", (array_agg(id order by id))[1:3] as "examples!"
        from saga_view join open_sagas using (id)
        group by workflow, version, status, direction, step
        order by workflow, version, step, direction, status
        "#
    )
    .fetch_all(db)
    .await
}
