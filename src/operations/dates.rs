//! Changing a date and cancelling it: each in one transaction with its event and the record of the act.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

pub use super::date_refunds::why_failed;
use crate::store::batch_jobs::{self as jobs, BatchJobRow, NewBatchJob};
use crate::store::catalog::{SeatRange, window_faults};
use crate::store::date_refunds::{self, SeatOwner};
use crate::store::dates::{self, DateSales, DateState};
use crate::store::direct_events::{self, DirectEvent};
use crate::store::operations::{self, ActRow};
use crate::{ids, store};

/// The act of a job that ends what was sold and held of a cancelled date.
pub const CANCEL_DATE: &str = "cancel_performance";
/// Refunds per second of such a job, unless its order says otherwise.
pub const REFUND_RATE_DEFAULT: u32 = 200;

/// How many reservations that wait for an operator are named.
const FAILED_NAMED: usize = 100;
/// Seats that are looked at with one statement for that.
const OWNERS_PAGE: i64 = 2_000;

/// What is to change; what is missing stays as it is.
#[derive(Clone, Debug, Default)]
pub struct DateChange {
    pub venue: Option<String>,
    pub starts_at: Option<DateTime<Utc>>,
    pub duration_minutes: Option<i32>,
    pub sale_opens_at: Option<DateTime<Utc>>,
    pub sale_closes_at: Option<DateTime<Utc>>,
    /// Sections and prices of seats that are free.
    pub seats: Vec<SeatRange>,
    /// The change is for this version only.
    pub version: Option<i64>,
}

/// A date after a change.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DateChanged {
    #[serde(flatten)]
    pub date: DateState,
    /// Seats of the named ranges that have the new section and price.
    pub seats_changed: i64,
    /// Seats of the named ranges that are held or sold, and keep theirs.
    pub seats_kept: i64,
}

/// Why a date was not changed or cancelled.
#[derive(Debug, thiserror::Error)]
pub enum DateError {
    #[error("there is no such performance")]
    Unknown,
    #[error("the performance was not cancelled")]
    NotCancelled,
    #[error("the performance was cancelled at {0}; it cannot be changed any more")]
    Cancelled(DateTime<Utc>),
    #[error(
        "the performance is at version {0}, not at the one that the change is for; read it and decide again"
    )]
    OtherVersion(i64),
    #[error("the times contradict each other")]
    Times(Vec<(&'static str, &'static str)>),
    #[error("the performance has only {found} of the {named} seats of the named ranges")]
    NoSuchSeats { named: i64, found: i64 },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Changes a date: compared with the version that the caller knows, written with its event and the record of the act. A change
/// that leaves all as it is does nothing.
pub async fn change(
    pool: &PgPool,
    id: Uuid,
    change: &DateChange,
    actor: &str,
    reason: &str,
) -> Result<DateChanged, DateError> {
    let mut tx = pool.begin().await?;
    let before = dates::lock(&mut tx, id).await?.ok_or(DateError::Unknown)?;
    let now = store::now(&mut *tx).await?;
    if let Some(at) = before.cancelled_at {
        return Err(DateError::Cancelled(at));
    }
    if change.version.is_some_and(|version| version != before.version) {
        return Err(DateError::OtherVersion(before.version));
    }
    let mut after = changed(&before, change);
    check_times(&before, &after, change, now)?;
    let (found, seats_changed) = match change.seats.as_slice() {
        [] => (0, 0),
        ranges => dates::change_seats(&mut tx, id, ranges, now).await?,
    };
    let named: i64 = change.seats.iter().map(|range| i64::from(range.to) - i64::from(range.from) + 1).sum();
    if found != named {
        return Err(DateError::NoSuchSeats { named, found });
    }
    let seats_kept = found - seats_changed;
    if after == before && seats_changed == 0 {
        return Ok(DateChanged { date: before, seats_changed, seats_kept });
    }
    after.version = dates::update(&mut *tx, &after, seats_changed > 0).await?;
    let data = change_data(&before, &after, change, (seats_changed, seats_kept));
    let event = event_of("performance.changed", &after, data.clone(), now);
    direct_events::insert(&mut *tx, &event).await?;
    record(&mut tx, "performance.change", (&before, &after), (actor, reason), &data).await?;
    tx.commit().await?;
    Ok(DateChanged { date: after, seats_changed, seats_kept })
}

fn changed(before: &DateState, change: &DateChange) -> DateState {
    let change = change.clone();
    DateState {
        venue: change.venue.unwrap_or_else(|| before.venue.clone()),
        starts_at: change.starts_at.unwrap_or(before.starts_at),
        duration_minutes: change.duration_minutes.unwrap_or(before.duration_minutes),
        sale_opens_at: change.sale_opens_at.unwrap_or(before.sale_opens_at),
        sale_closes_at: change.sale_closes_at.unwrap_or(before.sale_closes_at),
        ..before.clone()
    }
}

/// Times that change must fit together, and a new start lies in the future.
fn check_times(
    before: &DateState,
    after: &DateState,
    change: &DateChange,
    now: DateTime<Utc>,
) -> Result<(), DateError> {
    let times = |date: &DateState| (date.starts_at, date.sale_opens_at, date.sale_closes_at);
    if times(before) == times(after) {
        return Ok(());
    }
    let mut faults = window_faults(after.starts_at, after.sale_opens_at, after.sale_closes_at);
    if change.starts_at.is_some_and(|starts_at| starts_at <= now) {
        faults.push(("starts_at", "must be in the future"));
    }
    if faults.is_empty() { Ok(()) } else { Err(DateError::Times(faults)) }
}

