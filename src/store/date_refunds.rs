//! The reservations of a cancelled date that still have seats, for the job that ends them.
//!
//! They are found by the seats, which name their owners: a reservation that has ended has none.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use super::names::OptionalName;
use super::reservations::ReservationStatus;
use crate::saga::Status;

/// A reservation that has seats of a date.
#[derive(Clone, Debug)]
pub struct SeatOwner {
    pub reservation_id: Uuid,
    /// The last of its seats in the page.
    pub last_seat: i32,
    /// None if there is no such reservation.
    pub status: Option<ReservationStatus>,
    pub cancellation_id: Option<Uuid>,
    /// Of its booking; none if it was purged.
    pub booking: Option<Status>,
    /// Of its cancellation.
    pub cancellation: Option<Status>,
}

/// The owners of up to `limit` seats of a date with numbers above `after`, by their last seats.
pub async fn seat_owners(
    db: impl PgExecutor<'_>,
    performance: Uuid,
    after: i32,
    limit: i64,
) -> Result<Vec<SeatOwner>> {
    sqlx::query_as!(
        SeatOwner,
        r#"
        with owned as materialized (
            select holder, max(number) as last_seat
            from (select holder, number from seats
                  where performance_id = $1 and number > $2 and status in ('held', 'sold') order by number limit $3) as page
            group by holder
        )
        select owned.holder as "reservation_id!", owned.last_seat as "last_seat!",
            r.status as "status?: ReservationStatus", r.cancellation_id as "cancellation_id?",
            case when b.id is not null then saga_status_name(b.status) end as "booking!: OptionalName<Status>",
            case when c.id is not null then saga_status_name(c.status) end as "cancellation!: OptionalName<Status>"
        from owned
        left join reservations r on r.id = owned.holder
        left join sagas b on b.id = owned.holder
        left join sagas c on c.id = r.cancellation_id
        order by owned.last_seat
        "#,
        performance,
        after,
        limit,
    )
    .fetch_all(db)
    .await
}

/// How many reservations still have seats of a date.
pub async fn count_owners(db: impl PgExecutor<'_>, performance: Uuid) -> Result<i64> {
    sqlx::query_scalar!(
        r#"select count(distinct holder) as "count!" from seats where performance_id = $1 and status in ('held', 'sold')"#,
        performance,
    )
    .fetch_one(db)
    .await
}
