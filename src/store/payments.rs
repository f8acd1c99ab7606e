//! Points that are used and refunded, and the payments they are for. Charges are in `points`.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use super::batch_tx::BatchTx;
use super::tracked_rows::TrackedRows;
use super::write_batch::{LockOrder, Part, WriteBatch};
use crate::config::Control;

const ACCOUNTS: LockOrder = LockOrder::after_sagas(3);

const SAVE_BALANCES: Part = Part::new("saved_accounts", include_str!("../../sql/save_balances.sql"));
const _: fn(DateTime<Utc>, &[Uuid], &[i64]) =
    |now, users, points| drop(sqlx::query_file!("sql/save_balances.sql", now, users, points, points));
const INSERT_ENTRIES: Part = Part::new("entered", include_str!("../../sql/insert_entries.sql"));
const _: fn(&Entries, DateTime<Utc>) = |e, now| {
    drop(sqlx::query_file!(
        "sql/insert_entries.sql",
        now,
        &e.ids,
        &e.users,
        &e.kinds as &[&str],
        &e.amounts,
        &e.balances,
        &e.reservations,
        &e.reversed as &[Option<Uuid>],
    ));
};
const PAY_WITHOUT_ENTRY: Part =
    Part::new("paid", include_str!("../../sql/insert_payments_without_entry.sql"));
const _: () = {
    fn _checked(
        now: DateTime<Utc>,
        ids: &[Uuid],
        amounts: &[i64],
        statuses: &[String],
        paid: &[DateTime<Utc>],
    ) {
        drop(sqlx::query_file!(
            "sql/insert_payments_without_entry.sql",
            now,
            ids,
            ids,
            ids,
            amounts,
            statuses,
            paid
        ));
    }
};
const MARK_REFUNDED: Part =
    Part::new("refunded", include_str!("../../sql/refund_payments_without_entry.sql"));
const _: fn(&[Uuid], DateTime<Utc>) =
    |reservations, now| drop(sqlx::query_file!("sql/refund_payments_without_entry.sql", reservations, now));

/// A ledger entry about to be written: a use, or the refund that reverses one.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEntry {
    pub id: Uuid,
    pub user_id: Uuid,
    pub kind: &'static str,
    pub amount: i64,
    pub balance: i64,
    pub reservation_id: Uuid,
    pub reverses_id: Option<Uuid>,
}

/// A use of points that was not refunded.
#[derive(Clone, Debug)]
pub struct Use {
    pub id: Uuid,
    pub user_id: Uuid,
    pub reservation_id: Uuid,
    pub amount: i64,
}

/// How a payment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentStatus {
    Succeeded,
    /// There were too few points. A later try may succeed.
    Failed,
    Refunded,
}

impl PaymentStatus {
    /// Its name in the tables and on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Refunded => "refunded",
        }
    }
}

/// A payment that takes no points: there is nothing to pay, or there were too few points. Every other payment is its ledger entry.
#[derive(Clone, Debug, PartialEq)]
pub struct PaymentWithoutEntry {
    pub id: Uuid,
    pub reservation_id: Uuid,
    pub user_id: Uuid,
    pub amount: i64,
    pub status: PaymentStatus,
    pub paid_at: Option<DateTime<Utc>>,
}

/// Reads the balances of these users, in their order; a user without an account has never had points.
pub async fn read_balances(attempt: &mut BatchTx, users: &[Uuid]) -> Result<TrackedRows<Uuid, i64>> {
    if users.is_empty() {
        return Ok(TrackedRows::default());
    }
    let control = attempt.control();
    let (balances, read_at) = balances_of(attempt.conn(), users, control).await?;
    if let Some(read_at) = read_at {
        attempt.note_time(read_at);
    }
    Ok(balances)
}

