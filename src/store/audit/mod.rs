//! The queries of the audit: one statement per invariant, which finds the rows that break it.
//!
//! All of them run in one [`snapshot`], so they see the same moment however busy the sale is. A
//! service's effect and its saga's next state commit together, so the rows agree between two commits.
//! A query that allows for sagas under way says so.

mod dates;
mod points;
mod recent;
mod redemptions;
mod references;
mod rules;
mod sagas;
mod seats;
mod support;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

pub use dates::cancelled_dates;
pub use points::{balances, payments, points_taken, unsettled_points};
pub use recent::{RECENT_NAMED, RecentOffender, recent};
pub use redemptions::redemptions;
pub use references::dangling;
pub use rules::row_rules;
pub use sagas::{asleep, overdue_sagas, stuck_sagas};
pub use seats::{doubled_seats, held_seats, overdue_holds, sold_seats};
pub use support::support_entries;

use super::Result;

/// How many offenders of an invariant are named; the rest is counted.
pub const NAMED: i64 = 100;

/// A row that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    /// The id of the row; a seat is named by its performance, a slash and its number.
    pub id: String,
    /// What is wrong with it, in words.
    pub problem: String,
    /// How many there are, named or not.
    pub total: i64,
}

/// A saga that waits for an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StuckSaga {
    pub id: Uuid,
    pub workflow: String,
    pub step: String,
    pub direction: String,
    pub reason: Option<String>,
    pub since: DateTime<Utc>,
}

/// Points that nothing but an operator will settle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct UnsettledPoints {
    pub saga_id: Uuid,
    pub reservation_id: Uuid,
    pub user_id: Uuid,
    /// `taken` without a ticket, or `owed` for tickets that were not paid.
    pub what: String,
    pub points: i64,
    /// `stuck`, or how an operator's act has ended it.
    pub saga_status: String,
    pub since: DateTime<Utc>,
}

/// What the snapshot held: the sums that must agree, and how much there was to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Counted {
    pub seats_free: i64,
    pub seats_held: i64,
    pub seats_sold: i64,
    pub tickets_valid: i64,
    pub confirmed_reservations: i64,
    pub confirmed_lines: i64,
    pub accounts: i64,
    pub ledger_entries: i64,
    /// Points on all accounts.
    pub points: i64,
    /// Points used and not refunded.
    pub points_taken: i64,
    /// Sagas on their way.
    pub sagas_open: i64,
    pub sagas_stuck: i64,
    pub sagas_ended: i64,
}

/// The moment that is judged.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// The latest start-up of any instance; none has ever started if it is missing.
    pub last_start: Option<DateTime<Utc>>,
}

/// Opens a transaction in which every question sees the same data and none can change it.
pub async fn snapshot(pool: &PgPool) -> Result<Transaction<'static, Postgres>> {
    pool.begin_with("begin transaction isolation level repeatable read, read only").await
}

/// Takes the snapshot (it is taken by the first statement of its transaction) and says of when it is.
pub async fn moment(conn: &mut PgConnection) -> Result<Moment> {
    sqlx::query_as!(
        Moment,
        r#"select clock_timestamp() as "now!", max(started_at) as last_start from instances"#,
    )
    .fetch_one(conn)
    .await
}

/// The sums that must agree, and how much there was to look at.
pub async fn counted(conn: &mut PgConnection) -> Result<Counted> {
    sqlx::query_as!(
        Counted,
        r#"
        select seats.free as "seats_free!", seats.held as "seats_held!", seats.sold as "seats_sold!",
            (select count(*) from tickets where status = 'valid') as "tickets_valid!",
            confirmed.reservations as "confirmed_reservations!", confirmed.lines as "confirmed_lines!",
            accounts.rows as "accounts!", accounts.points as "points!",
            entries.rows as "ledger_entries!", entries.taken as "points_taken!",
            sagas.open as "sagas_open!", sagas.stuck as "sagas_stuck!", sagas.ended as "sagas_ended!"
        from (
            select count(*) filter (where status = 'free') as free,
                count(*) filter (where status = 'held') as held,
                count(*) filter (where status = 'sold') as sold
            from seats
        ) as seats, (
            select count(*) as reservations, coalesce(sum(cardinality(seats)), 0) as lines
            from reservations where status = 'confirmed'
        ) as confirmed, (
            select count(*) as rows, coalesce(sum(balance), 0)::bigint as points from accounts
        ) as accounts, (
            select count(*) as rows, coalesce(sum(case kind when 'use' then amount when 'refund' then -amount end), 0)::bigint as taken
            from ledger_entries
        ) as entries, (
            select count(*) filter (where finished_at is null and stuck_since is null) as open,
                count(*) filter (where stuck_since is not null) as stuck,
                count(*) filter (where finished_at is not null) as ended
            from sagas
        ) as sagas
        "#,
    )
    .fetch_one(conn)
    .await
}
