//! Publishes the events of one reservation again.

use uuid::Uuid;

use super::{BookingError, DirectReplay};
use crate::bus::events::EventMessage;
use crate::orchestrator::{Engine, Pace, Replay, Wanted};
use crate::store::operations::{self, ActRow};

/// Events of one reservation per second: it has a few.
const RATE: u32 = 200;

/// Publishes all events of a reservation again and writes down who asked for it. Answers how many there are.
pub async fn resend(engine: &Engine, id: Uuid, actor: &str, reason: &str) -> Result<usize, BookingError> {
    let wanted = Wanted { subject: Some(id), ..Wanted::default() };
    let mut events: Vec<EventMessage> = Vec::new();
    let mut replay = Replay::begin(&engine.pool, &engine.registry, &wanted).await?;
    while let Some(page) = replay.next().await? {
        events.extend(page.events);
    }
    let mut direct = DirectReplay::begin(&engine.pool, &wanted);
    while let Some(page) = direct.next().await? {
        events.extend(page.events);
    }
    events.sort_by_key(|event| event.sequence);
    let mut pace = Pace::new(RATE);
    pace.publish(&engine.bus, &events, |_| {}).await.map_err(|_| BookingError::Unavailable)?;
    let target = format!("reservation {id}");
    let detail = serde_json::json!({ "events": events.len() });
    let act = ActRow {
        actor,
        act: "support.resend_events",
        saga_id: None,
        target: Some(&target),
        reason,
        from: "",
        to: "published",
        detail: Some(&detail),
    };
    operations::record_act(&engine.pool, &act).await?;
    Ok(events.len())
}
