//! Messages that cannot be handled: kept whole for an operator, and off the stream, so that they do not block others.

use async_nats::jetstream::Message;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Batch, Engine, Verdict};
use crate::bus::deliveries;
use crate::saga::{Event, Poisoned};
use crate::store;
use crate::store::operations::Parked;

impl Engine {
    /// Keeps a message that cannot be handled, whole, and takes it off its stream. If even that fails it comes again.
    pub async fn park(&self, stream: &str, message: &Message, error: &str) {
        match self.keep(stream, message, error).await {
            Ok(()) => deliveries::acknowledge(message).await,
            Err(error) => tracing::warn!(%error, "a message could not be parked; it comes again"),
        }
    }

    /// Keeps a message for an operator. The caller takes it off its stream.
    pub async fn keep(&self, stream: &str, message: &async_nats::Message, error: &str) -> store::Result<()> {
        tracing::error!(stream, subject = %message.subject, error, "a message is parked");
        metrics::counter!("boxoffice_parked_messages_total", "stream" => stream.to_owned()).increment(1);
        let (headers, error, subject) = (headers(message), keepable(error), keepable(&message.subject));
        let parked =
            Parked { stream, subject: &subject, headers: &headers, payload: &message.payload, error: &error };
        store::bounded(store::operations::park(&self.pool, &parked)).await
    }

    /// The message about this command was parked because it fails whenever it is tried. If the saga still asks for the
    /// command it is stuck from now on: to send it again would only fail again.
    pub async fn poisoned(&self, id: Uuid, poisoned: Poisoned) {
        if let Err(error) = store::bounded(self.get_stuck(id, poisoned)).await {
            tracing::warn!(saga = %id, %error, "a poisoned saga could not be stopped; its command comes again");
        }
    }

    async fn get_stuck(&self, id: Uuid, poisoned: Poisoned) -> store::Result<()> {
        let mut tx = self.pool.begin().await?;
        let mut batch = Batch::lock(self, &mut tx, &[id]).await?;
        if batch.apply(&self.registry, id, &Event::Poisoned(poisoned)) == Verdict::Moved {
            let effects = batch.write(&mut tx, self).await?;
            tx.commit().await?;
            self.dispatch_detached(effects);
        }
        Ok(())
    }
}

/// Postgres keeps no text with the character U+0000 in it.
fn keepable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn headers(message: &async_nats::Message) -> Value {
    let all = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let texts = all.map(|(name, values)| {
        let joined: Vec<&str> = values.iter().map(async_nats::HeaderValue::as_str).collect();
        (keepable(name.as_ref()), Value::String(keepable(&joined.join(","))))
    });
    Value::Object(texts.collect::<Map<String, Value>>())
}
