//! Whether NATS refuses an event of a saga for good.

use std::time::Duration;

use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use crate::bus::Bus;
use crate::bus::events::{EventBatch, event_batches};
use crate::bus::publish::publish_each;
use crate::orchestrator::{Replay, Wanted};
use crate::saga::WorkflowRegistry;
use crate::store;

/// How long NATS may take to answer; an answer to a request has to go out within five seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why NATS will never store one of the events of this saga, if that is so. No process keeps the reason, so the events are
/// published once more. That changes nothing: the sweeper does it too, and an event that comes again has the same id.
pub(super) async fn refusal(
    pool: &PgPool,
    registry: &WorkflowRegistry,
    bus: &Bus,
    saga: Uuid,
) -> store::Result<Option<String>> {
    let wanted = Wanted { saga: Some(saga), ..Wanted::default() };
    let mut replay = Replay::begin(pool, registry, &wanted).await?;
    let mut events = Vec::new();
    while let Some(page) = replay.next().await? {
        events.extend(page.events);
    }
    let batches = event_batches(&events);
    let published = timeout(ANSWER_TIMEOUT, publish_each(bus, &batches, EventBatch::outgoing)).await;
    let left = published.ok().and_then(Result::err).unwrap_or_default();
    Ok(left.refused.into_iter().next().map(|(_, reason)| reason))
}