fn change_data(before: &DateState, after: &DateState, change: &DateChange, seats: (i64, i64)) -> Value {
    let ranges = change.seats.iter().map(
        |range| json!({ "from": range.from, "to": range.to, "section": range.section, "price": range.price }),
    );
    json!({
        "performance_id": after.id,
        "concert_id": after.concert_id,
        "before": before.facts(),
        "after": after.facts(),
        "seats": ranges.collect::<Vec<_>>(),
        "seats_changed": seats.0,
        "seats_kept": seats.1,
    })
}

/// What is ordered with the cancellation of a date.
#[derive(Clone, Copy, Debug)]
pub struct CancelOrder<'a> {
    pub actor: &'a str,
    pub reason: &'a str,
    /// Refunds per second.
    pub rate_per_second: u32,
}

/// What the cancellation of a date would do.
pub async fn preview(pool: &PgPool, id: Uuid) -> Result<(DateState, DateSales), DateError> {
    let date = dates::get(pool, id).await?.ok_or(DateError::Unknown)?;
    Ok((date, dates::sales(pool, id).await?))
}

/// Ends the sale of a date for good, and orders the job that ends its holds and refunds what was sold. Once the answer is there,
/// no reservation of the date becomes confirmed any more. The same date again is the same job.
pub async fn cancel(pool: &PgPool, id: Uuid, order: CancelOrder<'_>) -> Result<BatchJobRow, DateError> {
    let mut tx = pool.begin().await?;
    let before = dates::lock(&mut tx, id).await?.ok_or(DateError::Unknown)?;
    if let Some(job) = before.cancellation_id {
        let job = jobs::get(&mut *tx, job).await?;
        return job.ok_or(DateError::Unknown);
    }
    let now = store::now(&mut *tx).await?;
    let sales = dates::sales(&mut *tx, id).await?;
    let total = date_refunds::count_owners(&mut *tx, id).await?;
    let job = ids::new();
    let version = dates::cancel(&mut *tx, id, job, now).await?.ok_or(DateError::Unknown)?;
    let after = DateState { version, cancelled_at: Some(now), cancellation_id: Some(job), ..before.clone() };
    let filter = json!({ "performance_id": id });
    jobs::insert(&mut *tx, &job_of(job, order, &filter, before.seats_total)).await?;
    jobs::set_total(&mut *tx, job, Some(total)).await?;
    let data = json!({
        "performance_id": id,
        "concert_id": before.concert_id,
        "reason": order.reason,
        "performance": before.facts(),
        "cancelled_at": now,
        "held": sales.held,
        "confirmed": sales.confirmed,
        "points_to_refund": sales.points_to_refund,
    });
    let event = event_of("performance.cancelled", &after, data.clone(), now);
    direct_events::insert(&mut *tx, &event).await?;
    record(&mut tx, "performance.cancel", (&before, &after), (order.actor, order.reason), &data).await?;
    let row = jobs::get(&mut *tx, job).await?.ok_or(DateError::Unknown)?;
    tx.commit().await?;
    Ok(row)
}

/// The job of a cancelled date, and the owners of its seats that wait for an operator, at most 100.
pub async fn cancellation(pool: &PgPool, id: Uuid) -> Result<(BatchJobRow, Vec<SeatOwner>), DateError> {
    let date = dates::get(pool, id).await?.ok_or(DateError::Unknown)?;
    let job = date.cancellation_id.ok_or(DateError::NotCancelled)?;
    let job = jobs::get(pool, job).await?.ok_or(DateError::NotCancelled)?;
    // A seat in several pages has one owner; only what an operator has to look at is kept.
    let (mut failed, mut after): (BTreeMap<Uuid, SeatOwner>, i32) = (BTreeMap::new(), 0);
    while job.failed > 0 && failed.len() < FAILED_NAMED {
        let page = date_refunds::seat_owners(pool, id, after, OWNERS_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.last_seat;
        let stuck = page.into_iter().filter(|owner| why_failed(owner).is_some());
        failed.extend(stuck.map(|owner| (owner.reservation_id, owner)));
    }
    Ok((job, failed.into_values().take(FAILED_NAMED).collect()))
}

/// Each reservation has a seat, so there are not more reservations than seats.
fn job_of<'a>(id: Uuid, order: CancelOrder<'a>, filter: &'a Value, seats_total: i32) -> NewBatchJob<'a> {
    NewBatchJob {
        id,
        actor: order.actor,
        act: CANCEL_DATE,
        filter,
        reason: order.reason,
        dry_run: false,
        rate_per_second: i32::try_from(order.rate_per_second).unwrap_or(i32::MAX),
        max_sagas: seats_total,
    }
}

fn event_of(name: &str, date: &DateState, data: Value, at: DateTime<Utc>) -> DirectEvent {
    let (name, subject_id, sequence) = (name.to_owned(), date.id, date.version);
    DirectEvent { id: ids::new(), name, subject_id, sequence, data, at }
}

async fn record(
    conn: &mut PgConnection,
    act: &str,
    (before, after): (&DateState, &DateState),
    (actor, reason): (&str, &str),
    detail: &Value,
) -> store::Result<()> {
    let target = format!("performance {}", after.id);
    let (from, to) = (standing(before), standing(after));
    let (saga_id, target, detail) = (None, Some(target.as_str()), Some(detail));
    let row = ActRow { actor, act, saga_id, target, reason, from: &from, to: &to, detail };
    operations::record_act(conn, &row).await
}

fn standing(date: &DateState) -> String {
    let state = if date.cancelled_at.is_some() { "cancelled" } else { "on sale" };
    format!("{state}, version {}", date.version)
}
