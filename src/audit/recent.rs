//! The periodic audit: every minute it checks the rows of the last minutes, and reports findings as a
//! metric and in the log.

use chrono::TimeDelta;
use sqlx::PgPool;

use super::report::{Broken, Example, Invariant};
use crate::ids;
use crate::store::{self, audit};

/// How far back a run looks. A few runs in a row may fail without a gap.
pub const WINDOW: TimeDelta = TimeDelta::minutes(5);

/// How far the clock of a process that makes ids may be ahead. Ids that do not begin with the time are later than that.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// What the statement over the last minutes looks for.
const SOUGHT: [Invariant; 11] = [
    Invariant::SoldSeats,
    Invariant::HeldSeats,
    Invariant::Balances,
    Invariant::Payments,
    Invariant::TicketsWithoutReservation,
    Invariant::TicketsWithoutSeat,
    Invariant::EntriesWithoutAccount,
    Invariant::PaymentsWithoutReservation,
    Invariant::PaymentsWithoutEntry,
    Invariant::ReservationsWithoutPerformance,
    Invariant::ReservationsOfAnotherConcert,
];

/// Checks rows that were written within `window`; each broken invariant has at most ten examples.
///
/// # Errors
/// When the database does not answer in time.
pub async fn judge(pool: &PgPool, window: TimeDelta) -> Result<Vec<Broken>, sqlx::Error> {
    let now = store::now(pool).await?;
    let range = ids::first_of(now - window)..ids::first_of(now + CLOCK_TOLERANCE);
    let offenders = audit::recent(pool, range, now).await?;
    let broken = SOUGHT.into_iter().filter_map(|invariant| {
        let mut own = offenders.iter().filter(|offender| offender.finding == invariant.name()).peekable();
        let count = own.peek()?.total;
        let examples =
            own.map(|offender| Example { id: offender.id.clone(), problem: offender.problem.clone() });
        Some(Broken { invariant, count, examples: examples.collect() })
    });
    Ok(broken.collect())
}

/// Judges the last minutes, sets the metric of each finding, and logs what is broken.
///
/// # Errors
/// When the database does not answer in time.
pub async fn report(pool: &PgPool, window: TimeDelta) -> Result<(), sqlx::Error> {
    let broken = judge(pool, window).await?;
    for invariant in SOUGHT {
        let found = broken.iter().find(|broken| broken.invariant == invariant);
        let count = found.map_or(0, |broken| broken.count);
        metrics::gauge!("boxoffice_audit_findings", "finding" => invariant.name()).set(count as f64);
    }
    for Broken { invariant, count, examples } in &broken {
        let ids: Vec<&str> = examples.iter().map(|example| example.id.as_str()).collect();
        tracing::error!(
            finding = invariant.name(),
            count,
            ids = ids.join(" "),
            problem = examples.first().map(|example| example.problem.as_str()),
            "rows of the last minutes contradict each other; `boxoffice audit` lists all of them"
        );
    }
    Ok(())
}
