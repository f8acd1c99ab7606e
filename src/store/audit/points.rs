//! Audit questions about points: balances, entries, payments.

use sqlx::PgConnection;

use super::super::Result;
use super::{NAMED, Offender, UnsettledPoints};

/// A balance is the sum of its entries and not below zero, and so was every balance written beside an entry.
pub async fn balances(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with signed as (
            select id, user_id, position, balance, case kind when 'use' then -amount else amount end as points
            from ledger_entries
        ), running as (
            select id, balance, sum(points) over (partition by user_id order by position) as points from signed
        ), sums as (
            select user_id, sum(points) as points from signed group by user_id
        ), found (id, problem) as (
            select a.user_id::text,
                'the balance is ' || a.balance || ', the entries add up to ' || coalesce(sums.points, 0)
            from accounts a
            left join sums using (user_id)
            where a.balance <> coalesce(sums.points, 0) or a.balance < 0
            union all
            select id::text, 'the entry says ' || balance || ', the entries up to it add up to ' || points
            from running
            where balance <> points
        )
        select id as "id!", problem as "problem!", count(*) over () as "total!"
        from found
        order by 1, 2
        limit $1
        "#,
        NAMED,
    )
    .fetch_all(conn)
    .await
}

/// Points used and not refunded are the amount of what is confirmed, and nothing for what ended otherwise.
///
/// What an operator's act has left to settle is not broken: [`unsettled_points`] lists it.
///
/// On its way a booking has taken nothing before `pay` and all of it after; in `pay` itself, and while a
/// cancellation is between its refund and its end, either is right.
pub async fn points_taken(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with by_hand as (
            select (detail #>> '{settlement,reservation_id}')::uuid as id from operator_acts
            where jsonb_array_length(detail #> '{settlement,left_to_settle}') > 0
        ), taken as (
            select reservation_id, sum(case kind when 'use' then amount else -amount end) as points
            from ledger_entries
            where reservation_id is not null
            group by reservation_id
        ), judged as (
            select coalesce(r.id, taken.reservation_id) as id, coalesce(r.status, 'missing') as status,
                coalesce(taken.points, 0) as points, coalesce(r.amount, 0) as amount,
                booking.step as booking, cancellation.step as cancellation
            from reservations r
            full join taken on taken.reservation_id = r.id
            left join saga_view booking on booking.id = r.id and booking.finished_at is null
            left join saga_view cancellation on cancellation.id = r.cancellation_id and cancellation.finished_at is null
        )
        select id::text as "id!",
            status || ' at ' || amount || ' points, ' || points || ' are taken'
                || coalesce(', its saga is in ' || coalesce(cancellation, booking), '') as "problem!",
            count(*) over () as "total!"
        from judged
        where case
            when status = 'confirmed' then points <> amount
            when cancellation = 'release' then points <> 0
            when cancellation is not null then points not in (0, amount)
            when booking in ('reserve', 'await_payment') then points <> 0
            when booking = 'confirm' then points <> amount
            when booking is not null then points not in (0, amount)
            else points <> 0
        end and id not in (select id from by_hand)
        order by 1
        limit $1
        "#,
        NAMED,
    )
    .fetch_all(conn)
    .await
}

/// Payments agree with ledger entries, and with the reservations and sagas they belong to: the same user pays, reserved,
/// and ordered.
pub async fn payments(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with by_hand as (
            select (detail #>> '{settlement,reservation_id}')::uuid as id from operator_acts
            where jsonb_array_length(detail #> '{settlement,left_to_settle}') > 0
        ), settled as (
            select r.id, r.status, r.amount from reservations r
            where not exists (
                select from sagas g where g.id = r.id and g.finished_at is null
                union all
                select from sagas g where g.subject_id = r.id and g.subject_id <> g.id and g.finished_at is null)
            and r.id not in (select id from by_hand)
        ), ordered as materialized (
            select (input ->> 'reservation_id')::uuid as id, input ->> 'user_id' as user_id,
                input ->> 'performance_id' as performance_id,
                -- Seats that were chosen are among the outputs of the hold.
                case when input ? 'best' then context -> 'seats' else input -> 'seats' end as seats
            from saga_view where workflow in ('booking', 'cancellation')
        ), found (id, problem) as (
            select p.id::text, 'the payment is ' || p.status || ', and another one took points for the same reservation'
            from payments_without_entry p
            join ledger_entries e on e.reservation_id = p.reservation_id and e.kind = 'use'
            where p.status <> 'failed'
            union all
            select e.id::text, 'the refund is not the opposite of what it reverses'
            from ledger_entries e
            left join ledger_entries used on used.id = e.reverses_id
            where e.reverses_id is not null and (used.id is null or used.kind <> 'use'
                or used.amount <> e.amount and used.amount <> e.amount + coalesce((
                    select sum(s.amount) from seat_refunds s where s.reservation_id = e.reservation_id), 0)
                or used.user_id <> e.user_id or used.reservation_id <> e.reservation_id)
            union all
            select r.id::text, 'user ' || p.user_id || ' pays for a reservation of user ' || r.user_id
            from payments p join reservations r on r.id = p.reservation_id
            where p.user_id <> r.user_id
            union all
            select r.id::text, 'the reservation is of user ' || r.user_id || ', its saga of user ' || o.user_id
            from ordered o join reservations r on r.id = o.id
            where o.user_id <> r.user_id::text
            union all
            select r.id::text, 'the reservation is for other seats than its saga'
            from ordered o join reservations r on r.id = o.id
            where o.performance_id <> r.performance_id::text
                -- Seats that support refunded are the reservation's no more.
                or o.seats <> to_jsonb(r.seats) and (
                    not o.seats @> to_jsonb(r.seats)
                    or exists (
                        select from jsonb_array_elements_text(o.seats) as ordered (seat)
                        where ordered.seat::int <> all (r.seats) and not exists (
                            select from seat_refunds s where s.reservation_id = r.id and s.seat = ordered.seat::int)))
            union all
            select s.id::text, 'the reservation is ' || s.status || ', its payment is ' || coalesce(p.status, 'missing')
            from settled s
            left join payments p on p.reservation_id = s.id
            where (s.status = 'confirmed') <> (p.status is not distinct from 'succeeded')
                or s.status = 'confirmed' and p.amount - p.refunded <> s.amount
        )
        select id as "id!", problem as "problem!", count(*) over () as "total!"
        from found
        order by 1, 2
        limit $1
        "#,
        NAMED,
    )
    .fetch_all(conn)
    .await
}

/// Points that no saga will settle by itself: taken without a ticket where the saga is stuck, or where an operator's act left
/// them; and owed, where an operator's act confirmed a reservation that was not paid.
pub async fn unsettled_points(conn: &mut PgConnection) -> Result<Vec<UnsettledPoints>> {
    sqlx::query_as!(
        UnsettledPoints,
        r#"
        with suspects as (
            select id as saga_id, coalesce(subject_id, id) as reservation_id, stuck_since as since from sagas
            where stuck_since is not null
            union
            select saga_id, (detail #>> '{settlement,reservation_id}')::uuid, at from operator_acts
            where jsonb_array_length(detail #> '{settlement,left_to_settle}') > 0
        ), found as (
            select s.saga_id, s.since, r.id as reservation_id, r.user_id, used.amount as points, 'taken' as what
            from suspects s
            join reservations r on r.id = s.reservation_id
            join ledger_entries used on used.reservation_id = r.id and used.kind = 'use'
            where not exists (select from ledger_entries back where back.reverses_id = used.id)
                and not exists (select from tickets t where t.reservation_id = r.id and t.status = 'valid')
            union
            select s.saga_id, s.since, r.id, r.user_id, r.amount, 'owed'
            from suspects s
            join reservations r on r.id = s.reservation_id
            where r.status = 'confirmed' and r.amount > 0
                and not exists (select from payments p where p.reservation_id = r.id and p.status = 'succeeded')
        )
        select distinct on (f.reservation_id) f.saga_id as "saga_id!", f.reservation_id as "reservation_id!",
            f.user_id as "user_id!", f.what as "what!", f.points as "points!",
            coalesce(g.status, 'dropped') as "saga_status!", f.since as "since!"
        from found f
        left join saga_view g on g.id = f.saga_id
        order by f.reservation_id, f.since
        limit $1
        "#,
        NAMED,
    )
    .fetch_all(conn)
    .await
}
