//! What steps write about reservations: each is written by the steps of its own saga, whose row is compared or locked.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Line, Reservation};
use crate::store::write_batch::{LockOrder, Part, WriteBatch};

const RESERVATIONS: LockOrder = LockOrder::after_sagas(4);

const INSERT_HOLDS: Part = Part::new("held_reservations", include_str!("../../../sql/insert_holds.sql"));
const _: () = {
    fn _checked(c: &Columns<'_>, json: &[Value], amounts: &[i64], now: DateTime<Utc>) {
        drop(sqlx::query_file!(
            "sql/insert_holds.sql",
            now,
            &c.ids,
            &c.users,
            &c.concerts,
            &c.performances,
            &c.statuses as &[&str],
            &c.reasons as &[Option<&str>],
            json,
            &c.seats,
            json,
            amounts,
            &c.placed,
            &c.placed,
            &c.placed,
        ));
    }
};
const CONFIRM: Part =
    Part::new("confirmed_reservations", include_str!("../../../sql/confirm_reservations.sql"));
const _: fn(DateTime<Utc>, &[Uuid]) =
    |now, ids| drop(sqlx::query_file!("sql/confirm_reservations.sql", now, ids));
const CANCEL: Part =
    Part::new("cancelled_reservations", include_str!("../../../sql/cancel_reservations.sql"));
const _: fn(DateTime<Utc>, &[Uuid]) =
    |now, ids| drop(sqlx::query_file!("sql/cancel_reservations.sql", now, ids));
const END: Part = Part::new("ended_reservations", include_str!("../../../sql/end_reservations.sql"));
const _: fn(&Columns<'_>, DateTime<Utc>) = |c, now| {
    drop(sqlx::query_file!(
        "sql/end_reservations.sql",
        now,
        &c.ids,
        &c.users,
        &c.concerts,
        &c.performances,
        &c.statuses as &[&str],
        &c.reasons as &[Option<&str>],
        &c.seats,
        &c.placed,
    ));
};
/// It names the part [`END`], so it is no query of its own.
const ENDED_WHOLE: Part = Part::new("ended_whole", include_str!("../../../sql/ended_whole.sql"));

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
    changes
        .complete(INSERT_HOLDS, holds.len())
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
    set_status(changes, CONFIRM, ids, now);
}

/// Ends confirmed reservations as cancelled, in the same way.
pub fn cancel(changes: &mut WriteBatch, ids: &[Uuid], now: DateTime<Utc>) {
    set_status(changes, CANCEL, ids, now);
}

fn set_status(changes: &mut WriteBatch, part: Part, ids: &[Uuid], now: DateTime<Utc>) {
    if !ids.is_empty() {
        let distinct = ids.iter().collect::<BTreeSet<_>>().len();
        changes.complete(part, distinct).bind(now).bind(ids);
    }
}

/// Ends reservations that no step has ended otherwise: those that are still held, and those that never came to a hold. So many
/// as are open when the statement begins have to be ended by it.
pub fn end_open(changes: &mut WriteBatch, ends: &[Reservation], now: DateTime<Utc>) {
    if ends.is_empty() {
        return;
    }
    let columns = Columns::of(ends);
    changes.check(RESERVATIONS, ENDED_WHOLE).bind(columns.ids.clone());
    changes
        .add(END)
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
