//! Dates that are on sale: changing one, and cancelling it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin::DURATION_MAX;
use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::error::Code;
use super::idempotency::once;
use super::ops::saga_acts::check_reason;
use super::problem::{Fault, Problem, Result, sentence};
use super::request::{Bodied, Command, Json, PathId};
use super::seat_ranges::{SeatsWanted, check_seats, refuse_places};
use super::validation::{Validate, Validation};
use crate::operations::batch::RATE_MAX;
use crate::operations::batch_jobs::BatchJob;
use crate::operations::dates::{self, CancelOrder, DateChange, DateChanged, DateError, REFUND_RATE_DEFAULT};
use crate::store::catalog::SeatRange;
use crate::store::dates::{DateSales, DateState};

/// What is to change about a date; what is left out stays as it is.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct PerformanceChange {
    #[serde(default)]
    #[schema(format = "line", min_length = 1, max_length = 200)]
    venue: Option<String>,
    #[serde(default)]
    starts_at: Option<DateTime<Utc>>,
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_440)]
    duration_minutes: Option<i32>,
    #[serde(default)]
    sale_opens_at: Option<DateTime<Utc>>,
    #[serde(default)]
    sale_closes_at: Option<DateTime<Utc>>,
    /// New sections and prices. Seats of these ranges that are held or sold keep theirs.
    #[serde(default)]
    #[schema(max_items = 100_000)]
    seats: Vec<SeatsWanted>,
    /// The version that the change is for: at any other it is refused.
    #[serde(default)]
    version: Option<i64>,
    /// Why; written down with the change.
    #[serde(default)]
    #[schema(format = "line", max_length = 1_000)]
    reason: Option<String>,
}

impl Bodied for PerformanceChange {}

impl Validate for PerformanceChange {
    fn check(&self, faults: &mut Validation) {
        if let Some(venue) = &self.venue {
            faults.expect_line(venue, 1..=200, "/venue");
        }
        let duration = self.duration_minutes.is_none_or(|minutes| (1..=DURATION_MAX).contains(&minutes));
        faults.expect(duration, "/duration_minutes", format!("must be between 1 and {DURATION_MAX}"));
        let times = [
            ("/starts_at", self.starts_at),
            ("/sale_opens_at", self.sale_opens_at),
            ("/sale_closes_at", self.sale_closes_at),
        ];
        for (pointer, time) in times {
            if let Some(time) = time {
                faults.expect_time(time, pointer);
            }
        }
        if !self.seats.is_empty() {
            check_seats(&self.seats, faults);
            refuse_places(&self.seats, faults);
        }
        faults.expect_line(self.reason.as_deref().unwrap_or_default(), 0..=1_000, "/reason");
        let is_something = self.venue.is_some()
            || self.duration_minutes.is_some()
            || times.iter().any(|(_, time)| time.is_some())
            || !self.seats.is_empty();
        faults.expect(is_something, "", "must name something to change");
    }
}

impl PerformanceChange {
    fn change(self) -> DateChange {
        DateChange {
            venue: self.venue,
            starts_at: self.starts_at,
            duration_minutes: self.duration_minutes,
            sale_opens_at: self.sale_opens_at,
            sale_closes_at: self.sale_closes_at,
            seats: self.seats.into_iter().map(SeatRange::from).collect(),
            version: self.version,
        }
    }
}

/// One date as it stands, with its version.
#[utoipa::path(get, path = "/v1/admin/performances/{performance}", tag = "admin",
    params(("performance" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = DateState)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(id): PathId,
) -> Result<Answer> {
    let date = crate::store::dates::get(&app.pool, id).await?.ok_or(DateError::Unknown)?;
    Ok(Answer::ok(&date))
}

/// Changes a date. Steps that sell its seats see the change at once, all reads within a second. The change is an event and is
/// written down; one that leaves all as it is does nothing.
#[utoipa::path(patch, path = "/v1/admin/performances/{performance}", tag = "admin",
    request_body = PerformanceChange, params(("performance" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = DateChanged)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "performance_cancelled", "performance_changed"]))))]
pub async fn change(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(id): PathId,
    Json(wanted): Json<PerformanceChange>,
) -> Result<Answer> {
    let reason = wanted.reason.clone().unwrap_or_default();
    let changed = dates::change(&app.pool, id, &wanted.change(), &staff.key.name, &reason).await?;
    app.concerts_changed().await;
    Ok(Answer::ok(&changed))
}

/// The cancellation of a date.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct DateCancellation {
    /// Why; written down, and told to other systems by the event.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// Only look what it would do.
    #[serde(default)]
    dry_run: bool,
    /// Refunds per second, 1 to 1000; 200 if it is left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000)]
    rate_per_second: Option<u32>,
}

impl Bodied for DateCancellation {}

impl Validate for DateCancellation {
    fn check(&self, faults: &mut Validation) {
        check_reason(&self.reason, faults);
        let is_good = self.rate_per_second.is_none_or(|rate| (1..=RATE_MAX).contains(&rate));
        faults.expect(is_good, "/rate_per_second", format!("must be between 1 and {RATE_MAX}"));
    }
}

