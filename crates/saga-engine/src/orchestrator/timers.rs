//! Alarms that the broker rings: hold expiry and long pauses. The sweeper stands behind them.

use std::sync::Arc;

use async_nats::jetstream::Message;
use fail::fail_point;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Batch, Effects, Engine, Verdict, Work};
use crate::bus::deliveries::{BATCH, Carrier, InHand};
use crate::bus::{Deliveries, messages, subjects, topology};
use crate::saga::{Event, Status};
use crate::store;

/// Takes alarms until the service stops.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    let config = topology::work_consumer("timers", subjects::TIMERS_DUE);
    let mut incoming = Deliveries::of(&engine.bus, subjects::TIMERS, config);
    while !stop.is_cancelled() {
        let batch = incoming.next(&stop).await;
        let in_hand = InHand::of(&engine.bus, batch.iter());
        let mut items: Vec<Item> = Vec::with_capacity(batch.len());
        for message in batch {
            match messages::read_alarm(&message) {
                Ok(sagas) if !sagas.is_empty() => items.extend(Carrier::share(message, sagas)),
                Ok(_) => engine.park(subjects::TIMERS, &message, "the alarm names no saga").await,
                Err(error) => engine.park(subjects::TIMERS, &message, &error.to_string()).await,
            }
        }
        while !items.is_empty() && !stop.is_cancelled() {
            let later = items.split_off(items.len().min(BATCH));
            let now = std::mem::replace(&mut items, later);
            engine.work_off(now, &Ringing(&engine), &in_hand, &mut incoming, &stop).await;
        }
    }
}

/// A saga whose alarm rang, and the message that said so.
type Item = (Arc<Carrier>, Uuid);

/// Lets sagas go on by their alarms.
struct Ringing<'a>(&'a Engine);

impl Work<Item> for Ringing<'_> {
    fn name(&self) -> &'static str {
        "timers"
    }

    fn message<'a>(&self, (carrier, _): &'a Item) -> &'a Message {
        carrier.message()
    }

    async fn attempt(&self, items: &[Item]) -> store::Result<()> {
        take(self.0, items).await
    }

    async fn give_up(&self, (carrier, saga): &Item, error: sqlx::Error) {
        let message = messages::rung_alarm(*saga).into_message();
        match self.0.keep(subjects::TIMERS, &message, &error.to_string()).await {
            Ok(()) => carrier.settle().await,
            Err(error) => tracing::warn!(%error, "an alarm could not be parked; it comes again"),
        }
    }

    /// The sweeper brings the saga again.
    async fn put_off(&self, (carrier, _): &Item) {
        carrier.settle().await;
    }
}

async fn take(engine: &Engine, items: &[Item]) -> store::Result<()> {
    let effects = store::bounded(write(engine, items)).await?;
    fail_point!("timers::committed");
    if let Err(error) = engine.dispatch(effects).await {
        tracing::warn!(%error, "what follows from alarms is done when they come again");
        return Ok(());
    }
    fail_point!("timers::published");
    for (carrier, _) in items {
        carrier.settle().await;
    }
    Ok(())
}

/// One transaction for all of them. Sagas that have ended, or are not due for a while, are left alone. For one whose alarm came
/// somewhat early a new one is set: the broker's clock may differ from the database's, which decides.
async fn write(engine: &Engine, items: &[Item]) -> store::Result<Effects> {
    let mut tx = engine.steps.begin().await?;
    let ids: Vec<Uuid> = items.iter().map(|(_, saga)| *saga).collect();
    let mut batch = Batch::lock_rung(engine, &mut tx, &ids).await?;
    let mut early = Vec::new();
    for id in batch.ids() {
        let is_stale = batch.apply(&engine.registry, id, &Event::TimerFired) == Verdict::Stale;
        let waiting = batch.saga(id).filter(|saga| is_stale && saga.status == Status::Waiting);
        if let Some(due) = waiting.and_then(|saga| saga.due_at) {
            early.push((id, due));
        }
    }
    let mut effects = batch.write(&mut tx, engine).await?;
    tx.commit().await?;
    effects.arm(early);
    Ok(effects)
}
