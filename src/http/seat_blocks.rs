//! Seats that staff keep from sale, and their sale to guests.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::error::Code;
use super::idempotency::once;
use super::ops::saga_acts::check_reason;
use super::page::{ListQuery, Page};
use super::problem::{Fault, Problem, Result};
use super::request::{Bodied, Command, Params, PathId, PathIdName};
use super::result_mapping::{Wanted, is_fulfilled, refusal};
use super::validation::{Validate, Validation};
use crate::booking::{self, Order};
use crate::catalog::announce_changed_seats;
use crate::store;
use crate::store::reservations::{Line, Payment, Reservation, ReservationStatus};
use crate::store::seat_blocks::{Blocked, NewBlock, SeatBlock};

/// Most seats of one block.
const BLOCK_SEATS_MAX: usize = 1_000;
/// Most seats of one sale from a block.
const SALE_SEATS_MAX: usize = 100;

/// Seats to be blocked, all or none.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct BlockWanted {
    /// Numbers of seats.
    #[schema(min_items = 1, max_items = 1_000)]
    seats: Vec<i32>,
    /// Kept with the block.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// From then on the seats are free for every buyer; without it the block has to be released.
    #[serde(default)]
    until: Option<DateTime<Utc>>,
}

impl Bodied for BlockWanted {}

impl Validate for BlockWanted {
    fn check(&self, faults: &mut Validation) {
        check_seats(&self.seats, BLOCK_SEATS_MAX, faults);
        check_reason(&self.reason, faults);
        if let Some(until) = self.until {
            faults.expect_time(until, "/until");
        }
    }
}

fn check_seats(seats: &[i32], most: usize, faults: &mut Validation) {
    let good = (1..=most).contains(&seats.len());
    faults.expect(good, "/seats", format!("must name between 1 and {most} seats"));
    let mut seen = HashSet::new();
    for (at, number) in seats.iter().enumerate().take(most) {
        faults.expect(*number > 0, format!("/seats/{at}"), "must be 1 or more");
        faults.expect(seen.insert(number), format!("/seats/{at}"), "is there twice");
    }
}

/// Keeps free seats of a date from sale: all of them, or none.
#[utoipa::path(post, path = "/v1/admin/performances/{performance}/blocks", tag = "admin", request_body = BlockWanted,
    params(("performance" = Uuid, Path)), security(("key" = [])), responses((status = 201, body = SeatBlock)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "seat_taken", "seat_unknown", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn add(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(performance): PathId,
    command: Command<BlockWanted>,
) -> Result<Response> {
    let (blocked_by, caller) = (staff.key.name.clone(), staff.caller());
    once(&app.repeats, caller, command, async |wanted, effect| {
        let date = store::dates::get(&app.pool, performance).await?;
        let date = date.ok_or_else(|| Problem::not_found("performance"))?;
        let mut seats = wanted.seats;
        seats.sort_unstable();
        let block = NewBlock {
            id: effect.id,
            performance_id: performance,
            seats: &seats,
            reason: &wanted.reason,
            until: wanted.until,
            blocked_by: &blocked_by,
        };
        let mut tx = app.pool.begin().await?;
        refuse(store::seat_blocks::insert(&mut tx, &block).await?)?;
        let block = store::seat_blocks::find(&mut *tx, performance, effect.id).await?;
        let answer = Answer::created(&block.ok_or_else(|| Problem::not_found("block"))?);
        effect.save(&mut *tx, &answer).await?;
        tx.commit().await?;
        announce_changed_seats(app.bus(), date.concert_id, performance).await;
        Ok(answer)
    })
    .await
}

/// The problem of seats that are not blocked.
fn refuse(blocked: Blocked) -> Result<()> {
    let named = |seats: &[i32]| seats.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match blocked {
        Blocked::Done => Ok(()),
        Blocked::Unknown(seats) => {
            let detail = format!("There are no such seats: {}.", named(&seats));
            Err(Problem::new(Code::SeatUnknown, detail).with("seats", seats))
        }
        Blocked::Taken(seats) => {
            let detail = format!("Not free: {}. None of the seats is blocked.", named(&seats));
            Err(Problem::new(Code::SeatTaken, detail).with("seats", seats))
        }
        Blocked::Over => Err(Problem::invalid(vec![Fault::new("/until", "must be in the future")])),
    }
}

/// The blocks of a date, the newest first, with those that have ended.
#[utoipa::path(get, path = "/v1/admin/performances/{performance}/blocks", tag = "admin",
    params(("performance" = Uuid, Path), ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<SeatBlock>)), extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(performance): PathId,
    Params(query): Params<ListQuery>,
) -> Result<Answer> {
    if store::dates::get(&app.pool, performance).await?.is_none() {
        return Err(Problem::not_found("performance"));
    }
    let (after, limit) = (query.after()?, query.limit());
    let rows = store::seat_blocks::of_performance(&app.pool, performance, after, limit + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, limit, |block| block.id)))
}

/// The block that a path names.
async fn find(app: &AdminState, performance: Uuid, block: &str) -> Result<SeatBlock> {
    let id: Option<Uuid> = Some(block).filter(|text| text.len() == 36).and_then(|text| text.parse().ok());
    let block = store::seat_blocks::find(&app.pool, performance, id.unwrap_or(Uuid::nil())).await?;
    block.ok_or_else(|| Problem::not_found("block"))
}

