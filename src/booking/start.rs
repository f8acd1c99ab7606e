//! Orders become reservations and sagas: all that wait at a moment in one transaction.

use chrono::{DateTime, Utc};
use fail::fail_point;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::DeskError;
use crate::config::Control;
use crate::orchestrator::{self, Engine, Requests};
use crate::saga::{NewSaga, Saga};
use crate::store;
use crate::store::attempt::decide;
use crate::store::changes::Changes;
use crate::store::reservations::{NewReservation, Reservation};

/// Starts what is ordered until the service stops.
pub(super) async fn run(engine: Engine, orders: Requests<NewReservation, bool>, stop: CancellationToken) {
    let turns = engine.turns.clone();
    orders.work(engine, turns, stop, |engine, orders| Box::pin(take(engine, orders))).await;
}

/// Says of each order whether it was new.
async fn take(engine: &Engine, orders: &[NewReservation]) -> store::Result<Vec<bool>> {
    let started = decide(engine.control, |control| start(engine, orders, control)).await;
    match started {
        Ok(()) => Ok(vec![true; orders.len()]),
        // Among several it is not known which one it is: they come again in halves.
        Err(error) if orders.len() == 1 && is_there_already(&error) => Ok(vec![false]),
        Err(error) => Err(error),
    }
}

/// The order was taken before: the caller gets what became of it.
fn is_there_already(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some("reservations_pkey")
}

async fn start(engine: &Engine, orders: &[NewReservation], control: Control) -> store::Result<()> {
    let mut conn = engine.steps.acquire().await?;
    let mut changes = Changes::default();
    let now = match control {
        Control::Pessimistic => store::now(&mut *conn).await?,
        Control::Optimistic => {
            let now = engine.clock.micros();
            changes.compare_clock(now);
            now
        }
    };
    store::reservations::insert(&mut changes, orders, now);
    let sagas = orders.iter().map(|order| NewSaga {
        id: order.id,
        subject_id: order.id,
        input: ordered(order),
        trace: order.trace,
        seq: 0,
    });
    let consequences = orchestrator::start(&mut changes, engine, "booking", sagas.collect(), now)?;
    changes.write(&mut conn).await?;
    fail_point!("start::committed");
    engine.follow_later(consequences);
    Ok(())
}

/// Starts the cancellation of a confirmed reservation; `false` if another one won, or it may not be any more.
pub(super) async fn cancellation(
    pool: &PgPool,
    engine: &Engine,
    reservation: &Reservation,
    id: Uuid,
) -> Result<bool, DeskError> {
    let mut tx = pool.begin().await?;
    // The booking's row first: its numbers end where the cancellation's begin.
    let (booking, now) = store::sagas::lock(&mut tx, &[reservation.id]).await?;
    if !store::reservations::claim_cancellation(&mut tx, reservation.id, id, now).await? {
        return Ok(false);
    }
    let Reservation { id: reservation_id, user_id, concert_id, performance_id, seats, amount, .. } =
        reservation;
    let mut input = input(*reservation_id, *user_id, *concert_id, *performance_id, seats);
    input.insert("amount".to_owned(), json!(amount));
    let new = NewSaga {
        id,
        subject_id: *reservation_id,
        input,
        trace: booking.first().map(|booking| booking.trace.unwrap_or(booking.id)),
        seq: last_number(booking.first(), now),
    };
    let mut changes = Changes::default();
    let consequences = orchestrator::start(&mut changes, engine, "cancellation", vec![new], now)?;
    changes.write(&mut tx).await?;
    tx.commit().await?;
    fail_point!("start::committed");
    engine.follow_later(consequences);
    Ok(true)
}

/// The number that a cancellation goes on counting from: its booking's last. A booking that was dropped by age has
/// taken its number along; milliseconds since 1970 are more than any saga gets to by counting.
fn last_number(booking: Option<&Saga>, now: DateTime<Utc>) -> i64 {
    booking.map_or_else(|| now.timestamp_millis(), |booking| booking.seq)
}

fn ordered(order: &NewReservation) -> Map<String, Value> {
    let mut input = input(order.id, order.user_id, order.concert_id, order.performance_id, &order.seats);
    if order.pay_now {
        input.insert("pay_now".to_owned(), json!(true));
    }
    input
}

fn input(
    reservation: Uuid,
    user: Uuid,
    concert: Uuid,
    performance: Uuid,
    seats: &[i32],
) -> Map<String, Value> {
    let fields = [
        ("reservation_id", json!(reservation)),
        ("user_id", json!(user)),
        ("concert_id", json!(concert)),
        ("performance_id", json!(performance)),
        ("seats", json!(seats)),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
