//! How each concert runs its line, and what of it is still for sale.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;
use crate::ids::ConcertId;

/// The most users that a concert can have active at once; the constraint of the table says the same.
pub const MOST_ACTIVE: i32 = 1_000_000;
/// The most admissions per minute; the constraint of the table says the same.
pub const FASTEST: i32 = 6_000_000;

/// How a concert admits its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct QueueSettings {
    pub concert_id: Uuid,
    /// Most users active at once.
    pub max_active: i32,
    /// Users admitted per minute.
    pub admit_per_minute: i32,
    /// The slowest that a brake may make the admission, per minute.
    pub min_rate: i32,
    /// The fastest that the admission may become, per minute.
    pub max_rate: i32,
    /// From when early comers may gather.
    pub pre_queue_at: Option<DateTime<Utc>>,
    /// From when anybody is admitted; without it, at once.
    pub opens_at: Option<DateTime<Utc>>,
    /// Nobody is admitted while this is set.
    pub paused: bool,
}

/// A change of some settings: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    pub max_active: Option<i32>,
    pub admit_per_minute: Option<i32>,
    pub min_rate: Option<i32>,
    pub max_rate: Option<i32>,
    /// `Some(None)` takes the time away.
    pub pre_queue_at: Option<Option<DateTime<Utc>>>,
    /// `Some(None)` takes the time away.
    pub opens_at: Option<Option<DateTime<Utc>>>,
    pub paused: Option<bool>,
}

impl SettingsChange {
    /// What is out of bounds, as the name of the field and what it must be.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let fields = [
            ("max_active", self.max_active, MOST_ACTIVE),
            ("admit_per_minute", self.admit_per_minute, FASTEST),
            ("min_rate", self.min_rate, FASTEST),
            ("max_rate", self.max_rate, FASTEST),
        ];
        fields
            .into_iter()
            .filter(|(_, value, most)| value.is_some_and(|value| !(0..=*most).contains(&value)))
            .map(|(name, _, most)| (name, format!("must be between 0 and {most}")))
            .collect()
    }
}

/// What of a concert is still for sale: over all its dates whose window has not closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stock {
    pub concert_id: Uuid,
    /// Dates whose window has not closed yet.
    pub dates: i64,
    /// Seats of those dates.
    pub seats: i64,
    /// Whether any of those seats is not sold.
    pub unsold: bool,
    /// Seats that are free this moment, counted up to a tenth of each date and one more.
    pub free: i64,
}

/// The settings of every concert.
pub async fn all(db: impl PgExecutor<'_>) -> Result<Vec<QueueSettings>> {
    sqlx::query_as!(
        QueueSettings,
        r#"select concert_id, max_active, admit_per_minute, min_rate, max_rate, pre_queue_at, opens_at, paused
           from queue_settings"#
    )
    .fetch_all(db)
    .await
}

/// The settings of one concert, if there is such a concert.
pub async fn get(db: impl PgExecutor<'_>, concert: ConcertId) -> Result<Option<QueueSettings>> {
    sqlx::query_as!(
        QueueSettings,
        r#"select concert_id, max_active, admit_per_minute, min_rate, max_rate, pre_queue_at, opens_at, paused
           from queue_settings where concert_id = $1"#,
        concert
    )
    .fetch_optional(db)
    .await
}

/// Changes what the change names; answers the settings as they are then, or nothing if there is no such concert.
pub async fn change(
    db: impl PgExecutor<'_>,
    concert: ConcertId,
    change: &SettingsChange,
) -> Result<Option<QueueSettings>> {
    sqlx::query_as!(
        QueueSettings,
        r#"update queue_settings set
             max_active = coalesce($2, max_active),
             admit_per_minute = coalesce($3, admit_per_minute),
             min_rate = coalesce($4, min_rate),
             max_rate = coalesce($5, max_rate),
             pre_queue_at = case when $6 then $7 else pre_queue_at end,
             opens_at = case when $8 then $9 else opens_at end,
             paused = coalesce($10, paused),
             updated_at = clock_timestamp()
           where concert_id = $1
           returning concert_id, max_active, admit_per_minute, min_rate, max_rate, pre_queue_at, opens_at, paused"#,
        concert,
        change.max_active,
        change.admit_per_minute,
        change.min_rate,
        change.max_rate,
        change.pre_queue_at.is_some(),
        change.pre_queue_at.flatten(),
        change.opens_at.is_some(),
        change.opens_at.flatten(),
        change.paused
    )
    .fetch_optional(db)
    .await
}

/// What is still for sale of these concerts. A concert that is not in the answer has no date whose window is open or to come.
///
/// It stops counting where the answer is settled, so that a large date with plenty of seats costs as little as a small one.
pub async fn stock(
    db: impl PgExecutor<'_>,
    concerts: &[ConcertId],
    now: DateTime<Utc>,
) -> Result<Vec<Stock>> {
    sqlx::query_as!(
        Stock,
        r#"select p.concert_id,
                  count(*) as "dates!",
                  sum(p.seats_total) as "seats!",
                  bool_or(exists (select from seats s
                                  where s.performance_id = p.id and s.status <> 'sold')) as "unsold!",
                  sum((select count(*) from (select from seats s
                                             where s.performance_id = p.id and s.status = 'free'
                                             limit p.seats_total / 10 + 1) few))::bigint as "free!"
           from performances p
           where p.concert_id = any($1) and p.sale_closes_at > $2
           group by p.concert_id"#,
        concerts,
        now
    )
    .fetch_all(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_out_of_bounds_is_named() {
        let change = SettingsChange {
            max_active: Some(-1),
            admit_per_minute: Some(0),
            max_rate: Some(FASTEST + 1),
            ..Default::default()
        };
        let names: Vec<_> = change.problems().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["max_active", "max_rate"]);
    }
}
