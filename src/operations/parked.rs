//! Messages that no process could act on: looked at, released to try again, or dropped. Both acts are written down.

use std::str::FromStr;

use async_nats::HeaderMap;
use async_nats::header::{HeaderName, HeaderValue};
use async_nats::jetstream::message::PublishMessage;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AskError;
use crate::bus::headers::SAGA;
use crate::bus::publish::{self, Outgoing, PublishError};
use crate::orchestrator;
use crate::store::operations::{self, ActRow, ParkedRow};

/// Which parked messages are meant.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, clap::Args)]
#[into_params(parameter_in = Query)]
pub struct ParkedFilter {
    /// Only messages about this saga
    #[arg(long = "saga", value_name = "ID")]
    pub saga_id: Option<Uuid>,
}

/// A message that no process could act on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ParkedMessage {
    pub id: i64,
    pub parked_at: DateTime<Utc>,
    pub stream: String,
    pub subject: String,
    /// Why no process could act on it.
    pub error: String,
    #[schema(value_type = Object)]
    pub headers: Value,
    /// The payload, if it is text; else null.
    pub payload: Option<String>,
    /// The payload in base64, if it is no text; else null.
    pub payload_base64: Option<String>,
}

impl From<ParkedRow> for ParkedMessage {
    fn from(row: ParkedRow) -> Self {
        let (payload, payload_base64) = match String::from_utf8(row.payload) {
            Ok(text) => (Some(text), None),
            Err(bytes) => (None, Some(STANDARD.encode(bytes.as_bytes()))),
        };
        Self {
            id: row.id,
            parked_at: row.parked_at,
            stream: row.stream,
            subject: row.subject,
            error: row.error,
            headers: row.headers,
            payload,
            payload_base64,
        }
    }
}

/// Parked messages, newest first, before the message `before`.
pub async fn list(
    pool: &PgPool,
    filter: &ParkedFilter,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<ParkedMessage>, AskError> {
    let found = operations::parked(pool, filter.saga_id, before, limit).await?;
    Ok(found.into_iter().map(ParkedMessage::from).collect())
}

/// One parked message.
pub async fn show(pool: &PgPool, id: i64) -> Result<ParkedMessage, AskError> {
    Ok(operations::parked_message(pool, id).await?.ok_or(AskError::Unknown)?.into())
}

/// Why a parked message is still where it was.
#[derive(Debug, thiserror::Error)]
pub enum ParkedError {
    #[error("there is no such parked message")]
    Unknown,
    #[error("JetStream did not take the message: {0}; it is still parked")]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What becomes of a parked message that is taken out of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// Published again, where it came from.
    Released,
    /// Thrown away.
    Dropped,
}

impl Fate {
    /// Its name in answers and in the list of acts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Dropped => "dropped",
        }
    }
}

/// Releases a parked message, or drops it, and takes it out of the list. If the process dies during a release, the
/// message is sent and stays in the list. Its receiver is fenced against a second delivery.
pub async fn take_out(
    engine: &orchestrator::Engine,
    id: i64,
    fate: Fate,
    actor: &str,
    reason: &str,
) -> Result<(), ParkedError> {
    let row = operations::parked_message(&engine.pool, id).await?.ok_or(ParkedError::Unknown)?;
    let act = match fate {
        Fate::Released => {
            publish::publish(&engine.bus, std::slice::from_ref(&row), as_it_came).await?;
            "release"
        }
        Fate::Dropped => "drop",
    };
    let mut tx = engine.pool.begin().await?;
    if !operations::unpark(&mut *tx, row.id).await? {
        return Err(ParkedError::Unknown);
    }
    let saga = row.headers.get(SAGA).and_then(Value::as_str).and_then(|id| id.parse().ok());
    let target = format!("parked message {} on {}", row.id, row.subject);
    let detail = json!({ "error": row.error, "headers": row.headers });
    let written = ActRow {
        actor,
        act,
        saga_id: saga,
        target: Some(&target),
        reason,
        from: "parked",
        to: fate.name(),
        detail: Some(&detail),
    };
    operations::record_act(&mut *tx, &written).await?;
    Ok(tx.commit().await?)
}

fn as_it_came(row: &ParkedRow) -> Outgoing {
    let message = PublishMessage::build().headers(headers(&row.headers)).payload(row.payload.clone().into());
    Outgoing { subject: row.subject.clone(), message }
}

/// The message's own headers. Those of the broker had their effect; a message id would make it drop the repeat.
fn headers(saved: &Value) -> HeaderMap {
    let saved = saved.as_object().into_iter().flatten();
    let own = saved.filter(|(name, _)| !name.starts_with("Nats-"));
    own.filter_map(|(name, value)| {
        let name = HeaderName::from_str(name).ok()?;
        Some((name, HeaderValue::from_str(value.as_str()?).ok()?))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parked_message_drops_broker_headers() {
        let kept = headers(&json!({ "Saga": "7", "Step": "hold", "Nats-Msg-Id": "7:hold:do:1:1" }));
        assert_eq!(kept.get("Saga").map(HeaderValue::as_str), Some("7"));
        assert_eq!(kept.len(), 2);
    }
}
