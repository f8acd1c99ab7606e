//! Sagas whose start comes as a message. The sender chooses the id, so that a start that comes twice starts one saga.

use async_nats::jetstream::Message;
use saga_protocol::spans::{self, SpanContext};
use tokio_util::sync::CancellationToken;

use super::client_sagas::{NewClientSaga, StartError};
use super::{Engine, Work};
use crate::bus::deliveries::{self, InHand};
use crate::bus::{Deliveries, messages, subjects};
use crate::store;
use crate::trace_context;

type Item = (Message, NewClientSaga);

/// Starts what these messages ask for. A start that can never be is kept for an operator.
pub(super) async fn take(
    engine: &Engine,
    messages: Vec<Message>,
    incoming: &mut Deliveries,
    stop: &CancellationToken,
) {
    let mut readable = Vec::with_capacity(messages.len());
    for message in messages {
        match read(&message) {
            Ok(new) => readable.push((message, new)),
            Err(error) => engine.park(subjects::SAGAS, &message, &error).await,
        }
    }
    let in_hand = InHand::of(&engine.bus, readable.iter().map(|(message, _)| message));
    engine.work_off(readable, &Starting(engine), &in_hand, incoming, stop).await;
}

fn read(message: &Message) -> Result<NewClientSaga, String> {
    let (id, body, trace) = messages::read_start(message).map_err(|error| error.to_string())?;
    if id.is_nil() {
        return Err("the nil id names no saga".to_owned());
    }
    let messages::StartBody { workflow, subject_id, input, attributes, .. } = body;
    Ok(NewClientSaga { id, workflow, subject_id, input, attributes, trace })
}

struct Starting<'a>(&'a Engine);

impl Work<Item> for Starting<'_> {
    fn message<'a>(&self, (message, _): &'a Item) -> &'a Message {
        message
    }

    /// One after the other. What was started before one of them failed is found when it comes again.
    async fn attempt(&self, items: &[Item]) -> store::Result<()> {
        for (message, new) in items {
            let cause = spans::begin().and_then(|_| SpanContext::of_message(message));
            match trace_context::within(cause, self.0.start_saga(new.clone())).await {
                Ok(_) => deliveries::acknowledge(message).await,
                Err(StartError::Database(error)) => return Err(error),
                // Another process may be able to read the definition.
                Err(StartError::Undefined(..)) => self.put_off(&(message.clone(), new.clone())).await,
                Err(refused) => self.0.park(subjects::SAGAS, message, &refused.to_string()).await,
            }
        }
        Ok(())
    }

    async fn give_up(&self, (message, _): &Item, error: sqlx::Error) {
        self.0.park(subjects::SAGAS, message, &error.to_string()).await;
    }

    /// It stands in no row that it could be sent from again.
    async fn put_off(&self, (message, _): &Item) {
        let pause = deliveries::pause_after(deliveries::count(message));
        deliveries::again_after(message, pause).await;
    }
}
