//! Publishes the events of acts that have no saga, such as the change of a date. They stay in their table, to be published again.

use sqlx::PgPool;
use uuid::Uuid;

use super::{BookingError, BookingService};
use crate::bus::events::{EventBatch, EventMessage, event_batches};
use crate::bus::publish::publish;
use crate::orchestrator::{Page, Wanted};
use crate::store::direct_events::{self, DirectEvent};
use crate::{ids, store};

/// Most events of one pass.
const LIMIT: i64 = 500;
/// Most events of one page of a replay.
const REPLAY_PAGE: usize = 200;

impl BookingService {
    /// Announces the events that are not announced yet, a bounded number at once. Two instances may announce the same one: its id
    /// stays.
    pub async fn announce_direct_events(&self) -> Result<usize, BookingError> {
        let rows = direct_events::unannounced(&self.pool, LIMIT).await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let events: Vec<EventMessage> = rows.iter().map(event_of).collect();
        publish(&self.engine.bus, &event_batches(&events), EventBatch::outgoing)
            .await
            .map_err(|_| BookingError::Unavailable)?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let now = store::now(&self.pool).await?;
        direct_events::announced(&self.pool, &ids, now).await?;
        Ok(rows.len())
    }
}

fn event_of(row: &DirectEvent) -> EventMessage {
    let about = (row.subject_id, row.sequence);
    let id = format!("{}:{}:{}", row.subject_id, row.sequence, row.name);
    EventMessage::new(id, &row.name, row.at, about, row.subject_id, row.data.clone())
}

/// Reads these events to publish them again, page by page along their ids.
#[derive(Debug)]
pub struct DirectReplay<'a> {
    pool: &'a PgPool,
    wanted: &'a Wanted,
    from: Option<Uuid>,
}

impl<'a> DirectReplay<'a> {
    /// Begins. Where single sagas or those of one workflow are wanted, none of these events is.
    pub fn begin(pool: &'a PgPool, wanted: &'a Wanted) -> Self {
        let all = wanted.saga.is_none() && wanted.workflow.is_none();
        let first =
            wanted.since.map_or(Uuid::nil(), |since| ids::first_of(since - super::charges::REPLAY_MARGIN));
        Self { pool, wanted, from: all.then_some(first) }
    }

    /// The next page; `None` after the last.
    pub async fn next(&mut self) -> store::Result<Option<Page>> {
        let Some(from) = self.from else { return Ok(None) };
        let limit = REPLAY_PAGE as i64;
        let (below, subject) = (self.wanted.ids_end(), self.wanted.subject);
        let rows = direct_events::page(self.pool, from, below, subject, limit).await?;
        let last = rows.last().filter(|_| rows.len() == REPLAY_PAGE);
        self.from = last.map(|row| Uuid::from_u128(row.id.as_u128().saturating_add(1)));
        let reached = rows.last().map(|row| row.at);
        let events = rows.iter().map(event_of).filter(|event| self.wanted.includes(event)).collect();
        Ok(Some(Page { events, reached, ..Page::default() }))
    }
}
