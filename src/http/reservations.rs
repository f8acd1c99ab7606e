//! Reservations: making one, and reading one's own.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::response::Response;
use chrono::TimeDelta;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::{AuthUser, Buyer};
use super::error::Code;
use super::gate::QueuePass;
use super::keyed::{self, Earlier, Effect};
use super::new_reservation::NewReservation;
use super::observe::TraceId;
use super::page::{ListQuery, Page};
use super::problem::{Problem, Result};
use super::request::{Command, Params, PathId, whose};
use super::reservation_view::ReservationView;
use super::result_mapping::{Wanted, is_fulfilled, refusal, was_fulfilled};
use super::state::AppState;
use crate::booking::{self, BookingError, Order};
use crate::ids::{ConcertId, ReservationId, UserId};
use crate::store;
use crate::store::reservations::{Reservation, ReservationStatus};
use crate::waiting_room::Claims;

/// 202: the reservation is still being worked on, and can be read at its address.
pub fn pending(app: &AppState, reservation: Reservation) -> Answer {
    let location = format!("/v1/reservations/{}", reservation.id);
    Answer::accepted(&location, &view(app, reservation))
}

/// The reservation as its buyer sees it now.
pub fn view(app: &AppState, reservation: Reservation) -> ReservationView {
    ReservationView::of(reservation, &app.tickets, app.clock.now())
}

/// The caller's own reservation. A reservation of another user counts as missing.
pub async fn own(app: &AppState, id: ReservationId, user: UserId) -> Result<Reservation> {
    match app.booking.find(id).await {
        Ok(found) if found.user_id == user => Ok(found),
        Ok(_) | Err(BookingError::Unknown) => Err(Problem::not_found("reservation")),
        Err(error) => Err(error.into()),
    }
}

