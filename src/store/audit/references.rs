//! Audit questions about rows that name other rows, where the schema has no foreign key: of the tables that every booking writes.

use sqlx::PgConnection;

use super::super::Result;
use super::{NAMED, Offender};

/// The rows that break one of these findings: they name a row that is not there, or one that contradicts them.
pub async fn dangling(conn: &mut PgConnection, finding: &str) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (finding, id, problem) as (
            select 'tickets_without_reservation', t.id::text, 'the ticket names reservation ' || t.reservation_id || ', which is missing'
            from tickets t
            where not exists (select from reservations r where r.id = t.reservation_id)
            union all
            select 'tickets_without_seat', t.id::text,
                'the ticket names seat ' || t.performance_id || '/' || t.seat || ', which is missing'
            from tickets t
            where not exists (select from seats s where s.performance_id = t.performance_id and s.number = t.seat)
            union all
            select 'entries_without_account', e.id::text, 'the entry names user ' || e.user_id || ', who has no account'
            from ledger_entries e
            where not exists (select from accounts a where a.user_id = e.user_id)
            union all
            select 'payments_without_reservation', p.id::text,
                'the payment names reservation ' || p.reservation_id || ', which is missing'
            from payments p
            where not exists (select from reservations r where r.id = p.reservation_id)
            union all
            select 'payments_without_entry', p.id::text,
                'the payment is ' || p.status || ' and of ' || p.amount || ' points, without a ledger entry'
            from payments_without_entry p
            where p.status <> 'failed' and p.amount > 0
            union all
            select 'reservations_without_performance', r.id::text,
                'the reservation names performance ' || r.performance_id || ', which is missing'
            from reservations r
            where not exists (select from performances p where p.id = r.performance_id)
            union all
            select 'reservations_of_another_concert', r.id::text,
                'the reservation names concert ' || r.concert_id || ', its performance is of ' || p.concert_id
            from reservations r
            join performances p on p.id = r.performance_id
            where p.concert_id <> r.concert_id
        )
        select id as "id!", problem as "problem!", count(*) over () as "total!"
        from found
        where finding = $1
        order by 1, 2
        limit $2
        "#,
        finding,
        NAMED,
    )
    .fetch_all(conn)
    .await
}
