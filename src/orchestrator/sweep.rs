//! The safety net under everything that is carried by messages: sagas whose alarm has come are looked at
//! once a second and at every start, whatever became of their messages.

use chrono::TimeDelta;
use fail::fail_point;

use super::{Batch, Consequences, Engine, Verdict};
use crate::saga::Event;
use crate::store;

/// Most sagas of one transaction.
const LIMIT: i64 = 256;
/// Most transactions of each lane in one pass: the rest waits for the next second.
const ROUNDS: usize = 40;
/// How long the broker's alarm of a wait goes first: when thousands ring in one second, both would be after the same rows.
const RING: TimeDelta = TimeDelta::milliseconds(1_500);

/// Looks at every saga that is due, a bounded number per pass, and returns how many it moved. What is left by a long stop
/// is worked off by two lanes: while one waits for Postgres the other decides.
pub(super) async fn run_once(engine: &Engine) -> store::Result<usize> {
    let first = round(engine).await?;
    if first < LIMIT as usize {
        return Ok(first);
    }
    let (one, other) = tokio::try_join!(lane(engine), lane(engine))?;
    Ok(first + one + other)
}

async fn lane(engine: &Engine) -> store::Result<usize> {
    let mut moved = 0;
    for _ in 0..ROUNDS {
        let found = round(engine).await?;
        moved += found;
        if found < LIMIT as usize {
            break;
        }
    }
    Ok(moved)
}

async fn round(engine: &Engine) -> store::Result<usize> {
    let (moved, consequences) = store::bounded(write(engine)).await?;
    if moved > 0 {
        fail_point!("sweep::committed");
        metrics::counter!("boxoffice_swept_sagas_total").increment(moved as u64);
        engine.follow_swept(consequences, moved == LIMIT as usize).await;
    }
    Ok(moved)
}

/// One transaction for those that are due now.
async fn write(engine: &Engine) -> store::Result<(usize, Consequences)> {
    let mut tx = engine.pool.begin().await?;
    let mut batch = Batch::lock_due(&mut tx, RING, LIMIT).await?;
    let ids = batch.ids();
    if ids.is_empty() {
        return Ok((0, Consequences::default()));
    }
    for id in &ids {
        if let Verdict::Illegal(why) = batch.apply(&engine.catalogue, *id, &Event::Alarm) {
            tracing::error!(saga = %id, %why, "a saga that is due cannot be moved");
        }
    }
    let consequences = batch.write(&mut tx, &engine.catalogue).await?;
    tx.commit().await?;
    Ok((ids.len(), consequences))
}
