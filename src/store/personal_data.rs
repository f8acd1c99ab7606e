//! All rows about one user, and what of them can be removed.
//!
//! Rows are read whole, with all columns that their table has: an export that left a new column out would be wrong without
//! a sign of it. A user's sagas are those of the user's reservations and cancellations, and those whose subject is the user.

use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;

/// What stands in the place of a text that was removed.
pub const REMOVED: &str = "(removed)";

/// Whether anything is kept about this user.
pub async fn is_known(db: impl PgExecutor<'_>, user: Uuid) -> Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (select from users where id = $1) or exists (select from accounts where user_id = $1)
            or exists (select from reservations where user_id = $1)
            or exists (select from concerts c join queue_journal j on j.concert_id = c.id and j.user_id = $1) as "known!"
        "#,
        user,
    )
    .fetch_one(db)
    .await
}

/// The ids by which rows of other tables may name the user: the user's own, and those of reservations, cancellations, tickets and
/// sagas.
#[derive(Clone, Debug)]
pub struct UserIds {
    pub sagas: Vec<Uuid>,
    pub all: Vec<String>,
}

/// The ids of this user.
pub async fn ids(conn: &mut PgConnection, user: Uuid) -> Result<UserIds> {
    let sagas = sqlx::query_scalar!(
        r#"
        select r.id as "id!" from reservations r where r.user_id = $1
        union
        select r.cancellation_id from reservations r where r.user_id = $1 and r.cancellation_id is not null
        union
        select s.id from sagas s where s.subject_id = $1
        "#,
        user,
    )
    .fetch_all(&mut *conn)
    .await?;
    let tickets = sqlx::query_scalar!(
        "select t.id from reservations r join tickets t on t.reservation_id = r.id where r.user_id = $1",
        user,
    )
    .fetch_all(conn)
    .await?;
    let all = sagas.iter().chain(&tickets).chain([&user]).map(ToString::to_string).collect();
    Ok(UserIds { sagas, all })
}

