//! Keeps this process's clock in step with the database's.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store;

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(10);

/// Compares again and again until `stop`.
pub(super) async fn follow(pool: PgPool, clock: Clock, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Err(error) = store::bounded(store::correct_clock(&pool, &clock)).await {
            tracing::debug!(%error, "the clocks could not be compared");
        }
    }
}
