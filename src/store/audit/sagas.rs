//! Audit queries about sagas: whether each has a timer or another reason to move.

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::super::Result;
use super::super::flights::FLIGHT_TIME;
use super::{Moment, NAMED, Offender, StuckSaga};

/// Every saga is ended, stuck, paused, in its flight or has an alarm; every reservation that is not settled has a saga, or
/// one that an operator gave up.
pub async fn asleep(conn: &mut PgConnection) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with found (id, problem) as (
            select id::text, 'the saga is ' || status || ' in ' || step || ' without an alarm'
            from saga_view v
            where due_at is null and not paused and finished_at is null and stuck_since is null
                and not exists (select from flights f where f.id = v.flight and v.id = any (f.sagas))
            union all
            select r.id::text, 'the reservation is ' || r.status || ', but no saga is on its way for it'
            from reservations r
            where r.status in ('pending', 'held') and not exists (
                select from sagas g where g.id = r.id and (g.finished_at is null or g.status = saga_status('abandoned')))
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

/// No alarm is `patience` overdue, counted from the latest start-up at the earliest. A live sweeper moves an
/// overdue alarm on, so an alarm that old shows that no sweeper runs.
pub async fn overdue_sagas(
    conn: &mut PgConnection,
    moment: Moment,
    patience: TimeDelta,
) -> Result<Vec<Offender>> {
    sqlx::query_as!(
        Offender,
        r#"
        with late (id, at) as (
            select id, due_at from sagas where due_at is not null
            union all
            select s.id, f.at + $4 from flights f
            cross join unnest(f.sagas) as flying (id)
            join sagas s on s.id = flying.id and s.flight = f.id
        )
        select id::text as "id!",
            'the saga''s alarm was due at ' || to_char(at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
                || ' and nobody looked' as "problem!",
            count(*) over () as "total!"
        from late
        where greatest(at, $2::timestamptz) < $1
            and $2 is not null
        order by at, 1
        limit $3
        "#,
        moment.now - patience,
        moment.last_start,
        NAMED,
        FLIGHT_TIME as _,
    )
    .fetch_all(conn)
    .await
}

/// Sagas that wait for an operator, the oldest first.
pub async fn stuck_sagas(conn: &mut PgConnection) -> Result<Vec<StuckSaga>> {
    sqlx::query_as!(
        StuckSaga,
        r#"
        select id as "id!", workflow as "workflow!", step as "step!", direction as "direction!", reason,
            stuck_since as "since!"
        from saga_view where stuck_since is not null order by stuck_since, id limit $1
        "#,
        NAMED,
    )
    .fetch_all(conn)
    .await
}
