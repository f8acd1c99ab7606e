//! Events of sagas published again: read from their history, with the ids, numbers and content of the first time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use tokio::time::Instant;
use uuid::Uuid;

use super::announce;
use crate::bus::events::{EventBatch, EventMessage, event_batches};
use crate::bus::publish::PublishError;
use crate::bus::{Bus, publish};
use crate::ids;
use crate::saga::{Saga, WorkflowRegistry};
use crate::store::{self, replay};

/// Most sagas of one page.
const PAGE: usize = 200;
const CLOCKS_APART: TimeDelta = TimeDelta::hours(1);

/// Which events are published again; all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only what happened at this moment or later.
    pub since: Option<DateTime<Utc>>,
    /// Only what happened before this moment.
    pub until: Option<DateTime<Utc>>,
    pub workflow: Option<String>,
    pub saga: Option<Uuid>,
    /// What the sagas are about.
    pub subject: Option<Uuid>,
}

/// The events of some sagas.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In the order in which they happened to each subject.
    pub events: Vec<EventMessage>,
    /// How many sagas were looked at.
    pub sagas: usize,
    /// Sagas whose definition is not known here: their events cannot be made again.
    pub left_out: usize,
    /// The last one's beginning: how far along the ids this is.
    pub reached: Option<DateTime<Utc>>,
}

/// Reads the events again, page by page: first sagas that began before the wanted time, or are named; then sagas along
/// their ids.
#[derive(Debug)]
pub struct Replay<'a> {
    pool: &'a PgPool,
    registry: &'a WorkflowRegistry,
    wanted: &'a Wanted,
    named: Vec<Uuid>,
    sagas_from: Option<Uuid>,
    below: Uuid,
}

impl<'a> Replay<'a> {
    /// Begins; finds the sagas that do not lie along the way.
    pub async fn begin(
        pool: &'a PgPool,
        registry: &'a WorkflowRegistry,
        wanted: &'a Wanted,
    ) -> store::Result<Self> {
        let workflow = wanted.workflow.as_deref();
        let first = wanted.since.map_or(Uuid::nil(), ids::first_of);
        let is_named = wanted.saga.is_some() || wanted.subject.is_some();
        let mut named = match (wanted.subject, wanted.saga, wanted.since) {
            (Some(subject), _, _) => replay::sagas_about(pool, subject, workflow).await?,
            (None, Some(saga), _) => vec![saga],
            (None, None, Some(since)) => replay::older_sagas(pool, first, since, workflow).await?,
            (None, None, None) => Vec::new(),
        };
        named.reverse();
        Ok(Self {
            pool,
            registry,
            wanted,
            named,
            sagas_from: (!is_named).then_some(first),
            below: wanted.ids_end(),
        })
    }

    /// The next page; none: that was all.
    pub async fn next(&mut self) -> store::Result<Option<Page>> {
        if !self.named.is_empty() {
            let page = self.named.split_off(self.named.len().saturating_sub(PAGE));
            let mut sagas = store::sagas::get_many(self.pool, &page).await?;
            sagas.sort_by_key(|saga| saga.id);
            return self.of_sagas(sagas).await.map(Some);
        }
        if let Some(from) = self.sagas_from {
            let workflow = self.wanted.workflow.as_deref();
            let sagas = replay::sagas(self.pool, from, self.below, workflow, PAGE as i64).await?;
            self.sagas_from = after(sagas.len(), sagas.last().map(|saga| saga.id));
            return self.of_sagas(sagas).await.map(Some);
        }
        Ok(None)
    }

    async fn of_sagas(&self, mut sagas: Vec<Saga>) -> store::Result<Page> {
        sagas.retain(|saga| self.wanted.workflow.as_ref().is_none_or(|workflow| *workflow == saga.workflow));
        let (looked_at, reached) = (sagas.len(), sagas.last().map(|saga| saga.created_at));
        store::definitions::learn(self.pool, self.registry, &sagas).await?;
        sagas.retain(|saga| self.registry.get(&saga.workflow, saga.version).is_some());
        let ids: Vec<Uuid> = sagas.iter().map(|saga| saga.id).collect();
        let history = store::history::of_sagas(self.pool, &ids).await?;
        let mut events = announce::of_history(self.registry, &sagas, &history);
        events.retain(|event| self.wanted.includes(event));
        Ok(Page { events, sagas: looked_at, left_out: looked_at - sagas.len(), reached })
    }
}

impl Wanted {
    /// Whether the event happened in the wanted time.
    pub fn includes(&self, event: &EventMessage) -> bool {
        self.since.is_none_or(|since| event.at >= since) && self.until.is_none_or(|until| event.at < until)
    }

    /// Above every id that was made in the wanted time.
    pub fn ids_end(&self) -> Uuid {
        self.until.map_or(Uuid::max(), |until| ids::first_of(until + CLOCKS_APART))
    }
}

/// Where the page after this one begins; a page that is not full was the last.
fn after(found: usize, last: Option<Uuid>) -> Option<Uuid> {
    last.filter(|_| found == PAGE).map(|id| Uuid::from_u128(id.as_u128().saturating_add(1)))
}

/// Publishes no faster than it should, so that consumers and sales are not drowned.
#[derive(Debug)]
pub struct Pace {
    per_second: u32,
    free_at: Instant,
}

impl Pace {
    /// At most so many events per second, at least one.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: per_second.max(1), free_at: Instant::now() }
    }

    /// Publishes events in their order and waits until JetStream has all of them; calls `progress` with the size of each part.
    pub async fn publish(
        &mut self,
        bus: &Bus,
        events: &[EventMessage],
        mut progress: impl FnMut(usize),
    ) -> Result<(), PublishError> {
        // Ten parts per second, or one event at a time if that is less.
        for part in events.chunks((self.per_second / 10).max(1) as usize) {
            tokio::time::sleep_until(self.free_at).await;
            self.free_at = Instant::now() + Duration::from_secs(part.len() as u64) / self.per_second;
            publish::publish(bus, &event_batches(part), EventBatch::outgoing).await?;
            progress(part.len());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_page_has_a_next_id() {
        assert_eq!(after(PAGE, Some(Uuid::from_u128(7))), Some(Uuid::from_u128(8)));
        assert_eq!(after(PAGE - 1, Some(Uuid::from_u128(7))), None);
        assert_eq!(after(0, None), None);
    }
}