/// The balances of these users, and the database's clock.
pub async fn balances_of(
    conn: &mut PgConnection,
    users: &[Uuid],
    control: Control,
) -> Result<(TrackedRows<Uuid, i64>, Option<DateTime<Utc>>)> {
    if control == Control::Pessimistic {
        let sql = "select user_id from accounts where user_id = any($1) order by user_id for no key update";
        sqlx::query(sql).bind(users).execute(&mut *conn).await?;
    }
    let sql =
        "select user_id, balance, clock_timestamp() from accounts where user_id = any($1) order by user_id";
    let balances: Vec<(Uuid, i64, DateTime<Utc>)> = sqlx::query_as(sql).bind(users).fetch_all(conn).await?;
    let read_at = balances.first().map(|(_, _, at)| *at);
    Ok((balances.into_iter().map(|(user, balance, _)| (user, balance)).collect(), read_at))
}

/// The uses of points for these reservations that were not refunded yet, without what was refunded of single seats.
pub async fn open_uses(db: impl PgExecutor<'_>, reservations: &[Uuid]) -> Result<Vec<Use>> {
    if reservations.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        Use,
        r#"
        select id as "id!", user_id as "user_id!", reservation_id as "reservation_id!", amount as "amount!"
        from (
            select id, user_id, reservation_id, amount - coalesce((
                select sum(s.amount) from seat_refunds s where s.reservation_id = used.reservation_id), 0)::bigint as amount
            from ledger_entries used
            where kind = 'use' and reservation_id = any($1)
              and not exists (select from ledger_entries back where back.reverses_id = used.id)
        ) as left_over
        where amount > 0
        "#,
        reservations,
    )
    .fetch_all(db)
    .await
}

/// The refund of the points of a reservation, if there is one: the entry that reverses the use, and the use.
pub async fn refund_of(db: impl PgExecutor<'_>, reservation: Uuid) -> Result<Option<(Uuid, Use)>> {
    let sql = "
        select back.id, used.id, used.user_id, back.amount from ledger_entries used
        join ledger_entries back on back.reverses_id = used.id
        where used.kind = 'use' and used.reservation_id = $1";
    let found: Option<(Uuid, Uuid, Uuid, i64)> =
        sqlx::query_as(sql).bind(reservation).fetch_optional(db).await?;
    Ok(found
        .map(|(back, id, user_id, amount)| (back, Use { id, user_id, reservation_id: reservation, amount })))
}

/// Notes that the event of an entry that no saga made is still to be published.
pub async fn note_unannounced(db: impl PgExecutor<'_>, entry: Uuid, now: DateTime<Utc>) -> Result<()> {
    let sql = "insert into unannounced_entries (entry_id, created_at) values ($1, $2)";
    sqlx::query(sql).bind(entry).bind(now).execute(db).await.map(drop)
}

/// Writes the balances that have changed, by their users, each compared with what was read.
pub fn save_balances(changes: &mut WriteBatch, balances: &TrackedRows<Uuid, i64>, now: DateTime<Utc>) {
    let (users, (then, balances)): (Vec<Uuid>, (Vec<i64>, Vec<i64>)) =
        balances.changed().map(|(user, then, balance)| (*user, (*then, *balance))).unzip();
    if users.is_empty() {
        return;
    }
    let part = changes.counted(ACCOUNTS, SAVE_BALANCES, users.len());
    part.bind(now).bind(users).bind(balances).bind(then);
}

/// Writes ledger entries, in this order.
pub fn enter(changes: &mut WriteBatch, entries: &[NewEntry], now: DateTime<Utc>) {
    if entries.is_empty() {
        return;
    }
    let rows = Entries::of(entries);
    changes
        .complete(INSERT_ENTRIES, entries.len())
        .bind(now)
        .bind(rows.ids)
        .bind(rows.users)
        .bind(rows.kinds)
        .bind(rows.amounts)
        .bind(rows.balances)
        .bind(rows.reservations)
        .bind(rows.reversed);
}

