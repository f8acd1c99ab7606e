//! Starts sagas for orders: one transaction for all orders that wait at that moment. The hold of a saga makes its reservation.

use fail::fail_point;
use tokio_util::sync::CancellationToken;

use crate::cancellation::fields;
use crate::config::Control;
use crate::orchestrator::{self, BatchQueue, Engine};
use crate::saga::NewSaga;
use crate::store;
use crate::store::batch_tx::{BatchTx, with_lock_fallback};
use crate::store::claims::{Claims, is_taken};
use crate::store::idempotency::Asked;
use crate::store::reservations::NewReservation;
use crate::store::write_batch::WriteBatch;

/// An order, and the idempotency key that is claimed with it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub order: NewReservation,
    pub key: Option<Asked>,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Started {
    New,
    /// An order with this id was taken before.
    Before,
    /// Another request has its idempotency key: nothing was begun.
    KeyTaken,
}

/// Starts what is ordered until the service stops.
pub(super) async fn run(engine: Engine, orders: BatchQueue<Request, Started>, stop: CancellationToken) {
    let limit = engine.limit.clone();
    orders.work(engine, limit, stop, |engine, orders| Box::pin(take(engine, orders))).await;
}

async fn take(engine: &Engine, requests: &[Request]) -> store::Result<Vec<Started>> {
    let mut claims = Claims::of(requests.iter().map(|request| request.key.as_ref()));
    loop {
        let begun = (0..requests.len()).filter(|at| !claims.is_taken(*at));
        let orders: Vec<&NewReservation> = begun.map(|at| &requests[at].order).collect();
        let start = |control| start(engine, &orders, &claims, control);
        let started = match with_lock_fallback(engine.control, start).await {
            Ok(()) => Started::New,
            // It is unknown which order of several failed, so the batch is retried in halves.
            Err(error) if orders.len() == 1 && is_there_already(&error) => Started::Before,
            Err(error) if is_taken(&error) && claims.look(&engine.steps).await? => continue,
            Err(error) => return Err(error),
        };
        let of = |at| if claims.is_taken(at) { Started::KeyTaken } else { started };
        return Ok((0..requests.len()).map(of).collect());
    }
}

/// The order was taken before: the caller gets what became of it.
fn is_there_already(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some("sagas_pkey")
}

async fn start(
    engine: &Engine,
    orders: &[&NewReservation],
    claims: &Claims<'_>,
    control: Control,
) -> store::Result<()> {
    if orders.is_empty() {
        return Ok(());
    }
    let mut attempt = BatchTx::begin(&engine.steps, control).await?;
    let mut changes = WriteBatch::default();
    let now = attempt.time_to_decide(&engine.clock, &mut changes).await?;
    let sagas = orders.iter().map(|order| NewSaga {
        id: order.id,
        subject_id: order.id,
        input: fields(&order.input()),
        trace: order.trace,
        seq: 0,
    });
    let effects = orchestrator::start(&mut changes, engine, "booking", sagas.collect(), now)?;
    claims.add_to(&mut changes, |_| true);
    attempt.write(changes).await?;
    fail_point!("start::committed");
    engine.dispatch_detached(effects);
    Ok(())
}
