//! Answers of workers elsewhere, and signals that come as messages: decided in batches, acknowledged last.

use async_nats::jetstream::Message;
use fail::fail_point;
use saga_protocol::spans::{self, SpanContext};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Batch, Effects, Engine, Verdict, Work};
use crate::bus::deliveries::{self, InHand};
use crate::bus::headers::Malformed;
use crate::bus::{Deliveries, messages, subjects, topology};
use crate::saga::{Event, Poisoned, Reply, Signal};
use crate::store;

/// Takes what comes on the stream of replies and signals until the service stops.
pub(super) async fn run(engine: Engine, stop: CancellationToken) {
    let config = topology::work_consumer("orchestrator", subjects::ALL_SAGAS);
    let mut incoming = Deliveries::of(&engine.bus, subjects::SAGAS, config);
    while !stop.is_cancelled() {
        let (batch, _permit) = incoming.next_in_turn(engine.limit.take(), &stop).await;
        let mut readable = Vec::with_capacity(batch.len());
        let (starts, batch): (Vec<Message>, Vec<Message>) =
            batch.into_iter().partition(|message| message.subject.as_str() == subjects::STARTS);
        if !starts.is_empty() {
            super::starts::take(&engine, starts, &mut incoming, &stop).await;
        }
        for message in batch {
            match read(&message) {
                // The answer of a worker to `boxoffice worker test`.
                Ok((_, Event::Reply(reply))) if reply.step == messages::WORKER_TEST_STEP => {
                    deliveries::acknowledge(&message).await;
                }
                Ok((saga, event)) => readable.push((message, saga, event)),
                Err(error) => engine.park(subjects::SAGAS, &message, &error.to_string()).await,
            }
        }
        let in_hand = InHand::of(&engine.bus, readable.iter().map(|(message, ..)| message));
        engine.work_off(readable, &Taking(&engine), &in_hand, &mut incoming, &stop).await;
    }
}

fn read(message: &Message) -> Result<(Uuid, Event), Malformed> {
    if message.subject.as_str() == subjects::SIGNALS {
        let (saga, name, payload) = messages::read_signal(message)?;
        return Ok((saga, Event::Signal(Signal { name, payload })));
    }
    let (saga, reply) = messages::read_reply(message)?;
    Ok((saga, Event::Reply(reply)))
}

/// A message, the saga it is about, and what happened to that saga.
type Item = (Message, Uuid, Event);

/// Lets sagas go on by their replies and signals.
struct Taking<'a>(&'a Engine);

impl Work<Item> for Taking<'_> {
    fn name(&self) -> &'static str {
        "replies"
    }

    fn message<'a>(&self, (message, ..): &'a Item) -> &'a Message {
        message
    }

    async fn attempt(&self, items: &[Item]) -> store::Result<()> {
        take(self.0, items).await
    }

    async fn give_up(&self, (message, saga, event): &Item, error: sqlx::Error) {
        let error = error.to_string();
        self.0.park(subjects::SAGAS, message, &error).await;
        // The same answer would come again, and fail again.
        if let Event::Reply(Reply { step, direction, visit, .. }) = event.clone() {
            self.0.poisoned(*saga, Poisoned { step, direction, visit, error }).await;
        }
    }

    async fn put_off(&self, (message, _, event): &Item) {
        match event {
            // A signal stands in no row that it could be sent from again.
            Event::Signal(_) => {
                let pause = deliveries::pause_after(deliveries::count(message));
                deliveries::again_after(message, pause).await;
            }
            _ => deliveries::put_off(message).await,
        }
    }
}

async fn take(engine: &Engine, items: &[Item]) -> store::Result<()> {
    let Decided { illegal, later, effects } = store::bounded(write(engine, items)).await?;
    fail_point!("replies::committed");
    for message in &later {
        deliveries::again_after(message, deliveries::pause_after(deliveries::count(message))).await;
    }
    for (message, why) in &illegal {
        engine.park(subjects::SAGAS, message, why).await;
    }
    if let Err(error) = engine.dispatch(effects).await {
        tracing::warn!(%error, "what follows from replies is done when they come again");
        return Ok(());
    }
    fail_point!("replies::published");
    for (message, ..) in items {
        if !later.iter().any(|other| std::ptr::eq(*other, message)) {
            deliveries::acknowledge(message).await;
        }
    }
    Ok(())
}

/// What was decided about a batch.
struct Decided<'a> {
    /// What cannot be, with the reason.
    illegal: Vec<(&'a Message, String)>,
    /// Signals to sagas whose definition cannot be read now. They stand in no row that they could be sent from again.
    later: Vec<&'a Message>,
    effects: Effects,
}

/// One transaction for all of them.
async fn write<'a>(engine: &Engine, items: &'a [Item]) -> store::Result<Decided<'a>> {
    let begun = spans::begin();
    let mut tx = engine.steps.begin().await?;
    let ids: Vec<Uuid> = items.iter().map(|(_, saga, _)| *saga).collect();
    let mut batch = Batch::lock(engine, &mut tx, &ids).await?;
    batch.begun_at(begun);
    let (mut illegal, mut later) = (Vec::new(), Vec::new());
    for (message, saga, event) in items {
        if let Some(why) = answered_here(engine, &batch, *saga, event) {
            illegal.push((message, why));
            continue;
        }
        batch.caused_by(begun.and_then(|_| SpanContext::of_message(message)));
        match batch.apply(&engine.registry, *saga, event) {
            Verdict::Moved => {}
            Verdict::Stale => {
                metrics::counter!("boxoffice_stale_messages_total", "stream" => subjects::SAGAS).increment(1);
                let step = if let Event::Reply(reply) = event { Some(reply.step.as_str()) } else { None };
                batch.note_stale(*saga, step);
            }
            Verdict::Illegal(why) => illegal.push((message, why)),
            Verdict::Undefined(_) if matches!(event, Event::Signal(_)) => later.push(message),
            // The sweeper sends the command again, and its worker gives the same answer.
            Verdict::Undefined(_) => {}
        }
    }
    let effects = batch.write(&mut tx, engine).await?;
    tx.commit().await?;
    Ok(Decided { illegal, later, effects })
}

/// Why no message may answer this command: its service is in this database, and answers in the transaction of its effect.
fn answered_here(engine: &Engine, batch: &Batch, saga: Uuid, event: &Event) -> Option<String> {
    let (Event::Reply(reply), Some(saga)) = (event, batch.saga(saga)) else {
        return None;
    };
    let definition = engine.registry.get(&saga.workflow, saga.version)?;
    let service = subjects::service_of(definition.command_of(&reply.step, reply.direction)?);
    let step = &reply.step;
    engine.participants.named(service).is_some().then(|| {
        format!(
            "a message has answered for {step}, which the service {service} does in the engine's own database"
        )
    })
}
