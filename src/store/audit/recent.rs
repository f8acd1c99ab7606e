//! Audit questions about the last minutes only: whether what came about in them fits together.
//!
//! One statement sees one moment. It finds new rows by their ids, which begin with the time, and their counterparts by keys.

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use super::super::Result;
use super::snapshot;

/// How many rows of a finding are named.
pub const RECENT_NAMED: i64 = 10;
/// The statement ends by itself, and finds each row by an index: a plan for any lower bound, or one that compares with all
/// accounts, would read whole tables.
const SETTINGS: &str = "
    set local statement_timeout = '15s';
    set local plan_cache_mode = force_custom_plan;
    set local enable_seqscan = off;
    set local random_page_cost = 1.1";

/// A row of the last minutes that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentOffender {
    /// The name of the invariant.
    pub finding: String,
    /// The id of the row; a seat is named by its performance, a slash and its number.
    pub id: String,
    pub problem: String,
    /// How many there are, named or not.
    pub total: i64,
}

/// What is wrong with rows whose ids are in this range, by the database's clock `now`. A payment brings its reservation, seats
/// and tickets with it, however old they are. What a saga under way or an operator has left unfinished is not judged.
#[allow(clippy::too_many_lines, reason = "one statement sees one moment")]
pub async fn recent(pool: &PgPool, ids: Range<Uuid>, now: DateTime<Utc>) -> Result<Vec<RecentOffender>> {
    let mut tx = snapshot(pool).await?;
    sqlx::raw_sql(SETTINGS).execute(&mut *tx).await?;
    let found = sqlx::query_as!(
        RecentOffender,
        r#"
        with new_payments as materialized (
            select id, reservation_id from payments where id >= $1 and id < $2
        ), new_entries as materialized (
            select id, user_id, kind, amount, balance, position from ledger_entries where id >= $1 and id < $2
        ), touched as materialized (
            select id from reservations where id >= $1 and id < $2
            union
            select reservation_id from new_payments
        ), judged as materialized (
            select r.id, r.status, r.seats, r.amount, r.concert_id, r.performance_id, r.claimable_at
            from touched join reservations r on r.id = touched.id
        ), issued as materialized (
            select t.id, t.reservation_id, t.performance_id, t.seat
            from touched join tickets t on t.reservation_id = touched.id
        ), by_hand as materialized (
            select (detail #>> '{settlement,reservation_id}')::uuid as id from operator_acts
            where jsonb_array_length(detail #> '{settlement,left_to_settle}') > 0
        ), confirmed as materialized (
            select j.id, j.seats, j.amount, j.performance_id from judged j
            where j.status = 'confirmed'
                and not exists (select from by_hand b where b.id = j.id)
                and not exists (select from sagas g where g.id = j.id and g.finished_at is null)
                and not exists (
                    select from sagas g
                    where g.subject_id = j.id and g.subject_id <> g.id and g.finished_at is null)
        ), found (finding, id, problem) as (
            select 'tickets_without_reservation', i.id::text,
                'the ticket names reservation ' || i.reservation_id || ', which is missing'
            from issued i
            where not exists (select from judged j where j.id = i.reservation_id)
            union all
            select 'tickets_without_seat', i.id::text,
                'the ticket names seat ' || i.performance_id || '/' || i.seat || ', which is missing'
            from issued i
            left join seats s on s.performance_id = i.performance_id and s.number = i.seat
            where s.number is null
            union all
            select 'entries_without_account', e.id::text, 'the entry names user ' || e.user_id || ', who has no account'
            from new_entries e
            left join accounts a on a.user_id = e.user_id
            where a.user_id is null
            union all
            select 'payments_without_reservation', p.id::text,
                'the payment names reservation ' || p.reservation_id || ', which is missing'
            from new_payments p
            where not exists (select from judged j where j.id = p.reservation_id)
            union all
            select 'payments_without_entry', p.id::text,
                'the payment is ' || p.status || ' and of ' || p.amount || ' points, without a ledger entry'
            from payments_without_entry p
            where p.id >= $1 and p.id < $2 and p.status <> 'failed' and p.amount > 0
            union all
            select 'reservations_without_performance', j.id::text,
                'the reservation names performance ' || j.performance_id || ', which is missing'
            from judged j
            left join performances p on p.id = j.performance_id
            where p.id is null
            union all
            select 'reservations_of_another_concert', j.id::text,
                'the reservation names concert ' || j.concert_id || ', its performance is of ' || p.concert_id
            from judged j
            join performances p on p.id = j.performance_id
            where p.concert_id <> j.concert_id
            union all
            select 'sold_seats', c.id::text, 'confirmed, but seat ' || line.seat || ' is not sold to it, or has no valid ticket'
            from confirmed c
            cross join unnest(c.seats) as line (seat)
            left join seats s on s.performance_id = c.performance_id and s.number = line.seat
            left join tickets t on t.reservation_id = c.id and t.performance_id = c.performance_id
                and t.seat = line.seat and t.status = 'valid'
            where s.status is distinct from 'sold' or s.holder is distinct from c.id or t.id is null
            union all
            select 'held_seats', j.id::text, 'held, but seat ' || line.seat || ' is not held for it'
            from judged j
            cross join unnest(j.seats) as line (seat)
            left join seats s on s.performance_id = j.performance_id and s.number = line.seat
            where j.status = 'held' and j.claimable_at > $3
                and (s.status is distinct from 'held' or s.holder is distinct from j.id)
            union all
            select 'payments', c.id::text, 'the reservation is confirmed, its payment is ' || coalesce(p.status, 'missing')
            from confirmed c
            -- Bounded, so that the view is asked for these reservations alone, and not joined as a whole.
            left join lateral (
                select status, amount, refunded from payments where reservation_id = c.id limit 1) as p on true
            where p.status is distinct from 'succeeded' or p.amount - p.refunded <> c.amount
            union all
            select 'balances', e.id::text,
                'the entry says ' || e.balance || ', the entry before it and its amount add up to '
                    || coalesce(before.balance, 0) + case e.kind when 'use' then -e.amount else e.amount end
            from new_entries e
            left join lateral (
                select b.balance from ledger_entries b
                where b.user_id = e.user_id and b.position < e.position
                order by b.position desc limit 1
            ) as before on true
            where e.balance <> coalesce(before.balance, 0) + case e.kind when 'use' then -e.amount else e.amount end
            union all
            select 'balances', a.user_id::text, 'the balance is ' || a.balance || ', the last entry says ' || last.balance
            from (select distinct user_id from new_entries) as users
            join accounts a on a.user_id = users.user_id
            cross join lateral (
                select l.balance from ledger_entries l
                where l.user_id = users.user_id
                order by l.position desc limit 1
            ) as last
            where a.balance <> last.balance
        ), numbered as (
            select finding, id, problem, count(*) over (partition by finding) as total,
                row_number() over (partition by finding order by id, problem) as place
            from found
        )
        select finding as "finding!", id as "id!", problem as "problem!", total as "total!"
        from numbered
        where place <= $4
        order by 1, 2, 3
        "#,
        ids.start,
        ids.end,
        now,
        RECENT_NAMED,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.rollback().await?;
    Ok(found)
}
