//! Attempts deliveries that are due: a few of each endpoint at a time, so that a slow endpoint delays no other.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sqlx::PgPool;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{UrlRules, attempt};
use crate::clock::Clock;
use crate::store;
use crate::store::webhook_deliveries::{self, DueDelivery};
use crate::store::webhooks;

/// Most attempts under way to one endpoint.
const ATTEMPTS_PER_ENDPOINT: i64 = 4;
/// Most attempts under way.
const ATTEMPTS_MAX: usize = 64;
/// How often deliveries are looked for that have become due.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long the list of endpoints is believed.
const ENDPOINTS_AGE: Duration = Duration::from_secs(1);
/// How long a claimed delivery is no other process's: longer than an attempt and the writing of its end take.
const CLAIM_TTL: Duration = Duration::from_secs(60);

/// What attempts need.
pub(super) struct Sender<'a> {
    pub pool: &'a PgPool,
    pub clock: &'a Clock,
    pub client: &'a reqwest::Client,
    pub rules: UrlRules,
}

impl Sender<'_> {
    /// Sends until `stop` is cancelled. Attempts under way are dropped then; they are made again when their claims are over.
    pub(super) async fn run(&self, stop: &CancellationToken) {
        let mut under_way = FuturesUnordered::new();
        let mut of_endpoint: HashMap<Uuid, i64> = HashMap::new();
        let mut endpoints = Endpoints::default();
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(endpoint) = under_way.next() => {
                    if let Some(count) = of_endpoint.get_mut(&endpoint) {
                        *count -= 1;
                    }
                }
                _ = looks.tick() => {}
            }
            let room = ATTEMPTS_MAX - under_way.len();
            let due = match store::bounded(self.claim(&mut endpoints, &of_endpoint, room)).await {
                Ok(due) => due,
                Err(error) => {
                    tracing::warn!(%error, "deliveries that are due could not be read");
                    Vec::new()
                }
            };
            for due in due {
                *of_endpoint.entry(due.endpoint_id).or_default() += 1;
                under_way.push(self.attempt(due));
            }
        }
    }

    async fn attempt(&self, due: DueDelivery) -> Uuid {
        attempt::run(self.pool, self.client, self.rules, &due, self.clock.now()).await;
        due.endpoint_id
    }

    async fn claim(
        &self,
        endpoints: &mut Endpoints,
        of_endpoint: &HashMap<Uuid, i64>,
        room: usize,
    ) -> store::Result<Vec<DueDelivery>> {
        let known = endpoints.known(self.pool).await?;
        // Each endpoint with a free slot has its share of what is left in all.
        let share = (room / known.len().max(1)).max(1) as i64;
        let free = known.iter().filter_map(|endpoint| {
            let taken = of_endpoint.get(endpoint).copied().unwrap_or(0);
            let slots = (ATTEMPTS_PER_ENDPOINT - taken).min(share);
            (slots > 0).then_some((*endpoint, slots))
        });
        let (ids, slots): (Vec<Uuid>, Vec<i64>) = free.take(room).unzip();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        webhook_deliveries::claim(self.pool, &ids, &slots, CLAIM_TTL).await
    }
}

/// The endpoints that are not disabled, from a moment ago. They take turns at the beginning, so that with many of them each has
/// its share.
#[derive(Default)]
struct Endpoints {
    ids: Vec<Uuid>,
    read: Option<Instant>,
}

impl Endpoints {
    async fn known(&mut self, pool: &PgPool) -> store::Result<&[Uuid]> {
        if self.read.is_none_or(|read| read.elapsed() >= ENDPOINTS_AGE) {
            self.ids = webhooks::subscriptions(pool).await?.into_iter().map(|one| one.id).collect();
            self.read = Some(Instant::now());
        }
        if !self.ids.is_empty() {
            self.ids.rotate_left(1);
        }
        Ok(&self.ids)
    }
}
