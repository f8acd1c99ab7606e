//! The safety net under everything that is carried by messages: sagas whose alarm has come are looked at
//! once a second and at every start, whatever became of their messages.

use chrono::{DateTime, TimeDelta, Utc};
use fail::fail_point;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Batch, Effects, Engine, Verdict};
use crate::saga::Event;
use crate::store;
use crate::store::due::Due;
use crate::store::flights::{self, Overdue};

/// Most sagas of one transaction.
const LIMIT: i64 = 256;
/// Most flights of one pass.
const FLIGHTS: i64 = 64;
/// Most transactions of each lane in one pass: the rest waits for the next second.
const ROUNDS: usize = 40;
/// How long the broker's alarm of a wait goes first: when thousands ring in one second, both would be after the same rows.
const RING: TimeDelta = TimeDelta::milliseconds(1_500);

/// Looks at every saga that is due, a bounded number per pass, and returns how many it moved. What is left by a long stop
/// is worked off by two lanes: while one waits for Postgres the other decides.
pub(super) async fn run_once(engine: &Engine) -> store::Result<usize> {
    Box::pin(look_at_flights(engine)).await?;
    let first = round(engine).await?;
    if first < LIMIT as usize {
        return Ok(first);
    }
    let (one, other) = tokio::try_join!(lane(engine), lane(engine))?;
    Ok(first + one + other)
}

/// Looks at what is left of flights that were not looked at for a while: a saga that still runs gets an alarm of its own, and
/// the events of one that has ended are published again. A flight whose rows cannot be written does not hold up the others.
async fn look_at_flights(engine: &Engine) -> store::Result<()> {
    for flight in store::bounded(flights::look(&engine.pool, FLIGHTS)).await? {
        match store::bounded(land(engine, &flight)).await {
            Ok(ended) if ended.is_empty() => {}
            Ok(ended) => Box::pin(engine.dispatch_swept(Effects::recall(ended), false)).await,
            Err(error) if is_about_rows(&error) => {
                tracing::error!(flight = flight.id, %error, "a batch of sagas cannot be looked at; it is tried again");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Answers the sagas that have ended and are still in the flight.
async fn land(engine: &Engine, flight: &Overdue) -> store::Result<Vec<Uuid>> {
    flights::let_go(&engine.pool, flight).await?;
    let ended = flights::kept(&engine.pool, flight).await?;
    let gone: Vec<Uuid> = flight.sagas.iter().filter(|id| !ended.contains(id)).copied().collect();
    if !gone.is_empty() {
        flights::leave(&engine.pool, &[(flight.id, gone)].into()).await?;
    }
    Ok(ended)
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
    // On the heap: the sweeper is moved on the stack where it is started.
    let swept = match Box::pin(store::bounded(write(engine))).await {
        Err(error) if is_about_rows(&error) => {
            engine.writes().await?;
            tracing::warn!(%error, "a batch of due sagas failed; each is tried by itself");
            Box::pin(store::bounded(write_each(engine))).await?
        }
        written => written?,
    };
    let Swept { found, effects, apart } = swept;
    for (id, why) in &apart {
        tracing::error!(saga = %id, %why, "a saga that is due cannot be moved; it is tried again after a pause");
    }
    metrics::counter!("boxoffice_sagas_set_apart_total").increment(apart.len() as u64);
    if found > 0 {
        fail_point!("sweep::committed");
        metrics::counter!("boxoffice_swept_sagas_total").increment(found as u64);
    }
    for effects in effects {
        Box::pin(engine.dispatch_swept(effects, found == LIMIT as usize)).await;
    }
    Ok(found)
}

/// Whether one of several sagas may be the reason of an error: it comes again for the same saga, or the server has refused a
/// statement for a reason other than the end of a wait.
fn is_about_rows(error: &sqlx::Error) -> bool {
    let is_refusal = error.as_database_error().is_some() && !store::ended_a_wait(error);
    is_refusal || !store::is_unavailable(error)
}

/// What became of the sagas that were due.
#[derive(Default)]
struct Swept {
    found: usize,
    effects: Vec<Effects>,
    /// Those that cannot be moved, each with the reason.
    apart: Vec<(Uuid, String)>,
}

/// One transaction for those that are due now. Those that cannot be read or moved are put off.
async fn write(engine: &Engine) -> store::Result<Swept> {
    let mut tx = engine.pool.begin().await?;
    let (due, now) = lock_due(engine, &mut tx).await?;
    let mut swept = Swept { found: due.found(), apart: due.unreadable, ..Swept::default() };
    if swept.found == 0 {
        return Ok(swept);
    }
    let (effects, unmovable) = move_on(engine, &mut tx, Batch::of(due.sagas, now)).await?;
    swept.effects.push(effects);
    swept.apart.extend(unmovable);
    if !swept.apart.is_empty() {
        let apart: Vec<Uuid> = swept.apart.iter().map(|(id, _)| *id).collect();
        store::due::put_off(&mut tx, &apart, now).await?;
    }
    tx.commit().await?;
    Ok(swept)
}

/// The same with a savepoint for each saga, so that one whose row cannot be written is put off alone.
async fn write_each(engine: &Engine) -> store::Result<Swept> {
    let mut tx = engine.pool.begin().await?;
    let (due, now) = lock_due(engine, &mut tx).await?;
    let mut swept = Swept { found: due.found(), apart: due.unreadable, ..Swept::default() };
    for saga in due.sagas {
        let id = saga.id;
        let mut alone = tx.begin().await?;
        match move_on(engine, &mut alone, Batch::of(vec![saga], now)).await {
            Ok((effects, unmovable)) => {
                alone.commit().await?;
                swept.effects.push(effects);
                swept.apart.extend(unmovable);
            }
            Err(error) if !is_about_rows(&error) => return Err(error),
            Err(error) => {
                alone.rollback().await?;
                swept.apart.push((id, error.to_string()));
            }
        }
    }
    for (id, _) in &swept.apart {
        let mut alone = tx.begin().await?;
        match store::due::put_off(&mut alone, &[*id], now).await {
            Ok(()) => alone.commit().await?,
            Err(error) if !is_about_rows(&error) => return Err(error),
            Err(error) => {
                tracing::error!(saga = %id, %error, "the alarm of a saga that cannot be moved cannot be moved either");
                alone.rollback().await?;
            }
        }
    }
    tx.commit().await?;
    Ok(swept)
}

/// Locks the sagas that are due, and reads the time that decides about them. Those that wait also have an alarm in the broker,
/// which goes first.
async fn lock_due(engine: &Engine, conn: &mut PgConnection) -> store::Result<(Due, DateTime<Utc>)> {
    let before = store::now(&mut *conn).await?;
    let due = store::due::lock(conn, before, before - RING, LIMIT).await?;
    engine.learn(&mut *conn, &due.sagas).await?;
    let now = if due.found() == 0 { before } else { store::now(conn).await? };
    Ok((due, now))
}

/// Lets the alarm of each saga ring, and writes what was decided. Also answers those that have no decision.
async fn move_on(
    engine: &Engine,
    conn: &mut PgConnection,
    mut batch: Batch,
) -> store::Result<(Effects, Vec<(Uuid, String)>)> {
    let mut unmovable = Vec::new();
    for id in batch.ids() {
        match batch.apply(&engine.registry, id, &Event::TimerFired) {
            Verdict::Illegal(why) | Verdict::Undefined(why) => unmovable.push((id, why)),
            Verdict::Moved | Verdict::Stale => {}
        }
    }
    Ok((batch.write(conn, engine).await?, unmovable))
}
