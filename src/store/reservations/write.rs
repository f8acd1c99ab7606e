//! What steps write about reservations: each is written by the steps of its own saga, whose row is compared or locked.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Line, Reservation};
use crate::store::write_batch::{LockOrder, WriteBatch};

const RESERVATIONS: LockOrder = LockOrder::after_sagas(3);

/// Reservations as they are inserted, as arrays for `unnest`.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    users: Vec<Uuid>,
    concerts: Vec<Uuid>,
    performances: Vec<Uuid>,
    statuses: Vec<&'static str>,
    reasons: Vec<Option<&'a str>>,
    seats: Vec<String>,
    placed: Vec<DateTime<Utc>>,
}

impl<'a> Columns<'a> {
    fn of(reservations: &'a [Reservation]) -> Self {
        let mut columns = Self::default();
        for reservation in reservations {
            columns.ids.push(reservation.id);
            columns.users.push(reservation.user_id);
            columns.concerts.push(reservation.concert_id);
            columns.performances.push(reservation.performance_id);
            columns.statuses.push(reservation.status.name());
            columns.reasons.push(reservation.reason.as_deref());
            columns.seats.push(array(&reservation.seats));
            columns.placed.push(reservation.created_at);
        }
        columns
    }
}

/// The text of an array in Postgres. `unnest` takes no arrays of arrays.
fn array(numbers: &[i32]) -> String {
    let numbers: Vec<String> = numbers.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

/// Writes reservations whose seats are held from now on, or that were refused. A saga that comes to its hold once more finds
/// a row and overwrites it.
pub fn insert_holds(changes: &mut WriteBatch, holds: &[Reservation], now: DateTime<Utc>) {
    if holds.is_empty() {
        return;
    }
    let details: Vec<Option<&Value>> = holds.iter().map(|hold| hold.detail.as_ref()).collect();
    let lines: Vec<&Json<Vec<Line>>> = holds.iter().map(|hold| &hold.lines).collect();
    let amounts: Vec<i64> = holds.iter().map(|hold| hold.amount).collect();
    let expires: Vec<Option<DateTime<Utc>>> = holds.iter().map(|hold| hold.expires_at).collect();
    let claimable: Vec<Option<DateTime<Utc>>> = holds.iter().map(|hold| hold.claimable_at).collect();
    let columns = Columns::of(holds);
    let sql = "
        insert into reservations (id, user_id, concert_id, performance_id, status, reason, detail, seats, lines, amount,
                                  expires_at, claimable_at, created_at, updated_at)
        select id, user_id, concert_id, performance_id, status, reason, detail, seats::int[], lines, amount,
               expires_at, claimable_at, placed_at, $1
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::jsonb[], $9::text[],
                    $10::jsonb[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[])
            as new (id, user_id, concert_id, performance_id, status, reason, detail, seats, lines, amount,
                    expires_at, claimable_at, placed_at)
        on conflict (id) do update set
            status = excluded.status, reason = excluded.reason, detail = excluded.detail, lines = excluded.lines,
            amount = excluded.amount, expires_at = excluded.expires_at, claimable_at = excluded.claimable_at,
            updated_at = excluded.updated_at
        returning 1";
    changes
        .complete("held_reservations", holds.len(), sql)
        .bind(now)
        .bind(columns.ids)
        .bind(columns.users)
        .bind(columns.concerts)
        .bind(columns.performances)
        .bind(columns.statuses)
        .bind(columns.reasons)
        .bind(details)
        .bind(columns.seats)
        .bind(lines)
        .bind(amounts)
        .bind(expires)
        .bind(claimable)
        .bind(columns.placed);
}

/// Confirms reservations, each of which must exist.
pub fn confirm(changes: &mut WriteBatch, ids: &[Uuid], now: DateTime<Utc>) {
    let sql = "update reservations set status = 'confirmed', updated_at = $1 where id = any($2) returning 1";
    set_status(changes, "confirmed_reservations", ids, sql, now);
}

/// Ends confirmed reservations as cancelled, in the same way.
pub fn cancel(changes: &mut WriteBatch, ids: &[Uuid], now: DateTime<Utc>) {
    let sql = "update reservations set status = 'cancelled', updated_at = $1 where id = any($2) returning 1";
    set_status(changes, "cancelled_reservations", ids, sql, now);
}

fn set_status(changes: &mut WriteBatch, name: &str, ids: &[Uuid], sql: &str, now: DateTime<Utc>) {
    if !ids.is_empty() {
        let distinct = ids.iter().collect::<BTreeSet<_>>().len();
        changes.complete(name, distinct, sql).bind(now).bind(ids);
    }
}

/// Ends reservations that no step has ended otherwise: those that are still held, and those that never came to a hold. So many
/// as are open when the statement begins have to be ended by it.
pub fn end_open(changes: &mut WriteBatch, ends: &[Reservation], now: DateTime<Utc>) {
    if ends.is_empty() {
        return;
    }
    let columns = Columns::of(ends);
    let open = "(select count(*) from ended_reservations) = (
        select count(*) from unnest($1::uuid[]) as ending (id) left join reservations r using (id)
        where r.id is null or r.status in ('pending', 'held'))";
    changes.check(RESERVATIONS, open).bind(columns.ids.clone());
    let sql = "
        insert into reservations (id, user_id, concert_id, performance_id, status, reason, seats, created_at, updated_at)
        select id, user_id, concert_id, performance_id, status, reason, seats::int[], placed_at, $1
        from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::timestamptz[])
            as new (id, user_id, concert_id, performance_id, status, reason, seats, placed_at)
        on conflict (id) do update
            set status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at
            where reservations.status in ('pending', 'held')
        returning 1";
    changes
        .add("ended_reservations", sql)
        .bind(now)
        .bind(columns.ids)
        .bind(columns.users)
        .bind(columns.concerts)
        .bind(columns.performances)
        .bind(columns.statuses)
        .bind(columns.reasons)
        .bind(columns.seats)
        .bind(columns.placed);
}