/// What the cancellation of a date would do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CancellationPreview {
    performance_id: Uuid,
    /// When it was cancelled, if it was.
    cancelled_at: Option<DateTime<Utc>>,
    #[serde(flatten)]
    sales: DateSales,
}

/// Cancels a date. Its sale stops at once: no reservation of it becomes confirmed after the answer. A job ends the holds and refunds
/// each confirmed reservation by a saga of its own; `GET /v1/ops/batches/{id}` shows how far it is, and stops and resumes it. The
/// same date again is the same job.
#[utoipa::path(post, path = "/v1/admin/performances/{performance}/cancellation", tag = "admin",
    request_body = DateCancellation, params(("performance" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = CancellationPreview, description = "With `dry_run`: what would happen"),
              (status = 202, body = BatchJob, headers(("Location" = String)), description = "The job")),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn cancel(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(id): PathId,
    command: Command<DateCancellation>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, _| {
        if wanted.dry_run {
            let (date, sales) = dates::preview(&app.pool, id).await?;
            let (performance_id, cancelled_at) = (id, date.cancelled_at);
            return Ok(Answer::ok(&CancellationPreview { performance_id, cancelled_at, sales }));
        }
        let rate_per_second = wanted.rate_per_second.unwrap_or(REFUND_RATE_DEFAULT);
        let order = CancelOrder { actor: &staff.key.name, reason: &wanted.reason, rate_per_second };
        let job: BatchJob = dates::cancel(&app.pool, id, order).await?.into();
        app.batches.spawn(job.id);
        app.concerts_changed().await;
        Ok(Answer::accepted(&format!("/v1/ops/batches/{}", job.id), &job))
    })
    .await
}

/// The cancellation of a date, and what it left.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CancellationProgress {
    #[serde(flatten)]
    job: BatchJob,
    /// Reservations that still have seats and wait for an operator; at most a hundred.
    failed_reservations: Vec<FailedReservation>,
}

/// A reservation of a cancelled date that no saga ends by itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FailedReservation {
    reservation_id: Uuid,
    /// Its cancellation's saga; null if its booking's is what stands still.
    cancellation_id: Option<Uuid>,
    why: String,
}

/// How far the cancellation of a date is, and which reservations wait for an operator.
#[utoipa::path(get, path = "/v1/admin/performances/{performance}/cancellation", tag = "admin",
    params(("performance" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = CancellationProgress)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn cancellation(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(id): PathId,
) -> Result<Answer> {
    let (job, failed) = dates::cancellation(&app.pool, id).await?;
    let failed_reservations = failed.into_iter().map(|owner| FailedReservation {
        reservation_id: owner.reservation_id,
        cancellation_id: owner.cancellation_id,
        why: dates::why_failed(&owner).unwrap_or_default().to_owned(),
    });
    let failed_reservations = failed_reservations.collect();
    Ok(Answer::ok(&CancellationProgress { job: job.into(), failed_reservations }))
}

impl From<DateError> for Problem {
    fn from(error: DateError) -> Self {
        match error {
            DateError::Unknown => Self::not_found("performance"),
            DateError::NotCancelled => Self::not_found("cancellation"),
            DateError::Cancelled(at) => {
                Self::new(Code::PerformanceCancelled, sentence(&error)).with("cancelled_at", at.to_rfc3339())
            }
            DateError::OtherVersion(version) => {
                Self::new(Code::PerformanceChanged, sentence(&error)).with("version", version)
            }
            DateError::Times(faults) => {
                let fault = |(field, reason): (&str, &str)| Fault::new(&format!("/{field}"), reason);
                Self::invalid(faults.into_iter().map(fault).collect())
            }
            DateError::NoSuchSeats { .. } => Self::invalid(vec![Fault::new("/seats", &error.to_string())]),
            DateError::Database(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: serde_json::Value, pointers: &[&str]) {
        let mut faults = Validation::default();
        serde_json::from_value::<PerformanceChange>(body).unwrap().check(&mut faults);
        let found = faults.finish().err().map(|problem| problem.body()["errors"].clone());
        let found: Vec<String> = found
            .and_then(|errors| errors.as_array().cloned())
            .unwrap_or_default()
            .iter()
            .map(|fault| fault["pointer"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(found, pointers);
    }

    #[test]
    fn change_names_something_within_bounds() {
        check(serde_json::json!({ "venue": "Hall" }), &[]);
        check(serde_json::json!({ "starts_at": "2030-01-01T19:00:00Z" }), &[]);
        check(serde_json::json!({ "seats": [{ "from": 1, "to": 5, "section": "A", "price": 0 }] }), &[]);
        check(serde_json::json!({ "version": 3, "reason": "why" }), &[""]);
        check(serde_json::json!({ "venue": "", "duration_minutes": 0 }), &["/venue", "/duration_minutes"]);
        let seats = serde_json::json!([{ "from": 3, "to": 2, "section": "A", "price": 0 },
                                       { "from": 9, "to": 10, "section": "A", "price": -1 }]);
        check(serde_json::json!({ "seats": seats }), &["/seats/0/to", "/seats/1/price"]);
    }
}
