//! What an operator looks at first: sagas that have not ended by where they stand, stuck ones, parked messages, and what was
//! started in the last minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::PgPool;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{AskError, SagaFilter, sagas};
use crate::ids;
use crate::saga::Status;
use crate::store::saga_search::Count;
use crate::store::{self, activity};

/// Within this time an answer is reused, so that all readers of a process share its database queries.
const FRESH: Duration = Duration::from_secs(1);
/// How far back the activity goes.
const ACTIVITY_WINDOW: TimeDelta = TimeDelta::minutes(10);
/// The width of one interval of it.
const ACTIVITY_BUCKET: TimeDelta = TimeDelta::seconds(10);

/// The state of the engine at one moment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Overview {
    pub at: DateTime<Utc>,
    /// Sagas that wait for an operator.
    pub stuck: i64,
    /// Messages that nothing could act on.
    pub parked: i64,
    /// Sagas that have not ended, by where they stand; null if counting them took too long.
    pub open: Option<Vec<Count>>,
    pub activity: Activity,
}

/// Sagas that were started in the last minutes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Activity {
    /// Where it begins: ten minutes ago, or later if more sagas than can be looked at were started since.
    pub since: DateTime<Utc>,
    pub until: DateTime<Utc>,
    pub interval_seconds: i64,
    /// Intervals in which sagas were started, oldest first.
    pub intervals: Vec<ActivityInterval>,
}

/// Sagas that were started in one interval.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ActivityInterval {
    /// When the interval began.
    pub at: DateTime<Utc>,
    /// How many were started in it, by the status that they have now.
    #[schema(value_type = Object)]
    pub by_status: BTreeMap<&'static str, i64>,
}

/// Caches the overview for a moment.
#[derive(Debug, Default)]
pub struct Overviews(Mutex<Option<(Instant, Overview)>>);

impl Overviews {
    /// The overview, at most a second old.
    pub async fn get(&self, pool: &PgPool) -> Result<Overview, AskError> {
        let mut last = self.0.lock().await;
        if let Some((_, overview)) = last.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(overview.clone());
        }
        let overview = look(pool).await?;
        *last = Some((Instant::now(), overview.clone()));
        Ok(overview)
    }
}

async fn look(pool: &PgPool) -> Result<Overview, AskError> {
    let at = store::now(pool).await?;
    let stuck = store::saga_search::count_stuck(pool).await?.into_iter().map(|(_, count)| count).sum();
    let parked = store::operations::count_parked(pool).await?;
    let filter = SagaFilter { open: Some(true), ..SagaFilter::default() };
    let open = match sagas::counts(pool, &filter).await {
        Ok(open) => Some(open),
        Err(AskError::TooWide) => None,
        Err(error) => return Err(error),
    };
    let since = at - ACTIVITY_WINDOW;
    let rows = activity::activity(pool, ids::first_of(since), since, ACTIVITY_BUCKET).await?;
    Ok(Overview { at, stuck, parked, open, activity: summed(rows, since, at) })
}

fn summed(rows: Vec<activity::ActivityRow>, since: DateTime<Utc>, until: DateTime<Utc>) -> Activity {
    let read: i64 = rows.iter().map(|row| row.count).sum();
    let first = rows.iter().map(|row| row.first).min();
    // With as many rows as are read at most, there may be older ones.
    let since = first.filter(|_| read >= activity::ACTIVITY_ROWS_MAX).unwrap_or(since);
    let mut intervals: Vec<ActivityInterval> = Vec::new();
    for row in rows {
        let is_same = intervals.last().is_some_and(|last| last.at == row.at);
        if !is_same {
            intervals.push(ActivityInterval { at: row.at, by_status: BTreeMap::new() });
        }
        if let Some(last) = intervals.last_mut() {
            last.by_status.insert(Status::name(row.status), row.count);
        }
    }
    Activity { since, until, interval_seconds: ACTIVITY_BUCKET.num_seconds(), intervals }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::activity::{ACTIVITY_ROWS_MAX, ActivityRow};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
    }

    fn row(seconds: i64, status: Status, count: i64) -> ActivityRow {
        ActivityRow { at: at(seconds), status, count, first: at(seconds + 3) }
    }

    #[test]
    fn intervals_sum_up_statuses() {
        let rows = vec![row(0, Status::Completed, 5), row(0, Status::Stuck, 1), row(10, Status::Running, 2)];
        let activity = summed(rows, at(-500), at(20));
        assert_eq!(activity.since, at(-500));
        assert_eq!(activity.intervals.len(), 2);
        assert_eq!(activity.intervals[0].by_status, BTreeMap::from([("completed", 5), ("stuck", 1)]));
        assert_eq!((activity.intervals[1].at, &activity.intervals[1].by_status["running"]), (at(10), &2));
    }

    #[test]
    fn truncated_activity_begins_with_the_oldest_saga() {
        let rows = vec![row(0, Status::Completed, ACTIVITY_ROWS_MAX - 1), row(10, Status::Completed, 1)];
        assert_eq!(summed(rows, at(-500), at(20)).since, at(3));
    }
}
