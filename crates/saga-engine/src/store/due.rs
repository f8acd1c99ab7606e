//! Sagas whose alarm has come: locked for the sweeper, and put off where they cannot be moved.

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::Result;
use super::sagas::COLUMNS;
use crate::saga::Saga;

/// An alarm that rings for a saga which is due only after so many seconds is an old one: the saga has a later one.
pub const EARLY: f64 = 5.0;

/// Sagas that are due, under lock.
#[derive(Debug, Default)]
pub struct Due {
    pub sagas: Vec<Saga>,
    /// The rows that this release cannot read, by id, each with the reason.
    pub unreadable: Vec<(Uuid, String)>,
}

impl Due {
    /// How many there are, readable or not.
    pub fn found(&self) -> usize {
        self.sagas.len() + self.unreadable.len()
    }
}

/// Locks up to `limit` sagas whose alarm has come, leaving out those that another transaction has locked; of the waiting ones
/// only those that were due by `rung`. Each row is read by itself: one that cannot be read does not hide the others.
pub async fn lock(
    conn: &mut PgConnection,
    now: DateTime<Utc>,
    rung: DateTime<Utc>,
    limit: i64,
) -> Result<Due> {
    let locked = sqlx::query_scalar!(
        "select id from sagas where due_at <= $1 and (status <> 1 or due_at <= $2)
         order by due_at limit $3 for no key update skip locked",
        now,
        rung,
        limit,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut due = Due::default();
    if locked.is_empty() {
        return Ok(due);
    }
    let sql = format!("select {COLUMNS} from saga_view where id = any($1) order by due_at");
    for row in sqlx::query(AssertSqlSafe(sql)).bind(&locked).fetch_all(conn).await? {
        match super::sagas::from_row(&row) {
            Ok(saga) => due.sagas.push(saga),
            Err(error) => due.unreadable.push((row.try_get("id")?, error.to_string())),
        }
    }
    Ok(due)
}

/// Locks those of these sagas that are due now or in [`EARLY`] seconds.
pub async fn lock_rung(conn: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<Saga>> {
    let locked = sqlx::query_scalar!(
        "select id from sagas where id = any($1) and due_at <= clock_timestamp() + make_interval(secs => $2) and status < 3
         order by id for no key update",
        ids,
        EARLY,
    )
    .fetch_all(&mut *conn)
    .await?;
    if locked.is_empty() { Ok(Vec::new()) } else { super::sagas::get_many(conn, &locked).await }
}

/// Moves the alarm of sagas that cannot be moved on, so that they do not stand before the others. The pause grows with the time
/// since their last change, from 5 seconds to 10 minutes.
pub async fn put_off(conn: &mut PgConnection, ids: &[Uuid], now: DateTime<Utc>) -> Result<()> {
    sqlx::query(
        "update sagas set due_at = $2 + least(greatest(
             case when isfinite(updated_at) then ($2 - updated_at) / 4 end, interval '5 seconds'), interval '10 minutes')
         where id in (select id from sagas where id = any($1) order by id for no key update)",
    )
    .bind(ids)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}
