//! Audit questions about seats, tickets and the reservations they belong to.

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::super::Result;
use super::{Moment, NAMED, Offender};

/// Sold seats, valid tickets and the lines of confirmed reservations are the same set, priced alike.
///
/// A reservation whose saga is on its way is left out: its cancellation voids the tickets first and frees
/// the seats last.
pub async fn sold_seats(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (id, problem, reservation_id) as (
            select s.performance_id || '/' || s.number, 'sold without a valid ticket of its holder', s.holder
            from seats s
            where s.status = 'sold' and not exists (
                select from tickets t
                where t.performance_id = s.performance_id and t.seat = s.number
                    and t.status = 'valid' and t.reservation_id = s.holder)
            union all
            select s.performance_id || '/' || s.number, 'sold, but its holder has not confirmed it', s.holder
            from seats s
            where s.status = 'sold' and not exists (
                select from reservations r
                where r.id = s.holder and r.status = 'confirmed'
                    and r.performance_id = s.performance_id and s.number = any (r.seats))
            union all
            select t.performance_id || '/' || t.seat, 'a valid ticket for it, but it is not sold to the ticket''s reservation',
                t.reservation_id
            from tickets t
            join seats s on s.performance_id = t.performance_id and s.number = t.seat
            where t.status = 'valid' and (s.status <> 'sold' or s.holder is distinct from t.reservation_id)
            union all
            select r.id::text, 'confirmed, but there is no valid ticket for seat ' || line.seat, r.id
            from reservations r
            cross join unnest(r.seats) as line (seat)
            where r.status = 'confirmed' and not exists (
                select from tickets t
                where t.reservation_id = r.id and t.status = 'valid'
                    and t.performance_id = r.performance_id and t.seat = line.seat)
            union all
            select r.id::text, 'confirmed, but its lines are not its seats or do not add up to its amount', r.id
            from reservations r
            cross join lateral (
                select array_agg((line ->> 'number')::integer order by (line ->> 'number')::integer) as numbers,
                    coalesce(sum((line ->> 'price')::bigint), 0) as amount
                from jsonb_array_elements(r.lines) as line
            ) as lines
            where r.status = 'confirmed' and (
                lines.amount <> r.amount
                or lines.numbers is distinct from (select array_agg(n order by n) from unnest(r.seats) as n))
        )
        select id as "id!", problem as "problem!", count(*) over () as "total!"
        from found
        where not exists (
            select from sagas g where g.id = found.reservation_id and g.finished_at is null
            union all
            select from sagas g
            where g.subject_id = found.reservation_id and g.subject_id <> g.id and g.finished_at is null)
        order by 1, 2
        limit $1
        "#,
        NAMED,
    )
    .fetch_all(conn)
    .await
}

/// No seat is in two live reservations. Live: confirmed, or held and not yet claimable by others.
pub async fn doubled_seats(conn: &mut PgConnection, moment: Moment) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        select r.performance_id || '/' || line.seat as "id!",
            'in several live reservations: ' || string_agg(r.id::text, ', ' order by r.id) as "problem!",
            count(*) over () as "total!"
        from reservations r
        cross join unnest(r.seats) as line (seat)
        where r.status = 'confirmed' or r.status = 'held' and r.claimable_at > $1
        group by r.performance_id, line.seat
        having count(*) > 1
        order by 1
        limit $2
        "#,
        moment.now,
        NAMED,
    )
    .fetch_all(conn)
    .await
}

/// A held seat names the reservation that holds it, a blocked one its block, and a live hold has its seats. Holds and blocks that
/// are over are left out.
pub async fn held_seats(conn: &mut PgConnection, moment: Moment) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (id, problem) as (
            select s.performance_id || '/' || s.number, 'held for ' || s.holder || ', which does not hold it'
            from seats s
            where s.status = 'held' and s.claimable_at > $1 and not exists (
                select from reservations r
                where r.id = s.holder and r.status = 'held'
                    and r.performance_id = s.performance_id and s.number = any (r.seats))
            union all
            select s.performance_id || '/' || s.number, 'blocked for ' || s.holder || ', which does not block it'
            from seats s
            where s.status = 'blocked' and (s.claimable_at is null or s.claimable_at > $1) and not exists (
                select from seat_blocks b
                where b.id = s.holder and b.released_at is null and b.until is not distinct from s.claimable_at
                    and b.performance_id = s.performance_id and s.number = any (b.seats))
            union all
            select r.id::text, 'held, but seat ' || line.seat || ' is not held for it'
            from reservations r
            cross join unnest(r.seats) as line (seat)
            where r.status = 'held' and r.claimable_at > $1 and not exists (
                select from seats s
                where s.performance_id = r.performance_id and s.number = line.seat
                    and s.status = 'held' and s.holder = r.id)
        )
        select id as "id!", problem as "problem!", count(*) over () as "total!"
        from found
        order by 1, 2
        limit $2
        "#,
        moment.now,
        NAMED,
    )
    .fetch_all(conn)
    .await
}

/// No seat is still held `patience` after its hold ran out, counted from the latest start-up at the earliest.
///
/// A payment that came in time may go on until the seat is claimable. The seats of a saga that is stuck or
/// was given up wait for an operator (other users may claim them meanwhile).
pub async fn overdue_holds(
    conn: &mut PgConnection,
    moment: Moment,
    patience: TimeDelta,
) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        select s.performance_id || '/' || s.number as "id!",
            'still held for ' || s.holder || coalesce(
                ', whose hold ran out at ' || to_char(s.expires_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
                ', whose hold has no end') as "problem!",
            count(*) over () as "total!"
        from seats s
        left join saga_view g on g.id = s.holder
        where s.status = 'held' and $2::timestamptz is not null
            and g.status is distinct from 'stuck' and g.status is distinct from 'abandoned'
            and greatest($2, case when g.step in ('pay', 'confirm') then s.claimable_at else s.expires_at end)
                < $1
        order by s.expires_at, 1
        limit $3
        "#,
        moment.now - patience,
        moment.last_start,
        NAMED,
    )
    .fetch_all(conn)
    .await
}
