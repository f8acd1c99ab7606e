//! The settings of each concert's line, and its remaining stock.

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
    /// Users admitted per minute; with the brake on, where it begins.
    pub admit_per_minute: i32,
    /// The lowest admission rate that the brake sets, per minute. The brake is on if this and `max_rate` are set.
    pub min_rate: Option<i32>,
    /// The highest admission rate that the brake allows, per minute.
    pub max_rate: Option<i32>,
    /// From when users may join before the opening.
    pub pre_queue_at: Option<DateTime<Utc>>,
    /// From when users are admitted; null: from when the first window of the concert's dates opens.
    pub opens_at: Option<DateTime<Utc>>,
    /// No user is admitted while this is set.
    pub paused: bool,
    /// What the draws at its openings are made from.
    #[serde(skip)]
    pub seed: Seed,
}

/// The secret of a concert's draws. It appears in no answer and no log.
#[derive(Clone, Default, PartialEq, Eq, sqlx::Type)]
#[sqlx(transparent)]
pub struct Seed(Vec<u8>);

impl Seed {
    /// Thirty-two bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Seed")
    }
}

#[cfg(test)]
impl QueueSettings {
    /// A line of no concert in particular.
    pub fn sample() -> Self {
        Self {
            concert_id: ConcertId::from_u128(1),
            max_active: 10,
            admit_per_minute: 600,
            min_rate: None,
            max_rate: None,
            pre_queue_at: None,
            opens_at: None,
            paused: false,
            seed: Seed::default(),
        }
    }
}

/// A change of some settings: what is `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    pub max_active: Option<i32>,
    pub admit_per_minute: Option<i32>,
    /// `Some(None)` takes the bound away, and so the brake.
    pub min_rate: Option<Option<i32>>,
    /// `Some(None)` takes the bound away, and so the brake.
    pub max_rate: Option<Option<i32>>,
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
            ("min_rate", self.min_rate.flatten(), FASTEST),
            ("max_rate", self.max_rate.flatten(), FASTEST),
        ];
        fields
            .into_iter()
            .filter(|(_, value, most)| value.is_some_and(|value| !(0..=*most).contains(&value)))
            .map(|(name, _, most)| (name, format!("must be between 0 and {most}")))
            .collect()
    }
}

/// The remaining stock of a concert, over all its dates whose window has not closed.
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
    /// When the sale opens or has opened, by the windows of those dates.
    pub opens_at: Option<DateTime<Utc>>,
}

#[cfg(test)]
impl Stock {
    /// What is left of one date with fifty seats, on sale since `at(0)`.
    pub fn sample(unsold: bool, free: i64) -> Self {
        let concert_id = ConcertId::from_u128(1);
        Self { concert_id, dates: 1, seats: 50, unsold, free, opens_at: Some(at(0)) }
    }
}

/// An arbitrary time plus so many seconds.
#[cfg(test)]
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap_or_default()
}

/// The settings of every concert.
pub async fn all(db: impl PgExecutor<'_>) -> Result<Vec<QueueSettings>> {
    sqlx::query_as!(
        QueueSettings,
        r#"select concert_id, max_active, admit_per_minute, min_rate, max_rate, pre_queue_at, opens_at, paused,
                  seed as "seed: Seed"
           from queue_settings"#
    )
    .fetch_all(db)
    .await
}

/// The settings of one concert, if there is such a concert.
pub async fn get(db: impl PgExecutor<'_>, concert: ConcertId) -> Result<Option<QueueSettings>> {
    sqlx::query_as!(
        QueueSettings,
        r#"select concert_id, max_active, admit_per_minute, min_rate, max_rate, pre_queue_at, opens_at, paused,
                  seed as "seed: Seed"
           from queue_settings where concert_id = $1"#,
        concert
    )
    .fetch_optional(db)
    .await
}

/// When the sale of locked settings opens or has opened, and what time it is.
#[derive(Clone, Copy, Debug)]
pub struct Locked {
    pub opens_at: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
}

/// Locks the settings of a concert, if there is such a concert, until the transaction ends.
pub async fn lock(db: impl PgExecutor<'_>, concert: ConcertId) -> Result<Option<Locked>> {
    sqlx::query_as!(
        Locked,
        r#"select coalesce(opens_at, sale_opening(concert_id, clock_timestamp())) as opens_at, clock_timestamp() as "now!"
           from queue_settings where concert_id = $1 for update"#,
        concert
    )
    .fetch_optional(db)
    .await
}

/// Changes what the change names; answers the settings as they are then, or nothing if there is no such concert.
///
/// Once a sale has opened its seed is public. When it is to open again, the new draw gets a new one; an opening within
/// the next two seconds counts as one that was, because some instance may have published the seed already.
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
             min_rate = case when $4 then $5 else min_rate end,
             max_rate = case when $6 then $7 else max_rate end,
             pre_queue_at = case when $8 then $9 else pre_queue_at end,
             opens_at = case when $10 then $11 else opens_at end,
             paused = coalesce($12, paused),
             seed = case when $10 and $11 is distinct from opens_at
                 and coalesce(opens_at, sale_opening(concert_id, clock_timestamp())) < clock_timestamp() + interval '2 s'
                 and coalesce($11, sale_opening(concert_id, clock_timestamp())) > clock_timestamp()
                 then fresh_seed() else seed end,
             updated_at = clock_timestamp()
           where concert_id = $1
           returning concert_id, max_active, admit_per_minute, min_rate, max_rate, pre_queue_at, opens_at, paused,
                     seed as "seed: Seed""#,
        concert,
        change.max_active,
        change.admit_per_minute,
        change.min_rate.is_some(),
        change.min_rate.flatten(),
        change.max_rate.is_some(),
        change.max_rate.flatten(),
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
/// It stops counting once the answer is known, so that a large date with plenty of seats costs as little as a small one. It
/// begins at the end of each date, where seats are free for longest: without an order the whole table would be read.
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
                  bool_or((select true from seats s
                           where s.performance_id = p.id and s.status not in ('sold', 'blocked')
                           order by s.number desc limit 1) is not null) as "unsold!",
                  sum((select count(*) from (select from seats s
                                             where s.performance_id = p.id and s.status = 'free'
                                             order by s.number desc
                                             limit p.seats_total / 10 + 1) few))::bigint as "free!",
                  sale_opening(p.concert_id, $2) as opens_at
           from performances p
           where p.concert_id = any($1) and least(p.sale_closes_at, p.starts_at, p.cancelled_at) > $2
           group by p.concert_id"#,
        concerts,
        now
    )
    .fetch_all(db)
    .await
}

/// How many sagas are overdue by more than two seconds, counted up to ten thousand: a measure of overload.
pub async fn overdue_sagas(db: impl PgExecutor<'_>) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from (
               select from sagas where due_at < clock_timestamp() - interval '2 s' limit 10000) late"#
    )
    .fetch_one(db)
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
            max_rate: Some(Some(FASTEST + 1)),
            ..Default::default()
        };
        let names: Vec<_> = change.problems().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["max_active", "max_rate"]);
    }
}
