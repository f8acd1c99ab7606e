//! Alarms that the broker rings: hold expiry and long pauses. The sweeper stands behind them.

use std::time::Duration;

use async_nats::jetstream::Message;
use chrono::{DateTime, Utc};
use fail::fail_point;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Batch, Consequences, Engine, Verdict, Work};
use crate::bus::deliveries::{self, InHand};
use crate::bus::{Deliveries, messages, subjects, topology};
use crate::saga::Event;
use crate::store;

/// Takes alarms until the service stops.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    let config = topology::work_consumer("timers", subjects::TIMERS_DUE);
    let mut incoming = Deliveries::of(&engine.bus, subjects::TIMERS, config);
    while !stop.is_cancelled() {
        let batch = incoming.next(&stop).await;
        let mut readable = Vec::with_capacity(batch.len());
        for message in batch {
            match messages::read_alarm(&message) {
                Some(saga) => readable.push((message, saga)),
                None => engine.park(subjects::TIMERS, &message, "the subject names no saga").await,
            }
        }
        let in_hand = InHand::of(&engine.bus, readable.iter().map(|(message, _)| message));
        engine.work_off(readable, &Ringing(&engine), &in_hand, &mut incoming, &stop).await;
    }
}

/// An alarm and its saga.
type Item = (Message, Uuid);

/// Lets sagas go on by their alarms.
struct Ringing<'a>(&'a Engine);

impl Work<Item> for Ringing<'_> {
    fn message<'a>(&self, (message, _): &'a Item) -> &'a Message {
        message
    }

    async fn attempt(&self, items: &[Item]) -> store::Result<()> {
        take(self.0, items).await
    }

    async fn give_up(&self, (message, _): &Item, error: sqlx::Error) {
        self.0.park(subjects::TIMERS, message, &error.to_string()).await;
    }
}

async fn take(engine: &Engine, items: &[Item]) -> store::Result<()> {
    let (early, consequences) = store::bounded(write(engine, items)).await?;
    fail_point!("timers::committed");
    if let Err(error) = engine.follow(consequences).await {
        tracing::warn!(%error, "what follows from alarms is done when they come again");
        return Ok(());
    }
    fail_point!("timers::published");
    for (message, _) in items {
        match early.iter().find(|(candidate, _)| std::ptr::eq(*candidate, message)) {
            Some((_, rest)) => deliveries::again_after(message, *rest).await,
            None => deliveries::acknowledge(message).await,
        }
    }
    Ok(())
}

/// One transaction for all of them; those that came early are returned with the time that is left.
async fn write<'a>(
    engine: &Engine,
    items: &'a [Item],
) -> store::Result<(Vec<(&'a Message, Duration)>, Consequences)> {
    let mut tx = engine.steps.begin().await?;
    let ids: Vec<Uuid> = items.iter().map(|(_, saga)| *saga).collect();
    let mut batch = Batch::lock(&mut tx, &ids).await?;
    let mut early = Vec::new();
    for (message, saga) in items {
        let verdict = batch.apply(&engine.catalogue, *saga, &Event::Alarm);
        if verdict == Verdict::Stale
            && let Some(rest) = rest_of(&batch, *saga)
        {
            early.push((message, rest));
        }
    }
    let consequences = batch.write(&mut tx, &engine.catalogue).await?;
    tx.commit().await?;
    Ok((early, consequences))
}

/// How long a waiting saga's alarm came too early by the database's clock: the broker's clock may differ.
fn rest_of(batch: &Batch, saga: Uuid) -> Option<Duration> {
    let saga = batch.saga(saga).filter(|saga| saga.status == crate::saga::Status::Waiting)?;
    until(saga.due_at?, batch.now)
}

fn until(due: DateTime<Utc>, now: DateTime<Utc>) -> Option<Duration> {
    (due - now).to_std().ok().filter(|rest| !rest.is_zero())
}
