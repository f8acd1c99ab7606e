//! Audit questions about single rows: the rules of the tables that every booking writes, which the schema does not check.

use sqlx::PgConnection;

use super::super::Result;
use super::{NAMED, Offender};

/// Each row keeps the rules of its table. Each table is read once, tickets a second time for ids that come twice; a row is
/// named with all the rules that it breaks.
#[allow(clippy::too_many_lines, reason = "one statement for all rules")]
pub async fn row_rules(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (id, problem) as (
            select g.id::text, 'breaks ' || broken.rules
            from sagas g
            left join workflow_definitions d on d.code = g.definition
            cross join lateral (select concat_ws(', ',
                case when d.code is null then 'sagas_definition_known' end,
                case when g.step < 0 or g.step >= cardinality(d.steps) then 'sagas_step_known' end,
                case when g.attempt < 0 then 'sagas_attempt_counts' end,
                case when g.resend_count < 0 then 'sagas_send_counts' end,
                case when (g.finished_at is not null) <> (g.status in (3, 4, 6))
                    then 'sagas_finished_when_ended' end,
                case when (g.stuck_since is not null) <> (g.status = 5) then 'sagas_stuck_since_when_stuck' end
            ) as rules) as broken
            where broken.rules <> ''
            union all
            select h.saga_id || '/' || h.seq, 'breaks saga_history_direction_known'
            from saga_history h
            where h.direction not in (0, 1)
            union all
            select s.performance_id || '/' || s.number, 'breaks ' || broken.rules
            from seats s
            cross join lateral (select concat_ws(', ',
                case when s.number <= 0 then 'seats_number' end,
                case when s.price not between 0 and 10000000 then 'seats_price' end,
                case when s.status not in ('free', 'held', 'sold', 'blocked') then 'seats_status_known' end,
                case when (s.status = 'held') <> (s.expires_at is not null)
                    -- A block may have an end.
                    or s.status <> 'blocked' and (s.status = 'held') <> (s.claimable_at is not null)
                    then 'seats_hold_timed' end
            ) as rules) as broken
            where broken.rules <> ''
            union all
            select r.id::text, 'breaks ' || broken.rules
            from reservations r
            cross join lateral (select concat_ws(', ',
                case when r.status not in ('pending', 'held', 'confirmed', 'expired', 'cancelled', 'failed')
                    then 'reservations_status_known' end,
                -- Where seats were to be chosen and there were none, the reservation has failed without seats.
                case when cardinality(r.seats) = 0 and r.status <> 'failed' then 'reservations_has_seats' end,
                case when r.status = 'held' and (r.expires_at is null or r.claimable_at is null)
                    then 'reservations_hold_timed' end,
                case when r.expires_at not between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
                    or r.claimable_at not between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
                    then 'reservations_times_in_range' end
            ) as rules) as broken
            where broken.rules <> ''
            union all
            select e.id::text, 'breaks ' || broken.rules
            from ledger_entries e
            cross join lateral (select concat_ws(', ',
                case when e.kind not in ('charge', 'use', 'refund', 'goodwill') then 'ledger_entries_kind_known' end,
                case when e.balance < 0 then 'ledger_entries_balance' end,
                case when e.kind <> 'refund' and e.reverses_id is not null
                    or e.kind = 'refund' and e.reverses_id is null
                        and not exists (select from seat_refunds s where s.entry_id = e.id)
                    then 'ledger_entries_refund_names_entry' end,
                case when (e.kind in ('charge', 'goodwill')) <> (e.reservation_id is null)
                    then 'ledger_entries_use_names_reservation' end
            ) as rules) as broken
            where broken.rules <> ''
            union all
            select p.id::text, 'breaks ' || broken.rules
            from payments_without_entry p
            cross join lateral (select concat_ws(', ',
                case when p.amount < 0 then 'payments_amount' end,
                case when p.status not in ('succeeded', 'failed', 'refunded') then 'payments_status_known' end,
                case when (p.status = 'failed') <> (p.paid_at is null) then 'payments_paid_when_taken' end
            ) as rules) as broken
            where broken.rules <> ''
            union all
            select t.id::text, 'breaks ' || broken.rules
            from tickets t
            cross join lateral (select concat_ws(', ',
                case when t.status not in ('valid', 'void') then 'tickets_status_known' end,
                case when (t.status = 'void') <> (t.voided_at is not null) then 'tickets_voided_when_void' end
            ) as rules) as broken
            where broken.rules <> ''
            union all
            select t.id::text, 'breaks tickets_id_unique'
            from tickets t
            group by t.id
            having count(*) > 1
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
