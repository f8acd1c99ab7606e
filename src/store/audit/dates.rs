//! Audit questions about dates that were cancelled.

use sqlx::PgConnection;

use super::super::Result;
use super::{NAMED, Offender};

/// Once the job of a cancelled date has ended everything, no seat of it has an owner, and no ticket is valid.
pub async fn cancelled_dates(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with settled as (
            select p.id from performances p
            join batch_jobs j on j.id = p.cancellation_id
            where p.cancelled_at is not null and j.status = 'completed' and j.failed = 0
        ), found (id, problem) as (
            select s.performance_id || '/' || s.number, 'of a cancelled date whose job is completed, and ' || s.status
            from settled
            join seats s on s.performance_id = settled.id
            where s.status in ('held', 'sold')
            union all
            select t.id::text, 'valid, and its date was cancelled and its job is completed'
            from settled
            join tickets t on t.performance_id = settled.id
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
