//! The support desk: finding reservations of any user, their story, refunds, and points as goodwill.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Staff, Support};
use super::error::Code;
use super::idempotency::once;
use super::ops::saga_acts::{ActReason, check_reason};
use super::page::{ListQuery, Page, Paged};
use super::problem::{Fault, Problem, Result, sentence};
use super::request::{Bodied, Command, PathId};
use super::validation::{Validate, Validation};
use crate::booking::resend;
use crate::operations::support::{
    self, By, GoodwillGiven, ReservationStory, SeatsRefunded, StaffReservation, SupportError,
};
use crate::store;
use crate::store::reservations::ReservationStatus;
use crate::store::support::{Search, SeatRefund};

/// How long a cancellation is waited for before the answer is 202.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// How often its saga is looked at meanwhile, beside the notices.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Most seats of one request.
const SEATS_MAX: usize = 1_000;
/// Most points of one gift.
const GIFT_MAX: i64 = 10_000_000;

/// Which reservations are meant; all that is given must hold, and one of user, ticket and performance must be.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub struct ReservationFilter {
    /// Only of this user.
    user_id: Option<Uuid>,
    /// Only the one with this ticket.
    ticket_id: Option<Uuid>,
    /// Only the one with the ticket of this code.
    #[param(max_length = 200)]
    code: Option<String>,
    /// Only for this date.
    performance_id: Option<Uuid>,
    #[param(inline)]
    status: Option<ReservationStatus>,
}

impl Validate for ReservationFilter {
    fn check(&self, faults: &mut Validation) {
        let narrows = self.user_id.is_some()
            || self.ticket_id.is_some()
            || self.code.is_some()
            || self.performance_id.is_some();
        faults.expect(narrows, "", "must name user_id, code, ticket_id or performance_id");
        let short = self.code.as_ref().is_none_or(|code| code.len() <= 200);
        faults.expect(short, "/code", "must have 200 characters at most");
    }
}

/// Reservations of any user, newest first. They have no codes of tickets.
#[utoipa::path(get, path = "/v1/support/reservations", tag = "support", params(ReservationFilter, ListQuery),
    security(("key" = [])), responses((status = 200, body = Page<StaffReservation>)),
    extensions(("x-problems" = json!(["forbidden", "unavailable"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Support>,
    Paged { wanted, page }: Paged<ReservationFilter>,
) -> Result<Answer> {
    let mut search = Search {
        user: wanted.user_id,
        performance: wanted.performance_id,
        ticket: wanted.ticket_id,
        status: wanted.status,
    };
    if let Some(code) = &wanted.code {
        let ticket = app.redemptions()?.keys.read(code).map(|signed| signed.ticket_id);
        let Some(ticket) = ticket.filter(|id| search.ticket.is_none_or(|known| known == *id)) else {
            let nothing: Vec<StaffReservation> = Vec::new();
            return Ok(Answer::ok(&Page::cut(nothing, page.limit(), |reservation| reservation.id)));
        };
        search.ticket = Some(ticket);
    }
    let ids = store::support::search(&app.pool, &search, page.after()?, page.limit() + 1).await;
    let ids = ids.map_err(crate::operations::AskError::from)?;
    let found = store::reservations::get_many(&mut *app.pool.acquire().await?, &ids).await?;
    let found = found.into_iter().map(StaffReservation::from).collect();
    Ok(Answer::ok(&Page::cut(found, page.limit(), |reservation| reservation.id)))
}

/// The whole story of a reservation: sagas with their history, payment, ledger entries, tickets, refunds, and acts of staff.
#[utoipa::path(get, path = "/v1/support/reservations/{reservation}", tag = "support",
    params(("reservation" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = ReservationStory)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn story(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Support>,
    PathId(id): PathId,
) -> Result<Answer> {
    Ok(Answer::ok(&support::story(&app.engine, id).await?))
}

/// A cancellation by the support desk.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SupportCancellation {
    /// Written down with the act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// Only these seats of a confirmed reservation; all of it if they are left out.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 1_000)]
    seats: Option<Vec<i32>>,
}

impl Bodied for SupportCancellation {}

impl Validate for SupportCancellation {
    fn check(&self, faults: &mut Validation) {
        check_reason(&self.reason, faults);
        let good = self.seats.as_ref().is_none_or(|seats| (1..=SEATS_MAX).contains(&seats.len()));
        faults.expect(good, "/seats", format!("must name 1 to {SEATS_MAX} seats"));
    }
}

/// A reservation after a cancellation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SupportCancelled {
    #[serde(flatten)]
    reservation: StaffReservation,
    /// The refunds of the seats that were named; empty if the whole reservation is cancelled.
    seat_refunds: Vec<SeatRefund>,
}

/// Cancels a reservation of any user, also after its date has begun: a hold ends, a confirmed one is refunded. With `seats` only
/// these seats of a confirmed one are refunded: their tickets are void, the seats free. The same again changes nothing more.
#[utoipa::path(post, path = "/v1/support/reservations/{reservation}/cancellation", tag = "support",
    request_body = SupportCancellation, params(("reservation" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = SupportCancelled),
              (status = 202, body = SupportCancelled, description = "Not settled yet: see Location and Retry-After")),
    extensions(("x-problems" = json!(["forbidden", "not_found", "reservation_not_cancellable", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn cancel(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Support>,
    PathId(id): PathId,
    command: Command<SupportCancellation>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, _| {
        let by = By { actor: &staff.key.name, reason: &wanted.reason };
        if let Some(seats) = &wanted.seats
            && let SeatsRefunded::Refunded(seat_refunds) =
                support::refund_seats(&app.engine, id, seats, by).await?
        {
            return Ok(Answer::ok(&SupportCancelled { reservation: read(&app, id).await?, seat_refunds }));
        }
        let saga = support::cancel(&app.engine, id, by).await?;
        let is_settled = settles(&app, saga).await?;
        let cancelled = SupportCancelled { reservation: read(&app, id).await?, seat_refunds: Vec::new() };
        Ok(match is_settled {
            true => Answer::ok(&cancelled),
            false => Answer::accepted(&format!("/v1/support/reservations/{id}"), &cancelled),
        })
    })
    .await
}

async fn read(app: &AdminState, id: Uuid) -> Result<StaffReservation> {
    let found = store::reservations::get(&mut *app.pool.acquire().await?, id).await?;
    Ok(found.ok_or(SupportError::Unknown)?.into())
}

/// Waits a limited time for a saga to end.
async fn settles(app: &AdminState, saga: Uuid) -> Result<bool> {
    let waiting = app.engine.waiting(saga);
    let until = Instant::now() + SETTLE_TIME;
    loop {
        let found = store::sagas::get(&app.pool, saga).await?;
        if found.is_none_or(|saga| saga.status.is_end()) {
            return Ok(true);
        }
        let now = Instant::now();
        if now >= until {
            return Ok(false);
        }
        // A notice may be lost.
        let _woken = timeout_at(until.min(now + LOOK_INTERVAL), waiting.changed()).await;
    }
}

/// Points as goodwill.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Gift {
    #[schema(minimum = 1, maximum = 10_000_000)]
    amount: i64,
    /// Written down with the act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
}

impl Bodied for Gift {}

impl Validate for Gift {
    fn check(&self, faults: &mut Validation) {
        let good = (1..=GIFT_MAX).contains(&self.amount);
        faults.expect(good, "/amount", format!("must be between 1 and {GIFT_MAX}"));
        check_reason(&self.reason, faults);
    }
}

/// Gives a user points as goodwill. A key may give a bounded amount within 24 hours (`BOXOFFICE_GOODWILL_PER_DAY`).
#[utoipa::path(post, path = "/v1/support/users/{user}/points", tag = "support", request_body = Gift,
    params(("user" = Uuid, Path)), security(("key" = [])), responses((status = 201, body = GoodwillGiven)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "goodwill_limit", "balance_limit", "request_in_progress",
        "idempotency_key_required", "idempotency_key_reused"]))))]
