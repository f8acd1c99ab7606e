//! What admins do with endpoints of webhooks. Each act is written down.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{PgConnection, PgExecutor, PgPool};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Secret;
use crate::store;
use crate::store::operations::{self, ActRow};
use crate::store::webhook_deliveries::{self, DeliveryRow};
use crate::store::webhooks::{self as rows, EndpointRow};

/// Most endpoints.
pub const ENDPOINTS_MAX: i64 = 100;
/// Most filters of one endpoint.
pub const FILTERS_MAX: usize = 50;
/// The longest filter, in characters.
const FILTER_CHARS_MAX: usize = 100;
/// How long the secret before a new one signs too, in seconds, unless a request says otherwise.
pub const OVERLAP_SECONDS: u32 = 86_400;
pub const OVERLAP_SECONDS_MAX: u32 = 604_800;
/// How a delivery may stand.
pub const STATUSES: [&str; 3] = ["pending", "delivered", "failed"];

/// The first filter that is none, by its place in the list, and what is wrong with it.
pub fn filters_problem(filters: &[String]) -> Option<(usize, String)> {
    let is_bad = |filter: &&String| {
        let name = filter.strip_suffix('*').unwrap_or(filter);
        let is_plain = name.chars().all(|sign| sign.is_ascii_alphanumeric() || "._-".contains(sign));
        name.is_empty() || !is_plain || filter.len() > FILTER_CHARS_MAX
    };
    let at = filters.iter().position(|filter| is_bad(&filter))?;
    let rule = "must be the name of an event, or the beginning of names with * behind it, of";
    Some((at, format!("{rule} {FILTER_CHARS_MAX} characters or fewer")))
}

/// An endpoint of webhooks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookEndpoint {
    pub id: Uuid,
    pub url: String,
    /// Names of events; one that ends with `*` stands for all that begin so. Empty: all events.
    pub events: Vec<String>,
    pub description: String,
    /// `enabled`, `failing` since the last attempt failed, or `disabled`.
    pub status: &'static str,
    /// The first failed attempt since the last success.
    pub failing_since: Option<DateTime<Utc>>,
    pub disabled_at: Option<DateTime<Utc>>,
    pub disabled_reason: Option<String>,
    /// Until when the secret before the present one signs too.
    pub previous_secret_until: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
}

impl From<EndpointRow> for WebhookEndpoint {
    fn from(row: EndpointRow) -> Self {
        let status = match (row.disabled_at, row.failing_since) {
            (Some(_), _) => "disabled",
            (None, Some(_)) => "failing",
            (None, None) => "enabled",
        };
        Self {
            id: row.id,
            url: row.url,
            events: row.events,
            description: row.description,
            status,
            failing_since: row.failing_since,
            disabled_at: row.disabled_at,
            disabled_reason: row.disabled_reason,
            previous_secret_until: row.previous_until,
            created_at: row.created_at,
        }
    }
}

/// An endpoint with its secret, which is shown when it is made.
#[derive(Clone, Serialize, ToSchema)]
pub struct WebhookEndpointSecret {
    #[serde(flatten)]
    pub endpoint: WebhookEndpoint,
    /// The key of the signatures, `whsec_` and base64.
    pub secret: String,
}

/// A delivery as the log shows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WebhookDelivery {
    pub id: Uuid,
    /// The event's id. The header `webhook-id` is made of it.
    pub event_id: String,
    pub event: String,
    pub subject_id: Uuid,
    pub sequence: i64,
    /// `pending`, `delivered` or `failed`.
    pub status: String,
    pub attempts: i32,
    /// When it is attempted next; null once it has ended.
    pub next_attempt_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    /// The status that the endpoint answered with at the last attempt.
    pub response_status: Option<i16>,
    /// What was wrong at the last attempt.
    pub error: Option<String>,
}

impl From<DeliveryRow> for WebhookDelivery {
    fn from(row: DeliveryRow) -> Self {
        let is_pending = row.ended_at.is_none();
        Self {
            id: row.id,
            event_id: row.event_id,
            event: row.event,
            subject_id: row.subject_id,
            sequence: row.sequence,
            status: row.status,
            attempts: row.attempts,
            next_attempt_at: is_pending.then_some(row.next_attempt_at),
            created_at: row.created_at,
            ended_at: row.ended_at,
            response_status: row.response_status,
            error: row.error,
        }
    }
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("there is no such webhook endpoint or delivery")]
    Unknown,
    #[error("there are {ENDPOINTS_MAX} webhook endpoints, and no more are allowed; delete one first")]
    TooMany,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What an endpoint is to be.
#[derive(Clone, Copy, Debug)]
pub struct NewEndpoint<'a> {
    pub id: Uuid,
    pub url: &'a str,
    pub events: &'a [String],
    pub description: &'a str,
}

