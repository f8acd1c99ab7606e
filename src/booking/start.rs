//! Orders become reservations and sagas: all that wait at a moment in one transaction.

use chrono::{DateTime, Utc};
use fail::fail_point;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::DeskError;
use crate::orchestrator::{self, Engine, Halves};
use crate::saga::{NewSaga, Saga};
use crate::store;
use crate::store::changes::Changes;
use crate::store::reservations::{NewReservation, Reservation};

/// Most orders of one transaction.
const BATCH: usize = 256;

/// An order, and who waits for its commit.
#[derive(Debug)]
pub(super) struct Request {
    order: NewReservation,
    committed: oneshot::Sender<bool>,
}

/// Hands an order to the batcher and returns once it is committed: whether it was new.
pub(super) async fn submit(orders: &mpsc::Sender<Request>, order: NewReservation) -> Result<bool, DeskError> {
    let (committed, done) = oneshot::channel();
    orders.try_send(Request { order, committed }).map_err(|_| DeskError::Unavailable)?;
    done.await.map_err(|_| DeskError::Unavailable)
}

/// Takes orders in batches until the service stops.
pub(super) async fn run(engine: Engine, mut orders: mpsc::Receiver<Request>, stop: CancellationToken) {
    let mut batch = Vec::with_capacity(BATCH);
    while stop.run_until_cancelled(orders.recv_many(&mut batch, BATCH)).await.unwrap_or(0) > 0 {
        let requests = std::mem::replace(&mut batch, Vec::with_capacity(BATCH));
        let (items, mut committed): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .enumerate()
            .map(|(at, request)| ((at, request.order), Some(request.committed)))
            .unzip();
        let mut halves = Halves::of(items);
        while let Some(items) = halves.next() {
            let result = start(&engine, items).await;
            if result.is_ok() {
                items.iter().for_each(|(at, _)| tell(&mut committed[*at], true));
            }
            match halves.record(result).await {
                Ok(None) => {}
                Ok(Some(((at, _), error))) if is_there_already(&error) => {
                    tell(&mut committed[*at], false);
                }
                Ok(Some(((_, order), error))) => {
                    tracing::error!(id = %order.id, %error, "an order could not be taken")
                }
                Err(error) => {
                    tracing::warn!(%error, "orders could not be taken");
                    break;
                }
            }
        }
    }
}

fn tell(caller: &mut Option<oneshot::Sender<bool>>, new: bool) {
    // A caller that has gone away does not want to know.
    let _told = caller.take().map(|caller| caller.send(new));
}

/// The order was taken before: the caller gets what became of it.
fn is_there_already(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some("reservations_pkey")
}

async fn start(engine: &Engine, orders: &[(usize, NewReservation)]) -> store::Result<()> {
    let mut conn = engine.steps.acquire().await?;
    let now = store::now(&mut *conn).await?;
    let new: Vec<&NewReservation> = orders.iter().map(|(_, order)| order).collect();
    let mut changes = Changes::default();
    store::reservations::insert(&mut changes, &new, now);
    let sagas = new.into_iter().map(|order| NewSaga {
        id: order.id,
        subject_id: order.id,
        owner_id: Some(order.user_id),
        input: ordered(order),
        trace: order.trace,
        seq: 0,
    });
    let consequences = orchestrator::start(&mut changes, &engine.catalogue, "booking", sagas.collect(), now)?;
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
        owner_id: Some(*user_id),
        input,
        trace: booking.first().map(|booking| booking.trace.unwrap_or(booking.id)),
        seq: last_number(booking.first(), now),
    };
    let mut changes = Changes::default();
    let consequences = orchestrator::start(&mut changes, &engine.catalogue, "cancellation", vec![new], now)?;
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
