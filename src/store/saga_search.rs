//! Finding sagas among millions: lists by filter, and how many there are.
//!
//! Every query runs in a short transaction of its own that is planned for its values: with `$1 is null or …` a plan
//! for any values would read the whole table, one for these values takes the index that fits. The server cancels a query that
//! still takes too long.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Result;
use super::codes;
use super::names::Name;
use crate::ids;
use crate::saga::{Direction, Saga, Status};
use crate::schemas::{SagaStatus, StepDirection};

/// After this long the server cancels a query.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A filter of sagas; all given conditions must hold.
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
    /// The user of the booking or cancellation that it is.
    pub user_id: Option<Uuid>,
    /// The performance of that booking.
    pub performance_id: Option<Uuid>,
    /// Stands in the reason, in capitals or not.
    pub reason: Option<String>,
    /// Started so long ago or longer.
    pub older_than: Option<TimeDelta>,
    /// Nothing has happened for so long or longer.
    pub idle_for: Option<TimeDelta>,
    pub started_after: Option<DateTime<Utc>>,
    pub started_before: Option<DateTime<Utc>>,
    pub attribute: Option<Attribute>,
}

/// An attribute by its name, and what its value may be: a number is asked for as it is written.
#[derive(Clone, Debug)]
pub struct Attribute {
    pub name: String,
    pub values: Vec<Value>,
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

/// Sagas for display, newest first, older than `before`: ids are ordered by time.
pub async fn list(pool: &PgPool, filter: &Filter, before: Option<Uuid>, limit: i64) -> Result<Vec<Saga>> {
    let mut tx = pool.begin().await?;
    let times = prepare(&mut tx, filter).await?;
    let before = [before, times.last_id()].into_iter().flatten().min();
    let places = Places::find(&mut tx, filter).await?;
    let ids = sqlx::query_scalar!(
        r#"
        select s.id as "id!"
        from sagas s
        where ($1::smallint[] is null or s.definition = any ($1))
          and ($2::int[] is null or s.definition * 65536 + s.step = any ($2))
          and ($3::smallint is null or s.status = $3)
          and ($4::smallint is null or s.direction = $4)
          and ($5::bool is null or s.paused = $5)
          and ($6::uuid is null or s.id = any (array(
               select other.id from sagas other where other.id = $6 and other.subject_id is null or other.subject_id = $6)))
          and ($7::uuid is null or s.id = any (array(
               select r.id from reservations r where r.user_id = $7
               union all
               select r.cancellation_id from reservations r where r.user_id = $7 and r.cancellation_id is not null)))
          and ($8::uuid is null or s.id = any (array(
               select r.id from reservations r where r.performance_id = $8
               union all
               select r.cancellation_id from reservations r
               where r.performance_id = $8 and r.cancellation_id is not null)))
          and ($9::text is null or strpos(lower(s.reason), lower($9)) > 0)
          and ($10::timestamptz is null or s.created_at <= $10)
          and ($11::timestamptz is null or s.updated_at <= $11)
          and (not $12::bool or s.id = any (array(select open.id from open_sagas open)))
          and (not $13::bool or s.stuck_since is not null)
          and ($14::uuid is null or s.id < $14)
          and ($15::timestamptz is null or s.created_at >= $15)
          and ($16::uuid is null or s.id >= $16)
          and ($18::text is null or s.id in (
               select a.saga_id from saga_attributes a where a.name = $18 and a.value = any ($19::jsonb[])))
        order by s.id desc
        limit $17
        "#,
        places.definitions.as_deref(),
        places.steps.as_deref(),
        filter.status.map(codes::status),
        filter.direction.map(codes::direction),
        filter.paused,
        filter.subject_id,
        filter.user_id,
        filter.performance_id,
        filter.reason.as_deref(),
        times.created_before,
        times.updated_before,
        filter.is_open(),
        filter.status == Some(Status::Stuck),
        before,
        times.created_after,
        times.first_id(),
        limit,
        filter.attribute.as_ref().map(|attribute| attribute.name.as_str()),
        filter.attribute_values(),
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut found = super::sagas::get_many(&mut *tx, &ids).await?;
    found.reverse();
    super::flights::show_next_look(&mut *tx, &mut found).await?;
    tx.commit().await?;
    Ok(found)
}

/// How many sagas stand where.
pub async fn counts(pool: &PgPool, filter: &Filter) -> Result<Vec<Count>> {
    let mut tx = pool.begin().await?;
    let times = prepare(&mut tx, filter).await?;
    let places = Places::find(&mut tx, filter).await?;
    let found = sqlx::query_as!(
        Count,
        r#"
        select d.workflow as "workflow!", d.version as "version!", saga_status_name(found.status) as "status!: Name<Status>",
               coalesce(d.steps[found.step + 1], 'unknown step ' || found.step) as "step!",
               saga_direction_name(found.direction) as "direction!: Name<Direction>", found.count as "count!"
        from (
            select s.definition, s.status, s.step, s.direction, count(*) as count
            from sagas s
            where ($1::smallint[] is null or s.definition = any ($1))
              and ($2::int[] is null or s.definition * 65536 + s.step = any ($2))
              and ($3::smallint is null or s.status = $3)
              and ($4::smallint is null or s.direction = $4)
              and ($5::bool is null or s.paused = $5)
              and ($6::uuid is null or s.id = any (array(
                   select other.id from sagas other where other.id = $6 and other.subject_id is null or other.subject_id = $6)))
              and ($7::uuid is null or s.id = any (array(
                   select r.id from reservations r where r.user_id = $7
                   union all
                   select r.cancellation_id from reservations r where r.user_id = $7 and r.cancellation_id is not null)))
              and ($8::uuid is null or s.id = any (array(
                   select r.id from reservations r where r.performance_id = $8
                   union all
                   select r.cancellation_id from reservations r
                   where r.performance_id = $8 and r.cancellation_id is not null)))
              and ($9::text is null or strpos(lower(s.reason), lower($9)) > 0)
              and ($10::timestamptz is null or s.created_at <= $10)
              and ($11::timestamptz is null or s.updated_at <= $11)
              and (not $12::bool or s.id = any (array(select open.id from open_sagas open)))
              and (not $13::bool or s.stuck_since is not null)
              and ($14::uuid is null or s.id < $14)
              and ($15::timestamptz is null or s.created_at >= $15)
              and ($16::uuid is null or s.id >= $16)
              and ($17::text is null or s.id in (
                   select a.saga_id from saga_attributes a where a.name = $17 and a.value = any ($18::jsonb[])))
            group by s.definition, s.status, s.step, s.direction
        ) as found
        left join workflow_definitions d on d.code = found.definition
        order by 1, 2, 3, 4, 5
        "#,
        places.definitions.as_deref(),
        places.steps.as_deref(),
        filter.status.map(codes::status),
        filter.direction.map(codes::direction),
        filter.paused,
        filter.subject_id,
        filter.user_id,
        filter.performance_id,
        filter.reason.as_deref(),
        times.created_before,
        times.updated_before,
        filter.is_open(),
        filter.status == Some(Status::Stuck),
        times.last_id(),
        times.created_after,
        times.first_id(),
        filter.attribute.as_ref().map(|attribute| attribute.name.as_str()),
        filter.attribute_values(),
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(found)
}

/// How many sagas of each workflow are stuck; none where there are none.
pub async fn count_stuck(pool: &PgPool) -> Result<Vec<(String, i64)>> {
    let rows = sqlx::query!(
        r#"select workflow as "workflow!", count(*) as "count!" from saga_view where stuck_since is not null group by workflow"#
    )
    .fetch_all(pool)
    .await?;
    Ok(rows.into_iter().map(|row| (row.workflow, row.count)).collect())
}

impl Filter {
    fn attribute_values(&self) -> &[Value] {
        self.attribute.as_ref().map_or(&[], |attribute| &attribute.values)
    }

    /// Only sagas that have not ended can match: they are few, and an index of their own knows them.
    fn is_open(&self) -> bool {
        self.open || self.status.is_some_and(|status| !status.is_end())
    }
}

/// Whether the server cancelled a query that took too long.
pub fn was_cut_off(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().is_some_and(|code| code == "57014"))
}

/// How much older than its row the id of a saga may be: a request that comes again under its `Idempotency-Key` uses the id of
/// the first attempt, for a day.
const ID_AGE_MAX: TimeDelta = TimeDelta::hours(25);
/// How far the clock of a process that makes ids may be ahead of the database's.
const CLOCK_SKEW_MAX: TimeDelta = TimeDelta::hours(1);

struct Times {
    created_after: Option<DateTime<Utc>>,
    created_before: Option<DateTime<Utc>>,
    updated_before: Option<DateTime<Utc>>,
}

impl Times {
    /// Ids are ordered by time, so that a range of times is a range of the primary key, roughly: sagas that were created in
    /// the range have ids from here.
    fn first_id(&self) -> Option<Uuid> {
        Some(ids::first_of(self.created_after?.checked_sub_signed(ID_AGE_MAX)?))
    }

    /// And ids below this.
    fn last_id(&self) -> Option<Uuid> {
        Some(ids::first_of(self.created_before?.checked_add_signed(CLOCK_SKEW_MAX)?))
    }
}

/// The numbers of the workflows and steps that a filter names. Rows have numbers, and comparing them takes a tenth of the time that
/// making names of them takes.
#[derive(Default)]
struct Places {
    /// `None` if the filter names neither.
    definitions: Option<Vec<i16>>,
    /// A definition and a place in its list of steps, as one number; `None` if the filter names no step.
    steps: Option<Vec<i32>>,
}

impl Places {
    async fn find(conn: &mut PgConnection, filter: &Filter) -> Result<Self> {
        if filter.workflow.is_none() && filter.version.is_none() && filter.step.is_none() {
            return Ok(Self::default());
        }
        let rows = sqlx::query!(
            r#"
        select code as "code!", coalesce(code * 65536 + array_position(steps, $3) - 1, 0) as "place!"
        from workflow_definitions
        where ($1::text is null or workflow = $1)
          and ($2::int is null or version = $2)
          and ($3::text is null or $3 = any (steps))
        "#,
            filter.workflow.as_deref(),
            filter.version,
            filter.step.as_deref(),
        )
        .fetch_all(conn)
        .await?;
        let steps = filter.step.is_some().then(|| rows.iter().map(|row| row.place).collect());
        Ok(Self { definitions: Some(rows.iter().map(|row| row.code).collect()), steps })
    }
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
    let created_before = [ago(filter.older_than), filter.started_before].into_iter().flatten().min();
    Ok(Times { created_after: filter.started_after, created_before, updated_before: ago(filter.idle_for) })
}
