//! Keeps this process's clock in step with the database's.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::store;

/// How often the clocks are compared.
const EVERY: Duration = Duration::from_secs(10);

/// Compares once; half of the round trip is taken as the way of the answer.
pub(super) async fn follow_once(pool: &PgPool, clock: &Clock) -> store::Result<()> {
    let mut conn = pool.acquire().await?;
    let before = clock.uncorrected();
    let database = store::now(&mut *conn).await?;
    let after = clock.uncorrected();
    clock.follow(database, before + (after - before) / 2);
    Ok(())
}

/// Compares again and again until `stop`.
pub(super) async fn follow(pool: PgPool, clock: Clock, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if let Err(error) = store::bounded(follow_once(&pool, &clock)).await {
            tracing::debug!(%error, "the clocks could not be compared");
        }
    }
}
