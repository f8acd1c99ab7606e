//! Flights: each batch of sagas that started or got a signal together is one row, which looks after them while they run.
//!
//! It is the outbox of the batch. A saga leaves it once it has an alarm of its own, or has ended and JetStream has its events;
//! a flight without sagas is deleted. What is still in one after [`FLIGHT_TIME`] is looked at by the sweeper, whatever became
//! of the process that began it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use super::write_batch::{Part, WriteBatch};
use crate::saga::Saga;

/// After so long without news the sweeper looks at the sagas of a flight.
pub const FLIGHT_TIME: TimeDelta = TimeDelta::seconds(3);

const INSERT_FLIGHT: Part = Part::new("flown", include_str!("../../sql/insert_flight.sql"));
const _: fn(i64, DateTime<Utc>, &[Uuid]) =
    |id, now, sagas| drop(sqlx::query_file!("sql/insert_flight.sql", id, now, sagas));

/// A flight that the sweeper looks at.
#[derive(Clone, Debug)]
pub struct Overdue {
    pub id: i64,
    pub sagas: Vec<Uuid>,
}

/// An id that no other flight has: 63 random bits.
pub fn new_id() -> i64 {
    (rand::random::<u64>() >> 1).cast_signed()
}

/// Adds the flight of these sagas, if there are any.
pub fn insert(changes: &mut WriteBatch, id: i64, sagas: &[Uuid], now: DateTime<Utc>) {
    if !sagas.is_empty() {
        changes.add(INSERT_FLIGHT).bind(id).bind(now).bind(sagas);
    }
}

/// These sagas leave their flights. Doing it twice changes nothing.
pub async fn leave(db: impl PgExecutor<'_>, left: &BTreeMap<i64, Vec<Uuid>>) -> Result<()> {
    let (mut flights, mut sagas) = (Vec::new(), Vec::new());
    for (flight, ids) in left {
        flights.extend(std::iter::repeat_n(*flight, ids.len()));
        sagas.extend(ids);
    }
    let ids: Vec<i64> = left.keys().copied().collect();
    sqlx::query!(
        r#"
        with locked as (
            select id, sagas from flights where id = any($3) order by id for update
        ), rest as (
            select id, array(
                select flying from unnest(locked.sagas) as flying
                except
                select gone.saga from unnest($1::bigint[], $2::uuid[]) as gone (flight, saga) where gone.flight = locked.id
            ) as sagas
            from locked
        ), landed as (
            delete from flights using rest where flights.id = rest.id and cardinality(rest.sagas) = 0
        )
        update flights set sagas = rest.sagas from rest
        where flights.id = rest.id and cardinality(rest.sagas) > 0
        "#,
        &flights,
        &sagas,
        &ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Up to `limit` flights that were last looked at [`FLIGHT_TIME`] ago or earlier; they count as looked at from now on.
pub async fn look(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Overdue>> {
    sqlx::query_as!(
        Overdue,
        r#"
        update flights set at = clock_timestamp()
        from (select id from flights where at <= clock_timestamp() - $1::interval order by at limit $2 for update skip locked) as found
        where flights.id = found.id
        returning flights.id, flights.sagas
        "#,
        FLIGHT_TIME as _,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The sagas of this flight that still run get an alarm of their own, which rings at once. The time of their last change moves
/// with it, so that a process that remembers them as they were reads them anew.
pub async fn let_go(db: impl PgExecutor<'_>, flight: &Overdue) -> Result<()> {
    sqlx::query!(
        r#"
        update sagas set due_at = clock_timestamp(), flight = null, updated_at = clock_timestamp()
        where id in (select id from sagas where id = any($1) and flight = $2 and status < 3 order by id for no key update)
        "#,
        &flight.sagas,
        flight.id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Those of its sagas that this flight still looks after.
pub async fn kept(db: impl PgExecutor<'_>, flight: &Overdue) -> Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        "select id from sagas where id = any($1) and flight = $2 order by id",
        &flight.sagas,
        flight.id,
    )
    .fetch_all(db)
    .await
}

/// For display: sagas that their flight looks after get the time of its next look as their alarm.
pub async fn show_next_look(db: impl PgExecutor<'_>, sagas: &mut [Saga]) -> Result<()> {
    let flights: Vec<i64> = sagas.iter().filter_map(|saga| saga.flight).collect();
    if flights.is_empty() {
        return Ok(());
    }
    let found = sqlx::query!(
        r#"select flying as "saga!", at from flights cross join unnest(sagas) as flying where id = any($1)"#,
        &flights,
    )
    .fetch_all(db)
    .await?;
    let looks: BTreeMap<Uuid, DateTime<Utc>> =
        found.into_iter().map(|row| (row.saga, row.at + FLIGHT_TIME)).collect();
    for saga in sagas {
        saga.due_at = saga.due_at.or_else(|| looks.get(&saga.id).copied());
    }
    Ok(())
}