/// Releases a block: the seats that it still has are free at once. A block that was released before stays so.
#[utoipa::path(delete, path = "/v1/admin/performances/{performance}/blocks/{block}", tag = "admin",
    params(("performance" = Uuid, Path), ("block" = Uuid, Path)), security(("key" = [])),
    responses((status = 204, description = "Released")), extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn release(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathIdName(performance, block): PathIdName,
) -> Result<Response> {
    let block = find(&app, performance, &block).await?;
    let mut tx = app.pool.begin().await?;
    store::seat_blocks::release(&mut tx, performance, block.id, &staff.key.name).await?;
    tx.commit().await?;
    announce_changed_seats(app.bus(), block.concert_id, performance).await;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A sale of blocked seats to one user.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct BlockSale {
    user_id: Uuid,
    /// All seats that the block still has, if they are left out.
    #[serde(default)]
    #[schema(min_items = 1, max_items = 100)]
    seats: Option<Vec<i32>>,
    /// Pay at once, with the user's points. Otherwise the user pays within the time of a hold.
    #[serde(default)]
    pay: bool,
}

impl Bodied for BlockSale {}

impl Validate for BlockSale {
    fn check(&self, faults: &mut Validation) {
        if let Some(seats) = &self.seats {
            check_seats(seats, SALE_SEATS_MAX, faults);
        }
    }
}

/// The reservation of a guest, as staff see it. Its tickets are for the guest.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlockSold {
    /// The reservation.
    id: Uuid,
    user_id: Uuid,
    performance_id: Uuid,
    status: ReservationStatus,
    seats: Vec<Line>,
    amount: i64,
    /// Until when a payment is accepted.
    expires_at: Option<DateTime<Utc>>,
    payment: Option<Payment>,
}

impl BlockSold {
    fn of(reservation: Reservation) -> Self {
        Self {
            id: reservation.id,
            user_id: reservation.user_id,
            performance_id: reservation.performance_id,
            status: reservation.status,
            seats: reservation.lines.0,
            amount: reservation.amount,
            expires_at: reservation.expires_at,
            payment: reservation.payment.map(|payment| payment.0),
        }
    }
}

/// Sells blocked seats to a user, all or none: their reservation holds them, and with `pay` it is paid at once. The window of the
/// sale and the limits of buyers do not count. If the hold runs out, the seats are free.
#[utoipa::path(post, path = "/v1/admin/performances/{performance}/blocks/{block}/sale", tag = "admin",
    request_body = BlockSale, params(("performance" = Uuid, Path), ("block" = Uuid, Path)), security(("key" = [])),
    responses((status = 201, body = BlockSold, description = "Held, or with `pay` confirmed"),
              (status = 202, body = BlockSold, description = "Not settled yet: see Location and Retry-After")),
    extensions(("x-problems" = json!(["forbidden", "not_found", "seat_taken", "seat_unknown", "too_many_seats",
        "sale_not_open", "insufficient_points", "hold_expired", "reservation_not_payable", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn sell(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathIdName(performance, block): PathIdName,
    command: Command<BlockSale>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, effect| {
        let block = find(&app, performance, &block).await?;
        let state = if wanted.pay { Wanted::Paid } else { Wanted::Held };
        let known = app.booking.resume(effect.id, wanted.pay).await;
        let sold = match known {
            Err(booking::BookingError::Unknown) => {
                let order = Order {
                    id: effect.id,
                    user_id: wanted.user_id,
                    concert_id: block.concert_id,
                    performance_id: performance,
                    seats: sold_seats(&block, wanted.seats)?,
                    best: None,
                    block: Some(block.id),
                    access_code: None,
                    pay_now: wanted.pay,
                    trace: None,
                };
                app.booking.reserve(order).await?
            }
            known => known?,
        };
        conclude(sold, state)
    })
    .await
}

/// The seats that are sold: those that are named, or all that the block still has.
fn sold_seats(block: &SeatBlock, named: Option<Vec<i32>>) -> Result<Vec<i32>> {
    let mut seats = named.unwrap_or_else(|| block.seats_blocked.clone());
    seats.sort_unstable();
    let unknown: Vec<i32> = seats.iter().filter(|seat| !block.seats.contains(seat)).copied().collect();
    if !unknown.is_empty() {
        return refuse(Blocked::Unknown(unknown)).map(|()| seats);
    }
    if seats.is_empty() {
        let detail = "The block has no seats any more.";
        return Err(Problem::new(Code::SeatTaken, detail).with("seats", block.seats.clone()));
    }
    if seats.len() > SALE_SEATS_MAX {
        let detail =
            format!("One sale from a block may have {SALE_SEATS_MAX} seats at most; name fewer of them.");
        return Err(Problem::new(Code::TooManySeats, detail).with("limit", SALE_SEATS_MAX));
    }
    Ok(seats)
}

/// 202: it is still being worked on; the guest can read it at its address.
fn pending(reservation: Reservation) -> Answer {
    let location = format!("/v1/reservations/{}", reservation.id);
    Answer::accepted(&location, &BlockSold::of(reservation))
}

fn conclude(sold: booking::Answer, state: Wanted) -> Result<Answer> {
    let reservation: Reservation = match sold {
        booking::Answer::Pending(reservation) => return Ok(pending(*reservation)),
        booking::Answer::Settled(reservation) => *reservation,
    };
    if reservation.status == ReservationStatus::Failed {
        return Err(refusal(&reservation));
    }
    match is_fulfilled(&reservation, state) {
        Ok(true) => Ok(Answer::created(&BlockSold::of(reservation))),
        Ok(false) => Ok(pending(reservation)),
        // With too few points the hold stays.
        Err(problem) => Err(problem.with("reservation_id", reservation.id.to_string())),
    }
}
