//! Audit questions about what the support desk gave back and gave.

use sqlx::PgConnection;

use super::super::Result;
use super::{NAMED, Offender};

/// Each goodwill and each refund of a seat is its ledger entry, and a refunded seat is the reservation's no more.
pub async fn support_entries(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (id, problem) as (
            select g.entry_id::text, 'goodwill of ' || g.amount || ' points to user ' || g.user_id || ', without such an entry'
            from goodwill_grants g
            where not exists (
                select from ledger_entries e
                where e.id = g.entry_id and e.kind = 'goodwill' and e.user_id = g.user_id and e.amount = g.amount)
            union all
            select e.id::text, 'an entry of goodwill that was not recorded'
            from ledger_entries e
            where e.kind = 'goodwill' and not exists (select from goodwill_grants g where g.entry_id = e.id)
            union all
            select s.reservation_id || '/' || s.seat, 'refunded with ' || s.amount || ' points, without such an entry'
            from seat_refunds s
            where s.amount > 0 and not exists (
                select from ledger_entries e
                where e.id = s.entry_id and e.kind = 'refund' and e.reverses_id is null and e.amount = s.amount
                    and e.reservation_id = s.reservation_id)
            union all
            select s.reservation_id || '/' || s.seat, 'refunded, and still of the reservation'
            from seat_refunds s
            join reservations r on r.id = s.reservation_id
            where s.seat = any (r.seats)
            union all
            select s.reservation_id || '/' || s.seat, 'refunded, and its ticket is valid'
            from seat_refunds s
            join tickets t on t.reservation_id = s.reservation_id and t.seat = s.seat
            where t.status = 'valid'
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