pub async fn give_points(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Support>,
    PathId(user): PathId,
    command: Command<Gift>,
) -> Result<Response> {
    command.require_key()?;
    once(&app.repeats, staff.caller(), command, async |gift, effect| {
        if user.is_nil() {
            return Err(Problem::not_found("user"));
        }
        let by = By { actor: &staff.key.name, reason: &gift.reason };
        let amounts = (gift.amount, app.goodwill_per_day);
        let given = support::give(&app.pool, effect.id, (staff.key.id, user), amounts, by).await?;
        Ok(Answer::created(&given))
    })
    .await
}

/// Events that were published again.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct EventsResent {
    events: usize,
}

/// Publishes all events of a reservation again, with the same ids: to every consumer.
#[utoipa::path(post, path = "/v1/support/reservations/{reservation}/events", tag = "support",
    request_body = ActReason, params(("reservation" = Uuid, Path)), security(("key" = [])),
    responses((status = 200, body = EventsResent)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn resend_events(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Support>,
    PathId(id): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |why, _| {
        read(&app, id).await?;
        let events = resend::resend(&app.engine, id, &staff.key.name, &why.reason).await?;
        Ok(Answer::ok(&EventsResent { events }))
    })
    .await
}

impl From<SupportError> for Problem {
    fn from(error: SupportError) -> Self {
        match error {
            SupportError::Unknown => Self::not_found("reservation"),
            SupportError::NotPossible(status, _) => {
                let status = serde_json::json!(status);
                Self::new(Code::ReservationNotCancellable, sentence(&error))
                    .with("reservation_status", status)
            }
            SupportError::InProgress => Self::new(Code::RequestInProgress, sentence(&error)),
            SupportError::NoSuchSeats(_) => Self::invalid(vec![Fault::new("/seats", &error.to_string())]),
            SupportError::GoodwillLimit { limit, left } => {
                let problem = Self::new(Code::GoodwillLimit, sentence(&error));
                problem.with("limit", limit).with("left", left)
            }
            SupportError::BalanceLimit => Self::new(Code::BalanceLimit, sentence(&error)),
            SupportError::Ask(error) => error.into(),
            SupportError::Act(error) => error.into(),
            SupportError::Database(error) => error.into(),
        }
    }
}