/// Writes payments that take no points: a reservation has one at most, and a failed one may still succeed.
pub fn pay_without_entry(changes: &mut WriteBatch, payments: &[PaymentWithoutEntry], now: DateTime<Utc>) {
    if payments.is_empty() {
        return;
    }
    let ids: Vec<Uuid> = payments.iter().map(|payment| payment.id).collect();
    let reservations: Vec<Uuid> = payments.iter().map(|payment| payment.reservation_id).collect();
    let users: Vec<Uuid> = payments.iter().map(|payment| payment.user_id).collect();
    let amounts: Vec<i64> = payments.iter().map(|payment| payment.amount).collect();
    let statuses: Vec<&str> = payments.iter().map(|payment| payment.status.name()).collect();
    let times: Vec<Option<DateTime<Utc>>> = payments.iter().map(|payment| payment.paid_at).collect();
    let part = changes.complete(PAY_WITHOUT_ENTRY, payments.len()).bind(now);
    part.bind(ids).bind(reservations).bind(users).bind(amounts).bind(statuses).bind(times);
}

/// Ledger entries, as arrays for `unnest`.
struct Entries {
    ids: Vec<Uuid>,
    users: Vec<Uuid>,
    kinds: Vec<&'static str>,
    amounts: Vec<i64>,
    balances: Vec<i64>,
    reservations: Vec<Uuid>,
    reversed: Vec<Option<Uuid>>,
}

impl Entries {
    fn of(entries: &[NewEntry]) -> Self {
        Self {
            ids: entries.iter().map(|entry| entry.id).collect(),
            users: entries.iter().map(|entry| entry.user_id).collect(),
            kinds: entries.iter().map(|entry| entry.kind).collect(),
            amounts: entries.iter().map(|entry| entry.amount).collect(),
            balances: entries.iter().map(|entry| entry.balance).collect(),
            reservations: entries.iter().map(|entry| entry.reservation_id).collect(),
            reversed: entries.iter().map(|entry| entry.reverses_id).collect(),
        }
    }
}

/// Marks the payments of no points of these reservations as refunded. Every other payment is refunded by the entry that reverses its
/// own.
pub fn mark_refunded(changes: &mut WriteBatch, reservations: &[Uuid], now: DateTime<Utc>) {
    if reservations.is_empty() {
        return;
    }
    changes.add(MARK_REFUNDED).bind(reservations).bind(now);
}

/// A ledger entry that no saga made, as its event says it: a charge, or a refund by an operator.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Charge {
    pub id: Uuid,
    pub user_id: Uuid,
    pub kind: String,
    pub amount: i64,
    pub balance: i64,
    pub reservation_id: Option<Uuid>,
    pub reverses_id: Option<Uuid>,
    pub position: i64,
    pub created_at: DateTime<Utc>,
}

/// Charges and refunds by operators whose events are not published yet, oldest first.
pub async fn unannounced(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Charge>> {
    let sql = "
        select e.id, e.user_id, e.kind, e.amount, e.balance, e.reservation_id, e.reverses_id, e.position, e.created_at
        from unannounced_entries u join ledger_entries e on e.id = u.entry_id
        order by e.position limit $1";
    sqlx::query_as(sql).bind(limit).fetch_all(db).await
}

/// JetStream has the events of these entries.
pub async fn announced(db: impl PgExecutor<'_>, entries: &[Uuid]) -> Result<()> {
    sqlx::query!("delete from unannounced_entries where entry_id = any($1)", entries).execute(db).await?;
    Ok(())
}

/// Up to `limit` charges and refunds by operators from an id on and below another, in their order.
pub async fn charges(db: impl PgExecutor<'_>, from: Uuid, below: Uuid, limit: i64) -> Result<Vec<Charge>> {
    let sql = "
        select id, user_id, kind, amount, balance, reservation_id, reverses_id, position, created_at
        from ledger_entries e
        where id >= $1 and id < $2 and (kind in ('charge', 'goodwill') or kind = 'refund' and (reverses_id is null or exists (
            select from operator_acts a where a.act = 'refund' and a.detail ->> 'entry_id' = e.id::text)))
        order by id
        limit $3";
    sqlx::query_as(sql).bind(from).bind(below).bind(limit).fetch_all(db).await
}
