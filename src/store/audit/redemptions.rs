//! Audit questions about scans of tickets.

use sqlx::PgConnection;

use super::super::Result;
use super::{NAMED, Offender};

/// A redeemed ticket is valid: a refund needs an undo by support first. The valid scan of a ticket is its earliest one. A ticket
/// whose holder is not its buyer was taken over by this holder.
pub async fn redemptions(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (id, problem) as (
            select v.ticket_id::text, case
                when t.id is distinct from v.ticket_id then 'redeemed, but there is no such ticket'
                when t.status <> 'valid' then 'redeemed, and void without an undo by support'
                else 'redeemed as a ticket of performance ' || v.performance_id || ', but it is of ' || t.performance_id end
            from redemptions v
            left join tickets t on t.reservation_id = v.reservation_id and t.seat = v.seat
            where v.status = 'valid'
              and (t.id is distinct from v.ticket_id or t.status <> 'valid' or t.performance_id <> v.performance_id)
            union all
            select d.ticket_id::text, 'scanned at ' || d.gate || ' earlier than the valid scan, or without one'
            from redemptions d
            where d.status = 'duplicate' and not exists (
                select from redemptions v
                where v.ticket_id = d.ticket_id and v.status = 'valid'
                  and (v.scanned_at, v.recorded_at, v.id) < (d.scanned_at, d.recorded_at, d.id))
            union all
            select t.id::text, 'held by user ' || t.holder_id || ', who has not taken it over'
            from tickets t
            where t.holder_id is not null and not exists (
                select from ticket_transfers x
                where x.new_ticket_id = t.id and x.taker_id = t.holder_id and x.status = 'accepted')
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
