//! What the support desk does: the story of a reservation, cancelling it or some of its seats, and points as goodwill.
//!
//! A refund of single seats is one transaction: ledger entries, tickets, seats and what remains of the reservation. A seat that was
//! refunded before is not refunded again. A whole reservation is taken back by its saga.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use utoipa::ToSchema;
use uuid::Uuid;

use super::acts::OperatorAct;
use super::{AskError, SagaDetail, sagas};
use crate::bus::messages::SeatsChanged;
use crate::bus::subjects;
use crate::cancellation::{self, Order};
use crate::config::Control;
use crate::ids;
use crate::orchestrator::{ActError, Engine};
use crate::saga::OperatorAction;
use crate::store;
use crate::store::direct_events::{self, DirectEvent};
use crate::store::operations::{self, ActRow};
use crate::store::payments::{self, NewEntry};
use crate::store::reservations::{self, Line, Payment, Reservation, ReservationStatus};
use crate::store::support::{self, SeatRefund, Sold, StoryEntry};
use crate::store::write_batch::WriteBatch;

/// Most acts of a story.
const ACTS_MAX: i64 = 200;
/// For how long goodwill counts against its bound.
const GOODWILL_WINDOW: TimeDelta = TimeDelta::hours(24);

/// A reservation as staff see it. It has no codes of tickets: those admit.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StaffReservation {
    pub id: Uuid,
    pub user_id: Uuid,
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    pub status: ReservationStatus,
    pub reason: Option<String>,
    /// The seats that it has, without those that were refunded.
    pub seats: Vec<Line>,
    pub amount: i64,
    pub expires_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// The saga that cancels it, if one does or did.
    pub cancellation_id: Option<Uuid>,
    pub payment: Option<Payment>,
    pub tickets: Vec<StaffTicket>,
}

/// A ticket without its code.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StaffTicket {
    pub id: Uuid,
    pub seat: i32,
    /// `valid` or `void`.
    pub status: String,
}

impl From<Reservation> for StaffReservation {
    fn from(reservation: Reservation) -> Self {
        let mut seats = reservation.lines.0;
        if seats.is_empty() {
            let unpriced = |number: &i32| Line { number: *number, section: None, price: None };
            seats = reservation.seats.iter().map(unpriced).collect();
        }
        let ticket = |ticket: reservations::Ticket| StaffTicket {
            id: ticket.id,
            seat: ticket.seat,
            status: ticket.status,
        };
        Self {
            id: reservation.id,
            user_id: reservation.user_id,
            concert_id: reservation.concert_id,
            performance_id: reservation.performance_id,
            status: reservation.status,
            reason: reservation.reason,
            seats,
            amount: reservation.amount,
            expires_at: reservation.expires_at,
            created_at: reservation.created_at,
            cancellation_id: reservation.cancellation_id,
            payment: reservation.payment.map(|payment| payment.0),
            tickets: reservation.tickets.0.into_iter().map(ticket).collect(),
        }
    }
}

/// All that happened to a reservation.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReservationStory {
    pub reservation: StaffReservation,
    /// Its booking and its cancellations, each with its history.
    pub sagas: Vec<SagaDetail>,
    /// Its ledger entries, oldest first.
    pub entries: Vec<StoryEntry>,
    pub seat_refunds: Vec<SeatRefund>,
    /// What staff and operators did to it, newest first.
    pub acts: Vec<OperatorAct>,
}