/// The user's name, in local mode.
pub async fn profile(db: impl PgExecutor<'_>, user: Uuid) -> Result<Option<Value>> {
    sqlx::query_scalar!(r#"select to_jsonb(u) as "row!" from users u where u.id = $1"#, user)
        .fetch_optional(db)
        .await
}

/// The user's points.
pub async fn account(db: impl PgExecutor<'_>, user: Uuid) -> Result<Option<Value>> {
    sqlx::query_scalar!(r#"select to_jsonb(a) as "row!" from accounts a where a.user_id = $1"#, user)
        .fetch_optional(db)
        .await
}

pub async fn reservations(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"select to_jsonb(r) as "row!" from reservations r where r.user_id = $1 order by r.id limit $2"#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

pub async fn payments(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(p) as "row!" from reservations r join payments p on p.reservation_id = r.id
        where r.user_id = $1 order by r.id limit $2
        "#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

pub async fn tickets(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(t) as "row!" from reservations r join tickets t on t.reservation_id = r.id
        where r.user_id = $1 order by r.id, t.seat limit $2
        "#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

pub async fn ledger_entries(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"select to_jsonb(e) as "row!" from ledger_entries e where e.user_id = $1 order by e.position limit $2"#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Sagas with their input and what their commands carry.
pub async fn sagas(db: impl PgExecutor<'_>, sagas: &[Uuid], limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"select to_jsonb(s) as "row!" from saga_view s where s.id = any($1) order by s.id limit $2"#,
        sagas,
        limit,
    )
    .fetch_all(db)
    .await
}

pub async fn saga_history(db: impl PgExecutor<'_>, sagas: &[Uuid], limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"select to_jsonb(h) as "row!" from history_view h where h.saga_id = any($1) order by h.saga_id, h.seq limit $2"#,
        sagas,
        limit,
    )
    .fetch_all(db)
    .await
}

pub async fn saga_attributes(db: impl PgExecutor<'_>, sagas: &[Uuid], limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(a) as "row!" from saga_attributes a where a.saga_id = any($1) order by a.saga_id, a.name limit $2
        "#,
        sagas,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Places in line, as the journal has them.
pub async fn queue_places(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(j) as "row!" from concerts c join queue_journal j on j.concert_id = c.id and j.user_id = $1
        order by j.concert_id limit $2
        "#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Operators' acts on the user's sagas, or on what has one of these ids at the end of its name.
pub async fn acts(db: impl PgExecutor<'_>, ids: &UserIds, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(a) as "row!" from operator_acts a
        where a.saga_id = any($1) or right(a.target, 36) = any($2) order by a.id limit $3
        "#,
        &ids.sagas,
        &ids.all,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Requests under an `Idempotency-Key`, and their answers.
pub async fn requests(db: impl PgExecutor<'_>, caller: &str, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"select to_jsonb(k) as "row!" from idempotency_keys k where k.caller = $1 order by k.created_at limit $2"#,
        caller,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Messages of the user's sagas that no process could handle.
pub async fn parked_messages(db: impl PgExecutor<'_>, ids: &UserIds, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(m) as "row!" from parked_messages m
        where m.headers ->> 'Saga' = any($1) or right(m.subject, 36) = any($1) order by m.id limit $2
        "#,
        &ids.all,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Deliveries of events about the user or the user's reservations to webhook endpoints.
pub async fn webhook_deliveries(
    db: impl PgExecutor<'_>,
    user: Uuid,
    sagas: &[Uuid],
    limit: i64,
) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(d) as "row!" from webhook_deliveries d
        where d.subject_id = $1 or d.subject_id = any($2) order by d.id limit $3
        "#,
        user,
        sagas,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Scans of the user's tickets at the entrance.
pub async fn redemptions(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(d) as "row!" from reservations r
        join tickets t on t.reservation_id = r.id join redemptions d on d.ticket_id = t.id
        where r.user_id = $1 order by d.id limit $2
        "#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Removes the reasons why scans of the user's tickets were undone.
pub async fn remove_redemption_reasons(db: impl PgExecutor<'_>, user: Uuid) -> Result<u64> {
    let removed = sqlx::query!(
        r#"
        update redemptions d set reason = $2
        from reservations r join tickets t on t.reservation_id = r.id
        where r.user_id = $1 and d.ticket_id = t.id and d.reason <> $2
        "#,
        user,
        REMOVED,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Seats that support took off the user's reservations.
pub async fn seat_refunds(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(s) as "row!" from reservations r join seat_refunds s on s.reservation_id = r.id
        where r.user_id = $1 order by s.reservation_id, s.seat limit $2
        "#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Points that support gave the user as goodwill.
pub async fn goodwill_grants(db: impl PgExecutor<'_>, user: Uuid, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"select to_jsonb(g) as "row!" from goodwill_grants g where g.user_id = $1 order by g.granted_at limit $2"#,
        user,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Events about the user or the user's reservations that no saga announces.
pub async fn direct_events(
    db: impl PgExecutor<'_>,
    user: Uuid,
    sagas: &[Uuid],
    limit: i64,
) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(e) as "row!" from direct_events e
        where e.subject_id = $1 or e.subject_id = any($2) order by e.id limit $3
        "#,
        user,
        sagas,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Removes the reasons of refunds of the user's seats and of points that the user got as goodwill.
pub async fn remove_support_reasons(db: impl PgExecutor<'_>, user: Uuid) -> Result<i64> {
    sqlx::query_scalar!(
        r#"
        with seats as (
            update seat_refunds s set reason = $2 from reservations r
            where r.user_id = $1 and s.reservation_id = r.id and s.reason <> $2 returning 1
        ), points as (
            update goodwill_grants set reason = $2 where user_id = $1 and reason <> $2 returning 1
        )
        select (select count(*) from seats) + (select count(*) from points) as "removed!"
        "#,
        user,
        REMOVED,
    )
    .fetch_one(db)
    .await
}

/// Batches whose filter names the user.
pub async fn batches(db: impl PgExecutor<'_>, ids: &UserIds, limit: i64) -> Result<Vec<Value>> {
    sqlx::query_scalar!(
        r#"
        select to_jsonb(b) as "row!" from batch_jobs b
        where b.filter ->> 'user_id' = any($1) or b.filter ->> 'reservation_id' = any($1) order by b.id limit $2
        "#,
        &ids.all,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Removes the user's name; false if there is none.
pub async fn remove_name(db: impl PgExecutor<'_>, user: Uuid) -> Result<bool> {
    let removed = sqlx::query!("delete from users where id = $1", user).execute(db).await?;
    Ok(removed.rows_affected() > 0)
}

/// Removes the reasons that operators gave for acts on the user's sagas and reservations. The reasons of exports and of forgetting
/// stay: they say why this was done. Answers how many there were.
pub async fn remove_act_reasons(db: impl PgExecutor<'_>, ids: &UserIds) -> Result<u64> {
    let removed = sqlx::query!(
        r#"
        update operator_acts set reason = $3
        where (saga_id = any($1) or right(target, 36) = any($2)) and not starts_with(act, 'user.') and reason not in ('', $3)
        "#,
        &ids.sagas,
        &ids.all,
        REMOVED,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Removes the reasons of batches whose filter names the user.
pub async fn remove_batch_reasons(db: impl PgExecutor<'_>, ids: &UserIds) -> Result<u64> {
    let removed = sqlx::query!(
        r#"
        update batch_jobs set reason = $2
        where (filter ->> 'user_id' = any($1) or filter ->> 'reservation_id' = any($1)) and reason <> $2
        "#,
        &ids.all,
        REMOVED,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Removes the attributes of the user's sagas that have ended; one that goes on may still be looked for by them.
pub async fn remove_attributes(db: impl PgExecutor<'_>, sagas: &[Uuid]) -> Result<u64> {
    let removed = sqlx::query!(
        r#"
        delete from saga_attributes a using sagas s
        where a.saga_id = any($1) and s.id = a.saga_id and s.finished_at is not null
        "#,
        sagas,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}
