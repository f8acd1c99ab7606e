//! The sales report of one date: seats, revenue and refunds, by section and by hour, as of one moment.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::audit::snapshot;
use crate::store::sales_report::{self as rows, HourRow, HourSales, ListedDate, SectionSales};
use crate::store::{self, saga_search};

/// Hours that a report has at most: 83 days in each of whose hours something happened.
pub const HOURS_MAX: i64 = 2_000;
/// The longest that a statement of a report may take where a request waits for it: it has two long ones.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for the command line.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(300);

/// Seats of a date by what they are now. A hold that has run out counts as free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SeatSales {
    pub total: i64,
    pub sold: i64,
    pub held: i64,
    pub blocked: i64,
    pub free: i64,
}

/// How a date sells.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SalesReport {
    pub performance: ListedDate,
    /// The moment that the report is about.
    pub at: DateTime<Utc>,
    pub seats: SeatSales,
    /// Points that were paid.
    pub revenue: i64,
    /// Points of those that were given back.
    pub refunds: i64,
    /// Revenue without refunds.
    pub net: i64,
    pub sections: Vec<SectionSales>,
    /// The hours in which something happened, oldest first; of more than 2,000 the latest.
    pub hours: Vec<HourSales>,
    /// Whether earlier hours are left out of `hours`. The sums above count them.
    pub hours_left_out: bool,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("there is no such performance")]
    Unknown,
    #[error("the report takes longer than {} s", .0.as_secs())]
    TooSlow(Duration),
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for ReportError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The report of a date, as of now. `time` bounds each of its statements.
pub async fn report(pool: &PgPool, performance: Uuid, time: Duration) -> Result<SalesReport, ReportError> {
    match read(pool, performance, time).await {
        Err(ReportError::Database(error)) if saga_search::was_cut_off(&error) => {
            Err(ReportError::TooSlow(time))
        }
        read => read,
    }
}

async fn read(pool: &PgPool, performance: Uuid, time: Duration) -> Result<SalesReport, ReportError> {
    let mut tx = snapshot(pool).await?;
    rows::bound(&mut tx, time).await?;
    let at = store::now(&mut *tx).await?;
    let performance = rows::date(&mut *tx, performance).await?.ok_or(ReportError::Unknown)?;
    let sections = rows::sections(&mut tx, performance.id, at).await?;
    let hours = rows::hours(&mut tx, performance.id, HOURS_MAX + 1).await?;
    tx.commit().await?;
    Ok(assemble(performance, at, sections, hours))
}

fn assemble(
    performance: ListedDate,
    at: DateTime<Utc>,
    sections: Vec<SectionSales>,
    mut hours: Vec<HourRow>,
) -> SalesReport {
    let (revenue, refunds) = hours.first().map_or((0, 0), |hour| (hour.revenue_of_all, hour.refunds_of_all));
    let hours_left_out = hours.len() > HOURS_MAX as usize;
    hours.truncate(HOURS_MAX as usize);
    let sum = |count: fn(&SectionSales) -> i64| sections.iter().map(count).sum();
    let seats = SeatSales {
        total: sum(|section| section.total),
        sold: sum(|section| section.sold),
        held: sum(|section| section.held),
        blocked: sum(|section| section.blocked),
        free: sum(|section| section.free),
    };
    let hours = hours.into_iter().rev().map(HourSales::from).collect();
    SalesReport {
        performance,
        at,
        seats,
        revenue,
        refunds,
        net: revenue - refunds,
        sections,
        hours,
        hours_left_out,
    }
}

impl From<HourRow> for HourSales {
    fn from(row: HourRow) -> Self {
        let HourRow { hour, seats_sold, seats_returned, revenue, refunds, .. } = row;
        Self { hour, seats_sold, seats_returned, revenue, refunds }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn oldest_hours_are_left_out_of_the_list_only() {
        let at = DateTime::UNIX_EPOCH;
        let hour = |ago: i64| HourRow {
            hour: at - TimeDelta::hours(ago),
            seats_sold: 1,
            seats_returned: 0,
            revenue: 10,
            refunds: 0,
            revenue_of_all: 10 * (HOURS_MAX + 1),
            refunds_of_all: 0,
        };
        let performance = ListedDate {
            id: Uuid::nil(),
            concert_id: Uuid::nil(),
            concert: "A".to_owned(),
            venue: "B".to_owned(),
            starts_at: at,
            seats_total: 0,
        };
        let report = assemble(performance.clone(), at, Vec::new(), (0..=HOURS_MAX).map(hour).collect());
        assert!(report.hours_left_out);
        assert_eq!(report.hours.len(), HOURS_MAX as usize);
        assert_eq!(report.hours.last().unwrap().hour, at, "oldest first");
        assert_eq!(report.revenue, 10 * (HOURS_MAX + 1));
        let empty = assemble(performance, at, Vec::new(), Vec::new());
        assert_eq!((empty.revenue, empty.net, empty.hours_left_out), (0, 0, false));
    }
}
