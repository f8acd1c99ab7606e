//! Operators' acts: through the same lock and the same `apply` as everything else, written down with their reason.

use async_nats::jetstream::Message;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Batch, Engine, Verdict};
use crate::saga::{self, Act, Event, Saga, Status};
use crate::store;
use crate::store::operations::{ActRow, Parked};

/// Why an act was not done.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("there is no such saga")]
    Unknown,
    #[error("the saga is {status}; this act is not allowed now")]
    Illegal { status: Status, allowed: Vec<&'static str> },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Engine {
    /// Does an operator's act and returns the saga as it is then.
    pub async fn act(&self, id: Uuid, act: Act, actor: &str, reason: &str) -> Result<Saga, ActError> {
        let mut tx = self.pool.begin().await?;
        let mut batch = Batch::lock(&mut tx, &[id]).await?;
        let before = batch.saga(id).cloned().ok_or(ActError::Unknown)?;
        if batch.apply(&self.catalogue, id, &Event::Operator(act)) != Verdict::Moved {
            let definition = self.catalogue.get(&before.workflow, before.version);
            let allowed =
                definition.map(|definition| saga::allowed_acts(definition, &before)).unwrap_or_default();
            let allowed = allowed.into_iter().map(Act::name).collect();
            return Err(ActError::Illegal { status: before.status, allowed });
        }
        let after = batch.saga(id).cloned().ok_or(ActError::Unknown)?;
        let consequences = batch.write(&mut tx, &self.catalogue).await?;
        let row = ActRow {
            actor,
            act: act.name(),
            saga_id: id,
            reason,
            from_status: before.status.name(),
            to_status: after.status.name(),
        };
        store::operations::record_act(&mut *tx, &row).await?;
        tx.commit().await?;
        self.follow_later(consequences);
        Ok(after)
    }

    /// Keeps a message that nobody can act on, whole, and takes it off its stream. If even that fails it comes again.
    pub async fn park(&self, stream: &str, message: &Message, error: &str) {
        tracing::error!(stream, subject = %message.subject, error, "a message is parked");
        metrics::counter!("boxoffice_parked_messages_total", "stream" => stream.to_owned()).increment(1);
        let headers = headers(message);
        let parked =
            Parked { stream, subject: &message.subject, headers: &headers, payload: &message.payload, error };
        match store::operations::park(&self.pool, &parked).await {
            Ok(()) => crate::bus::deliveries::acknowledge(message).await,
            Err(error) => tracing::warn!(%error, "a message could not be parked; it comes again"),
        }
    }
}

fn headers(message: &Message) -> Value {
    let all = message.headers.iter().flat_map(async_nats::HeaderMap::iter);
    let texts = all.map(|(name, values)| {
        let joined: Vec<&str> = values.iter().map(async_nats::HeaderValue::as_str).collect();
        (name.to_string(), Value::String(joined.join(",")))
    });
    Value::Object(texts.collect::<Map<String, Value>>())
}
