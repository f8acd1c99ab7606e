//! The task of webhooks: takes the lease where there are endpoints, and queues and sends while it holds the lease.

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgPool;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::sender::Sender;
use super::{UrlRules, addresses, intake};
use crate::bus::Bus;
use crate::clock::Clock;
use crate::ids;
use crate::store::{self, webhook_deliveries, webhooks};

/// How long the lease lasts unless it is kept: longer than unacknowledged messages wait to be delivered again.
const LEASE_TTL: Duration = Duration::from_secs(20);
/// How often the holder keeps the lease, and other processes look whether it is free.
const LEASE_INTERVAL: Duration = Duration::from_secs(5);
/// Most deliveries that wait for one endpoint. An endpoint with more is disabled.
const WAITING_MAX: i64 = 100_000;
/// How long the log keeps deliveries that have ended.
const LOG_TTL: TimeDelta = TimeDelta::days(7);
/// Most deliveries that one statement deletes.
const PURGE_BATCH: i64 = 1_000;

/// Serves the endpoints of this database from one process at a time.
pub struct Webhooks {
    pool: PgPool,
    bus: Bus,
    clock: Clock,
    client: reqwest::Client,
    rules: UrlRules,
}

/// Deletes from the log what ended longer ago than it is kept.
pub async fn purge(pool: &PgPool) -> store::Result<()> {
    let before = store::now(pool).await? - LOG_TTL;
    while webhook_deliveries::purge(pool, before, PURGE_BATCH).await? == PURGE_BATCH as u64 {}
    Ok(())
}

impl Webhooks {
    pub fn new(pool: PgPool, bus: Bus, clock: Clock, rules: UrlRules) -> reqwest::Result<Self> {
        Ok(Self { pool, bus, clock, client: addresses::client(rules)?, rules })
    }

    /// Runs until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let holder = ids::new();
        loop {
            match store::bounded(self.takes_lease(holder)).await {
                Ok(true) => self.serve(holder, &stop).await,
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "the lease of webhooks could not be looked at"),
            }
            if stop.run_until_cancelled(sleep(LEASE_INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// Takes or keeps the lease, if there is an endpoint to serve.
    async fn takes_lease(&self, holder: Uuid) -> store::Result<bool> {
        if webhooks::subscriptions(&self.pool).await?.is_empty() {
            return Ok(false);
        }
        webhooks::hold_lease(&self.pool, holder, LEASE_TTL).await
    }

    /// Queues and sends until the lease is lost, no endpoint is left, or the process stops.
    async fn serve(&self, holder: Uuid, stop: &CancellationToken) {
        let term = stop.child_token();
        let sender = Sender { pool: &self.pool, clock: &self.clock, client: &self.client, rules: self.rules };
        tokio::join!(
            self.keep_lease(holder, &term),
            intake::run(&self.pool, &self.bus, &term),
            sender.run(&term)
        );
        if let Err(error) = store::bounded(webhooks::release_lease(&self.pool, holder)).await {
            tracing::debug!(%error, "the lease of webhooks could not be given back; it runs out");
        }
    }

    /// Cancels `term` when the lease is not kept any more.
    async fn keep_lease(&self, holder: Uuid, term: &CancellationToken) {
        let _ended = term.clone().drop_guard();
        while term.run_until_cancelled(sleep(LEASE_INTERVAL)).await.is_some() {
            let kept = store::bounded(async {
                self.disable_overfull().await?;
                self.takes_lease(holder).await
            });
            match kept.await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    tracing::warn!(%error, "the lease of webhooks could not be kept; another process may take it");
                    return;
                }
            }
        }
    }

    async fn disable_overfull(&self) -> store::Result<()> {
        for endpoint in webhook_deliveries::overfull(&self.pool, WAITING_MAX).await? {
            let reason = format!("more than {WAITING_MAX} deliveries wait for it");
            if webhooks::disable(&self.pool, endpoint, &reason).await? {
                tracing::warn!(%endpoint, reason, "a webhook endpoint was disabled");
            }
        }
        Ok(())
    }
}
