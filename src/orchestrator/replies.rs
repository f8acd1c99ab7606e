//! Answers of workers elsewhere, and signals that come as messages: decided in batches, acknowledged last.

use async_nats::jetstream::Message;
use fail::fail_point;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Batch, Engine, Halves, Verdict};
use crate::bus::headers::Malformed;
use crate::bus::{Deliveries, deliveries, messages, subjects, topology};
use crate::saga::{Event, Poisoned, Reply};
use crate::store;

/// Takes what comes on the stream of replies and signals until the service stops.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    let config = topology::work_consumer("orchestrator", subjects::ALL_SAGAS);
    let mut incoming = Deliveries::of(&engine.bus, subjects::SAGAS, config);
    while !stop.is_cancelled() {
        let (batch, _turn) = incoming.next_in_turn(&engine.turns, &stop).await;
        let mut readable = Vec::with_capacity(batch.len());
        for message in batch {
            match read(&message) {
                Ok((saga, event)) => readable.push((message, saga, event)),
                Err(error) => engine.park(subjects::SAGAS, &message, &error.to_string()).await,
            }
        }
        if let Err(error) = take_all(&engine, Halves::of(readable)).await {
            tracing::warn!(%error, "replies could not be taken; they come again");
            incoming.rest();
            engine.wait_for_database(&stop).await;
        }
    }
}

fn read(message: &Message) -> Result<(Uuid, Event), Malformed> {
    if message.subject.as_str() == subjects::SIGNALS {
        let (saga, signal) = messages::read_signal(message)?;
        return Ok((saga, Event::Signal(signal)));
    }
    let (saga, reply) = messages::read_reply(message)?;
    Ok((saga, Event::Reply(reply)))
}

async fn take_all(engine: &Engine, mut halves: Halves<(Message, Uuid, Event)>) -> store::Result<()> {
    while let Some(items) = halves.next() {
        let result = take(engine, items).await;
        if let Some(((message, saga, event), error)) = halves.record(result).await? {
            let error = error.to_string();
            engine.park(subjects::SAGAS, message, &error).await;
            // The same answer would come again, and fail again.
            if let Event::Reply(Reply { step, direction, visit, .. }) = event.clone() {
                engine.poisoned(*saga, Poisoned { step, direction, visit, error }).await;
            }
        }
    }
    Ok(())
}

async fn take(engine: &Engine, items: &[(Message, Uuid, Event)]) -> store::Result<()> {
    let mut tx = engine.steps.begin().await?;
    let ids: Vec<Uuid> = items.iter().map(|(_, saga, _)| *saga).collect();
    let mut batch = Batch::lock(&mut tx, &ids).await?;
    let mut illegal = Vec::new();
    for (message, saga, event) in items {
        match batch.apply(&engine.catalogue, *saga, event) {
            Verdict::Moved => {}
            Verdict::Stale => {
                metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::SAGAS).increment(1);
                batch.note_stale(*saga);
            }
            Verdict::Illegal(why) => illegal.push((message, why)),
        }
    }
    let consequences = batch.write(&mut tx, &engine.catalogue).await?;
    tx.commit().await?;
    fail_point!("replies::committed");
    for (message, why) in &illegal {
        engine.park(subjects::SAGAS, message, why).await;
    }
    if let Err(error) = engine.follow(consequences).await {
        tracing::warn!(%error, "what follows from replies is done when they come again");
        return Ok(());
    }
    fail_point!("replies::published");
    for (message, ..) in items {
        deliveries::acknowledge(message).await;
    }
    Ok(())
}
