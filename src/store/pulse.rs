//! One query for all timed work: whether any of it is due.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

use super::Result;
use super::flights::FLIGHT_TIME;

/// Which work is due, and when the next will be.
#[derive(Clone, Copy, Debug)]
pub struct Pulse {
    pub now: DateTime<Utc>,
    /// The earliest alarm of any saga, or when the sweeper looks at the oldest flight.
    pub next_due: Option<DateTime<Utc>>,
    /// Whether charges, or other events that no saga has, wait to be announced.
    pub charges: bool,
}

/// Asks with one statement over four small indexes.
pub async fn pulse(db: impl PgExecutor<'_>) -> Result<Pulse> {
    sqlx::query_as!(
        Pulse,
        r#"
        select clock_timestamp() as "now!",
            least((select min(due_at) from sagas where due_at is not null),
                  (select min(at) + $1 from flights)) as next_due,
            exists (select from unannounced_entries)
                or exists (select from direct_events where announced_at is null) as "charges!"
        "#,
        FLIGHT_TIME as _,
    )
    .fetch_one(db)
    .await
}
