//! What is over goes by age: ended sagas and their history. Any number of instances may do it at once; each step is a
//! short transaction, and only one of them has the turn.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use sqlx::PgPool;

use crate::store::{self, retention};

/// Most sagas of one statement, and most statements of one pass: the rest waits for the next.
const BATCH: i64 = 1_000;
const ROUNDS: usize = 200;
/// For so many days beyond today history has parts of its own.
const AHEAD: u64 = 7;
/// A day's history goes so much later than its sagas: those that began in its last minutes have ended by then.
const SLACK: TimeDelta = TimeDelta::days(1);

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Ended sagas that are gone.
    pub sagas: usize,
    /// Days of history that are gone.
    pub days: usize,
}

/// Makes the parts of the coming days, and lets go of what ended longer than `keep` ago, a bounded amount.
pub(super) async fn run_once(pool: &PgPool, keep: TimeDelta) -> store::Result<Purged> {
    let now = store::now(pool).await?;
    make_days(pool, now.date_naive()).await?;
    let (sagas, all) = delete_ended(pool, now - keep).await?;
    // As long as there are sagas to be deleted, their history would only be moved about.
    let days = if all { drop_days(pool, now - keep - SLACK).await? } else { 0 };
    if sagas > 0 || days > 0 {
        tracing::info!(sagas, days, "what is over was dropped by age");
    }
    metrics::counter!("boxoffice_forgotten_sagas_total").increment(sagas as u64);
    Ok(Purged { sagas, days })
}

async fn make_days(pool: &PgPool, today: NaiveDate) -> store::Result<()> {
    let there = retention::days(pool).await?;
    let wanted = today.iter_days().take(AHEAD as usize + 1);
    for day in wanted.filter(|day| !there.contains(day)) {
        if let Err(error) = make_day(pool, day).await {
            tracing::warn!(%day, %error, "no part was made for this day's history; it goes to the default part");
        }
    }
    Ok(())
}

async fn make_day(pool: &PgPool, day: NaiveDate) -> store::Result<()> {
    let mut tx = pool.begin().await?;
    if !retention::take_turn(&mut tx).await? || retention::days(&mut *tx).await?.contains(&day) {
        return Ok(());
    }
    if !retention::add_day(&mut tx, day).await? {
        tracing::warn!(%day, "the default part of the history has rows of this day and keeps it");
    }
    tx.commit().await
}

/// How many were deleted, and whether these are all.
async fn delete_ended(pool: &PgPool, before: DateTime<Utc>) -> store::Result<(usize, bool)> {
    let mut all = 0;
    for _ in 0..ROUNDS {
        let mut tx = pool.begin().await?;
        if !retention::take_turn(&mut tx).await? {
            return Ok((all, false));
        }
        let deleted = retention::delete_ended(&mut tx, before, BATCH).await?;
        tx.commit().await?;
        all += deleted;
        if deleted < BATCH as usize {
            return Ok((all, true));
        }
    }
    Ok((all, false))
}

async fn drop_days(pool: &PgPool, before: DateTime<Utc>) -> store::Result<usize> {
    let mut dropped = 0;
    let days = retention::days(pool).await?;
    for day in days.into_iter().filter(|day| end_of(*day) <= before) {
        let mut tx = pool.begin().await?;
        // Another instance may have been faster.
        if !retention::take_turn(&mut tx).await? || !retention::days(&mut *tx).await?.contains(&day) {
            break;
        }
        retention::drop_day(&mut tx, day).await?;
        tx.commit().await?;
        dropped += 1;
    }
    Ok(dropped)
}

fn end_of(day: NaiveDate) -> DateTime<Utc> {
    (day + Days::new(1)).and_time(NaiveTime::MIN).and_utc()
}
