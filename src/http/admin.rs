//! What is sold: adding concerts, and their dates with all their seats.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::idempotency::once;
use super::problem::{Problem, Result};
use super::request::{Bodied, Command, PathId};
use super::seat_ranges::{SeatsWanted, check_seats, placed};
use super::validation::{Validate, Validation};
use crate::store;
use crate::store::catalog::{NewConcert, Performance, SeatRange, past_faults, window_faults};
use crate::store::queue::{FASTEST, MOST_ACTIVE};

/// The longest concert, in minutes.
pub(super) const DURATION_MAX: i32 = 1_440;

/// A concert to be added.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ConcertWanted {
    #[schema(format = "line", min_length = 1, max_length = 200)]
    name: String,
    #[schema(format = "block", max_length = 10_000)]
    description: String,
    /// How its line starts; the service's defaults for what is left out.
    #[serde(default)]
    queue: Option<QueueWanted>,
}

/// How a new concert's line starts.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
pub struct QueueWanted {
    /// Most users active at once.
    #[schema(minimum = 0, maximum = 1_000_000)]
    max_active: Option<i32>,
    /// Users admitted per minute.
    #[schema(minimum = 0, maximum = 6_000_000)]
    admit_per_minute: Option<i32>,
}

impl Bodied for ConcertWanted {}

impl Validate for ConcertWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect_line(&self.name, 1..=200, "/name");
        faults.expect_block(&self.description, 0..=10_000, "/description");
        let queue = self.queue.unwrap_or_default();
        let fields = [
            ("/queue/max_active", queue.max_active, MOST_ACTIVE),
            ("/queue/admit_per_minute", queue.admit_per_minute, FASTEST),
        ];
        for (pointer, value, most) in fields {
            let good = value.is_none_or(|value| (0..=most).contains(&value));
            faults.expect(good, pointer, format!("must be between 0 and {most}"));
        }
    }
}

/// A concert that was added.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ConcertAdded {
    id: Uuid,
    name: String,
    description: String,
    queue: QueueBegun,
}

/// How a new concert's line starts, with the defaults for what was left out.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct QueueBegun {
    max_active: i32,
    admit_per_minute: i32,
}

/// Adds a concert and its line.
#[utoipa::path(post, path = "/v1/admin/concerts", tag = "admin", request_body = ConcertWanted,
    security(("key" = [])), responses((status = 201, body = ConcertAdded)),
    extensions(("x-problems" = json!(["forbidden", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn add_concert(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    command: Command<ConcertWanted>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, effect| {
        let queue = wanted.queue.unwrap_or_default();
        let max_active = queue.max_active.unwrap_or(app.queue.queue_max_active);
        let admit_per_minute = queue.admit_per_minute.unwrap_or(app.queue.queue_admit_per_minute);
        let (name, description) = (wanted.name, wanted.description);
        let new = NewConcert {
            id: effect.id,
            name: &name,
            description: &description,
            max_active,
            admit_per_minute,
        };
        let mut tx = app.pool.begin().await?;
        store::catalog::insert_concert(&mut tx, &new).await?;
        let queue = QueueBegun { max_active, admit_per_minute };
        let answer = Answer::created(&ConcertAdded { id: effect.id, name, description, queue });
        effect.save(&mut *tx, &answer).await?;
        tx.commit().await?;
        app.concerts_changed().await;
        Ok(answer)
    })
    .await
}

/// A date to be added.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct PerformanceWanted {
    #[schema(format = "line", min_length = 1, max_length = 200)]
    venue: String,
    starts_at: DateTime<Utc>,
    #[schema(minimum = 1, maximum = 1_440)]
    duration_minutes: i32,
    sale_opens_at: DateTime<Utc>,
    sale_closes_at: DateTime<Utc>,
    /// From then until the sale opens, seats are held for buyers with an access code.
    #[serde(default)]
    presale_opens_at: Option<DateTime<Utc>>,
    /// 1 to 100,000 seats; no number may be in two ranges.
    #[schema(min_items = 1, max_items = 100_000)]
    seats: Vec<SeatsWanted>,
}

impl Bodied for PerformanceWanted {}

impl Validate for PerformanceWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect_line(&self.venue, 1..=200, "/venue");
        let duration = format!("must be between 1 and {DURATION_MAX}");
        faults.expect((1..=DURATION_MAX).contains(&self.duration_minutes), "/duration_minutes", duration);
        let times = [
            ("/starts_at", self.starts_at),
            ("/sale_opens_at", self.sale_opens_at),
            ("/sale_closes_at", self.sale_closes_at),
        ];
        for (pointer, time) in times {
            faults.expect_time(time, pointer);
        }
        let contradictions = window_faults(self.starts_at, self.sale_opens_at, self.sale_closes_at);
        contradictions
            .into_iter()
            .for_each(|(field, reason)| faults.expect(false, format!("/{field}"), reason));
        if let Some(presale) = self.presale_opens_at {
            faults.expect_time(presale, "/presale_opens_at");
            let is_before = presale < self.sale_opens_at;
            faults.expect(is_before, "/presale_opens_at", "must be earlier than sale_opens_at");
        }
        check_seats(&self.seats, faults);
    }
}

impl PerformanceWanted {
    fn seats_total(&self) -> i64 {
        self.seats.iter().map(SeatsWanted::count).sum()
    }
}

/// A date that was added.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct PerformanceAdded {
    #[serde(flatten)]
    performance: Performance,
    #[serde(skip_serializing_if = "Option::is_none")]
    presale_opens_at: Option<DateTime<Utc>>,
}

