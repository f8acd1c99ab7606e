//! The audit: checks that the database's contents are consistent.
//!
//! The demo, the load tests and the failure tests end with it. It reads one snapshot of a running sale, so a finding is
//! a defect and not a delay: the queries in [`crate::store::audit`] allow for sagas that are under way.

pub mod recent;
mod report;

use chrono::TimeDelta;
use sqlx::{PgConnection, PgPool};

pub use report::{Broken, Example, Invariant, Report, Verdict};

use crate::store::audit::{self, Moment};

/// A saga's alarm that is overdue for longer than this shows that no sweeper runs.
const SWEEP_PATIENCE: TimeDelta = TimeDelta::seconds(60);
/// How long after its end a hold may still be there.
const HOLD_PATIENCE: TimeDelta = TimeDelta::seconds(5);

/// Judges the database as it is now. Safe under load: it reads one snapshot and locks nothing.
///
/// # Errors
/// When the database does not answer, or has not been migrated.
pub async fn run(pool: &PgPool) -> Result<Report, sqlx::Error> {
    let mut snapshot = audit::snapshot(pool).await?;
    let moment = audit::moment(&mut snapshot).await?;
    let mut broken = Vec::new();
    for invariant in Invariant::ALL {
        let offenders = ask(invariant, &mut snapshot, moment).await?;
        broken.extend(Broken::from_offenders(invariant, offenders));
    }
    let stuck = audit::stuck_sagas(&mut snapshot).await?;
    let unsettled = audit::unsettled_points(&mut snapshot).await?;
    let counted = audit::counted(&mut snapshot).await?;
    snapshot.rollback().await?;
    Ok(Report::new(moment.now, broken, stuck, unsettled, counted))
}

async fn ask(
    invariant: Invariant,
    conn: &mut PgConnection,
    moment: Moment,
) -> Result<Vec<audit::Offender>, sqlx::Error> {
    match invariant {
        Invariant::SoldSeats => audit::sold_seats(conn).await,
        Invariant::DoubledSeats => audit::doubled_seats(conn, moment).await,
        Invariant::HeldSeats => audit::held_seats(conn, moment).await,
        Invariant::CancelledDates => audit::cancelled_dates(conn).await,
        Invariant::Balances => audit::balances(conn).await,
        Invariant::PointsTaken => audit::points_taken(conn).await,
        Invariant::Payments => audit::payments(conn).await,
        Invariant::SupportEntries => audit::support_entries(conn).await,
        Invariant::SagasAwake => audit::asleep(conn).await,
        Invariant::SagasSwept => audit::overdue_sagas(conn, moment, SWEEP_PATIENCE).await,
        Invariant::HoldsEnd => audit::overdue_holds(conn, moment, HOLD_PATIENCE).await,
        Invariant::Redemptions => audit::redemptions(conn).await,
        Invariant::TicketsWithoutReservation
        | Invariant::TicketsWithoutSeat
        | Invariant::EntriesWithoutAccount
        | Invariant::PaymentsWithoutReservation
        | Invariant::PaymentsWithoutEntry
        | Invariant::ReservationsWithoutPerformance
        | Invariant::ReservationsOfAnotherConcert => audit::dangling(conn, invariant.name()).await,
        Invariant::RowRules => audit::row_rules(conn).await,
    }
}