/// Adds an endpoint. It gets the events from now on. The same id again answers with the same endpoint and secret.
pub async fn add(
    pool: &PgPool,
    new: NewEndpoint<'_>,
    actor: &str,
) -> Result<WebhookEndpointSecret, EndpointError> {
    let mut tx = pool.begin().await?;
    let count = rows::lock_and_count(&mut tx).await?;
    if rows::get(&mut *tx, new.id).await?.is_none() {
        if count >= ENDPOINTS_MAX {
            return Err(EndpointError::TooMany);
        }
        let secret = Secret::generate();
        rows::insert(&mut *tx, new.id, new.url, new.events, new.description, &secret.0).await?;
        let detail = json!({ "url": new.url, "events": new.events });
        record(&mut *tx, new.id, "webhook.add", actor, ("", "enabled"), Some(&detail)).await?;
    }
    let endpoint = rows::get(&mut *tx, new.id).await?.ok_or(EndpointError::Unknown)?.into();
    let secret = Secret(rows::secret(&mut *tx, new.id).await?.ok_or(EndpointError::Unknown)?).text();
    tx.commit().await?;
    Ok(WebhookEndpointSecret { endpoint, secret })
}

/// Endpoints, newest first, before the endpoint `before`.
pub async fn list(pool: &PgPool, before: Option<Uuid>, limit: i64) -> store::Result<Vec<WebhookEndpoint>> {
    Ok(rows::list(pool, before, limit).await?.into_iter().map(WebhookEndpoint::from).collect())
}

/// One endpoint.
pub async fn show(db: impl PgExecutor<'_>, id: Uuid) -> Result<WebhookEndpoint, EndpointError> {
    Ok(rows::get(db, id).await?.ok_or(EndpointError::Unknown)?.into())
}

/// Deletes an endpoint with its deliveries.
pub async fn delete(pool: &PgPool, id: Uuid, actor: &str) -> Result<(), EndpointError> {
    let mut tx = pool.begin().await?;
    if !rows::delete(&mut *tx, id).await? {
        return Err(EndpointError::Unknown);
    }
    record(&mut *tx, id, "webhook.delete", actor, ("", "deleted"), None).await?;
    Ok(tx.commit().await?)
}

/// Gives an endpoint another secret. Both sign for `overlap`, so that the endpoint can be changed meanwhile.
pub async fn rotate(
    conn: &mut PgConnection,
    id: Uuid,
    overlap: Duration,
    actor: &str,
) -> Result<WebhookEndpointSecret, EndpointError> {
    let secret = Secret::generate();
    if !rows::rotate(&mut *conn, id, &secret.0, overlap).await? {
        return Err(EndpointError::Unknown);
    }
    let detail = json!({ "overlap_seconds": overlap.as_secs() });
    record(&mut *conn, id, "webhook.rotate", actor, ("", ""), Some(&detail)).await?;
    let endpoint = show(conn, id).await?;
    Ok(WebhookEndpointSecret { endpoint, secret: secret.text() })
}

/// Lets a disabled endpoint have deliveries again. One that is not disabled stays as it is.
pub async fn enable(pool: &PgPool, id: Uuid, actor: &str) -> Result<WebhookEndpoint, EndpointError> {
    let mut tx = pool.begin().await?;
    if rows::enable(&mut *tx, id).await? {
        record(&mut *tx, id, "webhook.enable", actor, ("disabled", "enabled"), None).await?;
    }
    let endpoint = show(&mut *tx, id).await?;
    tx.commit().await?;
    Ok(endpoint)
}

/// The log of an endpoint, newest first, before the delivery `before`.
pub async fn log(
    pool: &PgPool,
    id: Uuid,
    status: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<WebhookDelivery>, EndpointError> {
    show(pool, id).await?;
    let found = webhook_deliveries::list(pool, id, status, before, limit).await?;
    Ok(found.into_iter().map(WebhookDelivery::from).collect())
}

/// Attempts a delivery anew, whatever came of it before.
pub async fn replay(
    pool: &PgPool,
    id: Uuid,
    delivery: Uuid,
    actor: &str,
) -> Result<WebhookDelivery, EndpointError> {
    let mut tx = pool.begin().await?;
    let replayed = webhook_deliveries::replay(&mut *tx, id, delivery).await?.ok_or(EndpointError::Unknown)?;
    let detail = json!({ "delivery": delivery, "event": replayed.event_id });
    record(&mut *tx, id, "webhook.replay", actor, ("", "pending"), Some(&detail)).await?;
    tx.commit().await?;
    Ok(replayed.into())
}

async fn record(
    db: impl PgExecutor<'_>,
    id: Uuid,
    act: &str,
    actor: &str,
    (from, to): (&str, &str),
    detail: Option<&Value>,
) -> store::Result<()> {
    let target = format!("webhook {id}");
    let row = ActRow { actor, act, saga_id: None, target: Some(&target), reason: "", from, to, detail };
    operations::record_act(db, &row).await
}