/// Holds seats: all of them, or none; with `pay` they are paid in the same request. The seats are named, or with `best` the
/// best free ones are chosen. A cashier sells at the counter to whom they name, past the line.
#[utoipa::path(post, path = "/v1/reservations", tag = "reservations", request_body = NewReservation,
    security(("user" = [], "queue_token" = []), ("key" = [])),
    responses((status = 201, body = ReservationView, description = "Held, or with `pay` confirmed"),
              (status = 200, body = ReservationView, description = "The caller holds exactly these seats already"),
              (status = 202, body = ReservationView, description = "Not settled yet: see Location and Retry-After")),
    extensions(("x-problems" = json!(["not_found", "queue_token", "seat_taken", "no_seats_together", "access_code_invalid", "access_code_used_up", "seat_unknown", "too_many_seats",
        "sale_not_open", "insufficient_points", "hold_expired", "reservation_not_payable", "forbidden", "rate_limited", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn reserve(
    State(app): State<Arc<AppState>>,
    buyer: Buyer,
    pass: QueuePass,
    TraceId(trace): TraceId,
    command: Command<NewReservation>,
) -> Result<Response> {
    command.body.check_each(app.booking_settings.max_seats)?;
    let user_id = whose(&buyer, command.body.user_id)?;
    let (wanted, claim) = command.claimed_by(buyer.caller());
    keyed::once(&app.repeats, claim, &Reserve { app: &app, buyer, user_id, pass, wanted, trace }).await
}

/// A request for seats.
struct Reserve<'a> {
    app: &'a AppState,
    buyer: Buyer,
    user_id: UserId,
    pass: QueuePass,
    wanted: NewReservation,
    trace: Option<Uuid>,
}

impl keyed::Request for Reserve<'_> {
    async fn work(&self, effect: &Effect) -> Result<Answer> {
        let Self { app, user_id, wanted, .. } = self;
        let performance_id = wanted.performance_id;
        let concert_id = app.catalog.concert_of(performance_id).await?;
        let place = match &self.buyer {
            Buyer::User(_) => Some(app.room.pass(self.pass.token(), *user_id, concert_id)),
            Buyer::Cashier(_) => None,
        };
        if effect.may_be_begun() {
            match app.booking.resume(effect.id, wanted.pay).await {
                Err(BookingError::Unknown) => {}
                // It was begun by a request that had passed the gate.
                sold => {
                    return conclude(
                        app,
                        sold?,
                        self.wanted_state(),
                        place.and_then(std::result::Result::ok),
                    )
                    .await;
                }
            }
        }
        let place = place.transpose()?;
        let access_code = self.access_code(concert_id).await?;
        let (seats, best) = wanted.clone().seats(app.booking_settings.max_seats)?;
        let (pay_now, trace, block) = (wanted.pay, self.trace, None);
        let user_id = *user_id;
        let order = Order {
            id: effect.id,
            user_id,
            concert_id,
            performance_id,
            seats,
            best,
            block,
            access_code,
            pay_now,
            trace,
        };
        let began = Instant::now();
        let sold = app.booking.reserve_under(order, effect.key()).await;
        app.room.record_hold(began.elapsed());
        conclude(app, sold?, self.wanted_state(), place).await
    }

    async fn earlier_answer(&self, earlier: Earlier) -> Result<Option<Answer>> {
        let settled = self.app.booking.settled(earlier.effect, self.wanted.pay).await?;
        let Some(reservation) = settled else {
            return Ok(None);
        };
        if was_fulfilled(&reservation, self.wanted_state()) {
            return Ok(Some(Answer::created(&view(self.app, reservation))));
        }
        if reservation.status != ReservationStatus::Failed {
            return Ok(None);
        }
        match again(self.app, &reservation).await {
            Err(refusal) if refusal.code() == Code::SeatTaken => {
                Ok(Some(Answer::new(refusal.status(), &refusal.body())))
            }
            Err(_) => Ok(None),
            Ok(held) => Ok(Some(held)),
        }
    }
}

impl Reserve<'_> {
    /// The access code that was sent, if the date is not sold to all yet.
    async fn access_code(&self, concert: ConcertId) -> Result<Option<Uuid>> {
        let Some(code) = &self.wanted.access_code else { return Ok(None) };
        let date = self.app.catalog.date(self.wanted.performance_id).await?;
        if self.app.clock.now() >= date.sale_opens_at {
            return Ok(None);
        }
        self.app.codes.find(self.user_id, concert, code).await.map(Some)
    }

    fn wanted_state(&self) -> Wanted {
        if self.wanted.pay { Wanted::Paid } else { Wanted::Held }
    }
}

/// The answer to what has become of an order. `place` is the buyer's in line, if they came by one.
async fn conclude(
    app: &AppState,
    sold: booking::Answer,
    state: Wanted,
    place: Option<Claims>,
) -> Result<Answer> {
    let now = || app.clock.now();
    let reservation = match sold {
        booking::Answer::Pending(reservation) => {
            // It may become a hold any moment now; the session must outlive that.
            let hold = TimeDelta::seconds(app.booking_settings.hold_seconds.into());
            app.room.extend_to(reservation.user_id, reservation.concert_id, now() + hold);
            return Ok(pending(app, *reservation));
        }
        booking::Answer::Settled(reservation) => *reservation,
    };
    match reservation.status {
        ReservationStatus::Failed => return again(app, &reservation).await,
        ReservationStatus::Confirmed => {
            if let Some(place) = place {
                app.room.end(&place).await;
            }
        }
        _ => {
            if let Some(expires_at) = reservation.expires_at {
                app.room.extend_to(reservation.user_id, reservation.concert_id, expires_at);
            }
        }
    }
    match is_fulfilled(&reservation, state) {
        Ok(true) => Ok(Answer::created(&view(app, reservation))),
        Ok(false) => Ok(pending(app, reservation)),
        // With too few points the hold stays: it can be paid once there are enough.
        Err(problem) => Err(problem.with("reservation_id", reservation.id.to_string())),
    }
}

/// Who asks for the seats that they hold already gets that hold instead of a refusal.
async fn again(app: &AppState, failed: &Reservation) -> Result<Answer> {
    let refusal = refusal(failed);
    let lost = matches!(refusal.code(), Code::SeatTaken | Code::TooManySeats);
    let Some(held) = failed.held_instead.filter(|_| lost) else {
        return Err(refusal);
    };
    let held = app.booking.find(held).await?;
    Ok(Answer::ok(&view(app, held)))
}

/// The caller's reservations, newest first.
#[utoipa::path(get, path = "/v1/reservations", tag = "reservations", params(ListQuery), security(("user" = [])),
    responses((status = 200, body = Page<ReservationView>)))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    Params(query): Params<ListQuery>,
) -> Result<Answer> {
    let mut conn = app.pool.acquire().await?;
    let rows = store::reservations::of_user(&mut conn, user.id, query.after()?, query.limit() + 1).await?;
    let page = Page::cut(rows, query.limit(), |reservation| reservation.id);
    let mut items = Vec::with_capacity(page.items.len());
    for reservation in page.items {
        items.push(view(&app, reservation).with_date(&app).await?);
    }
    Ok(Answer::ok(&Page { items, next_cursor: page.next_cursor }))
}

/// One of the caller's reservations.
#[utoipa::path(get, path = "/v1/reservations/{reservation}", tag = "reservations",
    params(("reservation" = Uuid, Path)), security(("user" = [])),
    responses((status = 200, body = ReservationView)), extensions(("x-problems" = json!(["not_found"]))))]
pub async fn show(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(reservation): PathId,
) -> Result<Answer> {
    let reservation = own(&app, reservation, user.id).await?;
    Ok(Answer::ok(&view(&app, reservation).with_date(&app).await?))
}
