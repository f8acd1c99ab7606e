//! Messages that nobody could act on: looked at, released to try again, or dropped.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::AskError;
use crate::store::operations::{self, ParkedRow};

/// Which parked messages are meant.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, clap::Args)]
#[into_params(parameter_in = Query)]
pub struct ParkedFilter {
    /// Only messages about this saga
    #[arg(long = "saga", value_name = "ID")]
    pub saga_id: Option<Uuid>,
}

/// A message that nobody could act on.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ParkedMessage {
    pub id: i64,
    pub parked_at: DateTime<Utc>,
    pub stream: String,
    pub subject: String,
    /// Why nobody could act on it.
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