/// Adds a date of a concert with its seats.
#[utoipa::path(post, path = "/v1/admin/concerts/{concert}/performances", tag = "admin",
    request_body = PerformanceWanted, params(("concert" = Uuid, Path)), security(("key" = [])),
    responses((status = 201, body = PerformanceAdded)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn add_performance(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(concert): PathId,
    command: Command<PerformanceWanted>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, effect| {
        if store::catalog::concert(&app.pool, concert, app.clock.now()).await?.is_none() {
            return Err(Problem::not_found("concert"));
        }
        let mut faults = Validation::default();
        let over = past_faults(wanted.starts_at, wanted.sale_closes_at, store::now(&app.pool).await?);
        over.into_iter().for_each(|(field, reason)| faults.expect(false, format!("/{field}"), reason));
        faults.finish()?;
        let seats_total = i32::try_from(wanted.seats_total()).unwrap_or(i32::MAX);
        let performance = Performance {
            id: effect.id,
            concert_id: concert,
            venue: wanted.venue,
            starts_at: wanted.starts_at,
            duration_minutes: wanted.duration_minutes,
            sale_opens_at: wanted.sale_opens_at,
            sale_closes_at: wanted.sale_closes_at,
            seats_total,
        };
        let places = placed(&wanted.seats);
        let ranges: Vec<SeatRange> = wanted.seats.into_iter().map(SeatRange::from).collect();
        let presale_opens_at = wanted.presale_opens_at;
        let answer =
            Answer::created(&PerformanceAdded { performance: performance.clone(), presale_opens_at });
        let mut tx = app.pool.begin().await?;
        store::catalog::insert_performance(&mut tx, &performance, &ranges).await?;
        store::seat_places::insert(&mut tx, performance.id, &places).await?;
        if let Some(presale) = presale_opens_at {
            store::access_codes::set_presale(&mut *tx, performance.id, presale).await?;
        }
        effect.save(&mut *tx, &answer).await?;
        tx.commit().await?;
        app.concerts_changed().await;
        Ok(answer)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: serde_json::Value, pointers: &[&str]) {
        let mut faults = Validation::default();
        serde_json::from_value::<PerformanceWanted>(body).unwrap().check(&mut faults);
        let found = faults.finish().err().map(|problem| problem.body()["errors"].clone());
        let found: Vec<String> = found
            .and_then(|errors| errors.as_array().cloned())
            .unwrap_or_default()
            .iter()
            .map(|fault| fault["pointer"].as_str().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(found, pointers);
    }

    fn date(seats: &serde_json::Value) -> serde_json::Value {
        serde_json::json!({
            "venue": "Hall", "starts_at": "2030-01-01T19:00:00Z", "duration_minutes": 120,
            "sale_opens_at": "2029-01-01T00:00:00Z", "sale_closes_at": "2030-01-01T00:00:00Z", "seats": seats,
        })
    }

    fn range(from: i32, to: i32) -> serde_json::Value {
        serde_json::json!({ "from": from, "to": to, "section": "A", "price": 100 })
    }

    #[test]
    fn seat_ranges_are_whole_and_apart() {
        check(date(&serde_json::json!([range(1, 50), range(51, 60)])), &[]);
        check(date(&serde_json::json!([range(1, 100_000)])), &[]);
        check(date(&serde_json::json!([range(51, 60), range(1, 51)])), &["/seats/0"]);
        check(
            date(&serde_json::json!([range(1, 50), range(10, 20), range(30, 60)])),
            &["/seats/1", "/seats/2"],
        );
        check(date(&serde_json::json!([range(0, 5)])), &["/seats/0/from"]);
        check(date(&serde_json::json!([range(5, 4), range(9, 9), range(10, 11)])), &["/seats/0/to"]);
        check(date(&serde_json::json!([])), &["/seats"]);
        check(date(&serde_json::json!([range(1, 100_001)])), &["/seats"]);
        check(date(&serde_json::json!([range(1, i32::MAX)])), &["/seats"]);
    }

    #[test]
    fn the_rest_has_bounds_too() {
        let mut body = date(&serde_json::json!([{ "from": 1, "to": 1, "section": "", "price": 10_000_001 }]));
        body["venue"] = "".into();
        body["duration_minutes"] = 1_441.into();
        body["sale_closes_at"] = body["sale_opens_at"].clone();
        check(
            body,
            &["/venue", "/duration_minutes", "/sale_closes_at", "/seats/0/section", "/seats/0/price"],
        );
    }

    #[test]
    fn windows_that_contradict_each_other_name_the_field() {
        let with = |fields: &[(&str, &str)]| {
            let mut body = date(&serde_json::json!([range(1, 1)]));
            fields.iter().for_each(|(field, time)| body[*field] = (*time).into());
            body
        };
        check(with(&[("sale_closes_at", "2030-01-01T19:00:00Z")]), &[]);
        check(with(&[("sale_closes_at", "2030-01-01T19:00:01Z")]), &["/sale_closes_at"]);
        check(with(&[("sale_opens_at", "2030-01-01T01:00:00Z")]), &["/sale_closes_at"]);
        check(with(&[("starts_at", "2029-01-01T00:00:00Z")]), &["/sale_opens_at", "/sale_closes_at"]);
    }

    #[test]
    fn times_are_of_this_age() {
        let mut body = date(&serde_json::json!([range(1, 1)]));
        body["starts_at"] = "+12345-01-01T00:00:00Z".into();
        body["sale_opens_at"] = "-0001-01-01T00:00:00Z".into();
        check(body, &["/starts_at", "/sale_opens_at"]);
    }
}