/// Why support's act was not done.
#[derive(Debug, thiserror::Error)]
pub enum SupportError {
    #[error("there is no such reservation")]
    Unknown,
    #[error("the reservation is {}; {}", .0.name(), .1)]
    NotPossible(ReservationStatus, &'static str),
    #[error("the reservation is being worked on; try again in a second")]
    InProgress,
    #[error("the reservation has no seat {}", .0.iter().map(i32::to_string).collect::<Vec<_>>().join(", "))]
    NoSuchSeats(Vec<i32>),
    #[error("a key may give {limit} points as goodwill within 24 hours, and {left} are left")]
    GoodwillLimit { limit: i64, left: i64 },
    #[error("no entry may lift a balance above {} points", store::points::BALANCE_LIMIT)]
    BalanceLimit,
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Act(#[from] ActError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// One reservation of any user with its sagas, ledger entries, refunds, and the acts on it.
pub async fn story(engine: &Engine, id: Uuid) -> Result<ReservationStory, SupportError> {
    let pool = &engine.pool;
    let reservation = reservations::get(&mut *pool.acquire().await?, id).await?;
    let reservation = reservation.ok_or(SupportError::Unknown)?;
    let ids = support::sagas_of(pool, id).await?;
    let mut details = Vec::new();
    for saga in &ids {
        details.push(sagas::show(pool, &engine.registry, *saga).await?);
    }
    let entries = support::entries_of(pool, reservation.user_id, id).await?;
    let seat_refunds = support::seat_refunds(pool, id).await?;
    let acts = support::acts_about(pool, &ids, &target(id), ACTS_MAX).await?;
    let acts = acts.into_iter().map(OperatorAct::from).collect();
    Ok(ReservationStory { reservation: reservation.into(), sagas: details, entries, seat_refunds, acts })
}

fn target(reservation: Uuid) -> String {
    format!("reservation {reservation}")
}

/// Who acts, and why.
#[derive(Clone, Copy, Debug)]
pub struct By<'a> {
    pub actor: &'a str,
    pub reason: &'a str,
}

/// Begins to take a whole reservation back: a hold is ended, a confirmed one refunded, also after its date has begun. Answers the
/// saga that does it. One that is cancelled already stays as it is.
pub async fn cancel(engine: &Engine, id: Uuid, by: By<'_>) -> Result<Uuid, SupportError> {
    let reservation = reservations::get(&mut *engine.pool.acquire().await?, id).await?;
    let reservation = reservation.ok_or(SupportError::Unknown)?;
    if let Some(begun) = reservation.cancellation_id {
        return Ok(begun);
    }
    match reservation.status {
        ReservationStatus::Confirmed => {}
        ReservationStatus::Cancelled => return Ok(id),
        ReservationStatus::Held | ReservationStatus::Pending => {
            return match engine.act(id, OperatorAction::Cancel, by.actor, by.reason).await {
                Ok(_) => Ok(id),
                Err(ActError::Illegal { .. }) => Err(SupportError::InProgress),
                Err(error) => Err(error.into()),
            };
        }
        status => return Err(SupportError::NotPossible(status, "it has ended already")),
    }
    let cancellation = ids::new();
    let (target, detail) = (target(id), json!({ "cancellation_id": cancellation }));
    let act = ActRow {
        actor: by.actor,
        act: "support.cancel",
        saga_id: Some(cancellation),
        target: Some(&target),
        reason: by.reason,
        from: "confirmed",
        to: "cancelling",
        detail: Some(&detail),
    };
    let order = Order { wanted: &[(id, cancellation)], key: None, by_staff: Some(&act) };
    if cancellation::start(&engine.pool, engine, order).await?.is_empty() {
        // Another one has won, or it is not confirmed any more.
        let now = reservations::get(&mut *engine.pool.acquire().await?, id).await?;
        return now.and_then(|now| now.cancellation_id).ok_or(SupportError::InProgress);
    }
    Ok(cancellation)
}

/// What became of a refund of single seats.
#[derive(Clone, Debug)]
pub enum SeatsRefunded {
    /// These seats are refunded, now or before.
    Refunded(Vec<SeatRefund>),
    /// They are all the seats that are left: the whole reservation is to be cancelled.
    Whole,
}

/// Refunds some seats of a confirmed reservation. Seats that were refunded before are left out.
pub async fn refund_seats(
    engine: &Engine,
    id: Uuid,
    seats: &[i32],
    by: By<'_>,
) -> Result<SeatsRefunded, SupportError> {
    let mut tx = engine.pool.begin().await?;
    // As a cancellation does, so that both come one after the other.
    let (bookings, now) = store::sagas::lock(&mut tx, &[id]).await?;
    let sold = support::lock(&mut tx, id).await?.ok_or(SupportError::Unknown)?;
    let before = support::seat_refunds(&mut *tx, id).await?;
    let wanted: Vec<i32> =
        seats.iter().copied().filter(|seat| !before.iter().any(|refund| refund.seat == *seat)).collect();
    if wanted.is_empty() {
        return Ok(SeatsRefunded::Refunded(chosen(before, seats)));
    }
    check(&sold, &wanted)?;
    let (taken, kept): (Vec<Line>, Vec<Line>) =
        sold.lines.0.iter().cloned().partition(|line| wanted.contains(&line.number));
    if kept.is_empty() {
        return Ok(SeatsRefunded::Whole);
    }
    let user = [sold.user_id];
    let (mut balances, _) = payments::balances_of(&mut tx, &user, Control::Pessimistic).await?;
    let (mut entries, mut refunds) = (Vec::new(), Vec::new());
    for line in &taken {
        let amount = line.price.unwrap_or(0);
        let entry_id = (amount > 0).then(ids::new);
        if let Some(entry) = entry_id {
            let balance = balances.change(&sold.user_id).ok_or(sqlx::Error::RowNotFound)?;
            *balance += amount;
            entries.push(entry_of(entry, &sold, id, (amount, *balance)));
        }
        let (actor, reason) = (by.actor.to_owned(), by.reason.to_owned());
        refunds.push(SeatRefund { seat: line.number, amount, entry_id, actor, reason, refunded_at: now });
    }
    let mut changes = WriteBatch::default();
    payments::save_balances(&mut changes, &balances, now);
    payments::enter(&mut changes, &entries, now);
    changes.write(&mut tx).await?;
    support::take_seats_off(&mut tx, id, &refunds, &kept, now).await?;
    for entry in &entries {
        payments::note_unannounced(&mut *tx, entry.id, now).await?;
    }
    // The numbers of a reservation's events go on after its booking's last one.
    let last = bookings.first().map_or_else(|| now.timestamp_millis(), |booking| booking.seq);
    let sequence = last + 1 + direct_events::count(&mut *tx, id).await?;
    let event = event_of(id, &sold, &refunds, (sequence, now));
    direct_events::insert(&mut *tx, &event).await?;
    let target = target(id);
    let act = ActRow {
        actor: by.actor,
        act: "support.refund_seats",
        saga_id: None,
        target: Some(&target),
        reason: by.reason,
        from: "confirmed",
        to: "confirmed",
        detail: Some(&event.data),
    };
    operations::record_act(&mut *tx, &act).await?;
    tx.commit().await?;
    tell_seats(engine, &sold).await;
    Ok(SeatsRefunded::Refunded(chosen(before.into_iter().chain(refunds).collect(), seats)))
}

fn chosen(refunds: Vec<SeatRefund>, seats: &[i32]) -> Vec<SeatRefund> {
    refunds.into_iter().filter(|refund| seats.contains(&refund.seat)).collect()
}

fn check(sold: &Sold, wanted: &[i32]) -> Result<(), SupportError> {
    if sold.status != ReservationStatus::Confirmed {
        return Err(SupportError::NotPossible(
            sold.status,
            "single seats of a confirmed one can be refunded",
        ));
    }
    if sold.cancellation_id.is_some() {
        return Err(SupportError::NotPossible(sold.status, "it is being cancelled as a whole"));
    }
    let has = |seat: &i32| sold.lines.0.iter().any(|line| line.number == *seat);
    let unknown: Vec<i32> = wanted.iter().copied().filter(|seat| !has(seat)).collect();
    if unknown.is_empty() { Ok(()) } else { Err(SupportError::NoSuchSeats(unknown)) }
}

fn entry_of(id: Uuid, sold: &Sold, reservation_id: Uuid, (amount, balance): (i64, i64)) -> NewEntry {
    let (user_id, kind, reverses_id) = (sold.user_id, "refund", None);
    NewEntry { id, user_id, kind, amount, balance, reservation_id, reverses_id }
}

fn event_of(
    id: Uuid,
    sold: &Sold,
    refunds: &[SeatRefund],
    (sequence, at): (i64, DateTime<Utc>),
) -> DirectEvent {
    let seats: Vec<_> = refunds
        .iter()
        .map(|refund| json!({ "number": refund.seat, "amount": refund.amount, "entry_id": refund.entry_id }))
        .collect();
    let data = json!({
        "reservation_id": id,
        "user_id": sold.user_id,
        "concert_id": sold.concert_id,
        "performance_id": sold.performance_id,
        "seats": seats,
        "amount": refunds.iter().map(|refund| refund.amount).sum::<i64>(),
    });
    let name = "reservation.seats_cancelled".to_owned();
    DirectEvent { id: ids::new(), name, subject_id: id, sequence, data, at }
}

/// Maps of seats follow within a second if this is lost.
async fn tell_seats(engine: &Engine, sold: &Sold) {
    let changed = SeatsChanged { performances: vec![sold.performance_id], concerts: vec![sold.concert_id] };
    if let Ok(body) = serde_json::to_vec(&changed)
        && let Err(error) = engine.bus.notify(subjects::SEATS_CHANGED, body.into()).await
    {
        tracing::debug!(%error, "a notice of refunded seats was not sent; seat maps follow within a second");
    }
}

/// Points that were given.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct GoodwillGiven {
    pub entry_id: Uuid,
    pub user_id: Uuid,
    pub amount: i64,
    /// The balance after it.
    pub balance: i64,
}

/// Gives points as goodwill, within the key's bound of a day. `entry` is the ledger entry's id: the same one again gives nothing
/// more.
pub async fn give(
    pool: &PgPool,
    entry: Uuid,
    (key, user): (Uuid, Uuid),
    (amount, limit): (i64, i64),
    by: By<'_>,
) -> Result<GoodwillGiven, SupportError> {
    let mut tx = pool.begin().await?;
    let now = store::now(&mut *tx).await?;
    let given = support::lock_goodwill(&mut tx, key, now - GOODWILL_WINDOW).await?;
    if let Some(known) = store::points::entry(&mut *tx, entry, user).await? {
        let (amount, balance) = (known.amount, known.balance);
        return Ok(GoodwillGiven { entry_id: entry, user_id: user, amount, balance });
    }
    if given + amount > limit {
        return Err(SupportError::GoodwillLimit { limit, left: (limit - given).max(0) });
    }
    let balance = store::points::credit(&mut *tx, "goodwill", entry, user, amount).await?;
    let balance = balance.ok_or(SupportError::BalanceLimit)?;
    support::insert_goodwill(&mut *tx, entry, (key, user), (amount, by.reason), now).await?;
    let (target, done) =
        (format!("user {user}"), GoodwillGiven { entry_id: entry, user_id: user, amount, balance });
    let detail = json!(done);
    let act = ActRow {
        actor: by.actor,
        act: "support.give_points",
        saga_id: None,
        target: Some(&target),
        reason: by.reason,
        from: "",
        to: "given",
        detail: Some(&detail),
    };
    operations::record_act(&mut *tx, &act).await?;
    tx.commit().await?;
    Ok(done)
}
