//! The journal of the lines: the last known state of each place, from which lines are restored if NATS loses them.
//!
//! A row is overwritten only by a later version, so it does no harm if two processes write at the same time.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::Result;
use crate::ids::{ConcertId, UserId};

/// How a journalled place stands.
pub const WAITING: &str = "waiting";
/// In line, and not heard from for a while.
pub const SILENT: &str = "silent";
/// Admitted.
pub const ACTIVE: &str = "active";
/// Over.
pub const ENDED: &str = "ended";

/// The last known state of one user's place in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalRow {
    pub concert_id: Uuid,
    pub user_id: Uuid,
    /// The order of arrival; of an ended row: every place of this user up to this one is over.
    pub place: i64,
    /// The revision of the bucket that says so.
    pub version: i64,
    /// [`WAITING`], [`SILENT`], [`ACTIVE`] or [`ENDED`].
    pub status: String,
    /// When the place was taken; unknown of an ended one.
    pub issued_at: Option<DateTime<Utc>>,
    /// Until when the place of a silent user is kept.
    pub grace_until: Option<DateTime<Utc>>,
    pub activated_at: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    /// Whether the session has begun.
    pub used: bool,
    pub ended_at: Option<DateTime<Utc>>,
}

/// An end of a place: every place of this user up to this one is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEnd {
    pub concert_id: Uuid,
    pub user_id: Uuid,
    pub place: i64,
    pub ended_at: DateTime<Utc>,
}

/// Writes what is newer than what is there. Rows in the order of their keys, so that two writers cannot deadlock.
pub async fn write(conn: &mut PgConnection, rows: &[JournalRow]) -> Result<()> {
    let concerts: Vec<Uuid> = rows.iter().map(|row| row.concert_id).collect();
    let users: Vec<Uuid> = rows.iter().map(|row| row.user_id).collect();
    let places: Vec<i64> = rows.iter().map(|row| row.place).collect();
    let versions: Vec<i64> = rows.iter().map(|row| row.version).collect();
    let statuses: Vec<&str> = rows.iter().map(|row| row.status.as_str()).collect();
    let issued: Vec<_> = rows.iter().map(|row| row.issued_at).collect();
    let graces: Vec<_> = rows.iter().map(|row| row.grace_until).collect();
    let activated: Vec<_> = rows.iter().map(|row| row.activated_at).collect();
    let expiring: Vec<_> = rows.iter().map(|row| row.expires_at).collect();
    let used: Vec<bool> = rows.iter().map(|row| row.used).collect();
    let ended: Vec<_> = rows.iter().map(|row| row.ended_at).collect();
    sqlx::query!(
        r#"
        insert into queue_journal (concert_id, user_id, place, version, status, issued_at, grace_until,
            activated_at, expires_at, used, ended_at)
        select concert_id, user_id, place, version, status, issued_at, grace_until, activated_at, expires_at, used, ended_at
        from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[],
            $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::boolean[], $11::timestamptz[])
            as seen (concert_id, user_id, place, version, status, issued_at, grace_until, activated_at, expires_at, used, ended_at)
        on conflict (concert_id, user_id) do update set
            place = excluded.place, version = excluded.version, status = excluded.status,
            issued_at = excluded.issued_at, grace_until = excluded.grace_until,
            activated_at = excluded.activated_at, expires_at = excluded.expires_at,
            used = excluded.used, ended_at = excluded.ended_at
        where queue_journal.version < excluded.version
        "#,
        &concerts,
        &users,
        &places,
        &versions,
        &statuses as &[&str],
        &issued as &[Option<DateTime<Utc>>],
        &graces as &[Option<DateTime<Utc>>],
        &activated as &[Option<DateTime<Utc>>],
        &expiring as &[Option<DateTime<Utc>>],
        &used,
        &ended as &[Option<DateTime<Utc>>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Says that everything up to this revision is in the journal; answers up to where it is, which may be further.
pub async fn advance(conn: &mut PgConnection, journalled: i64) -> Result<i64> {
    sqlx::query_scalar!(
        r#"
        insert into queue_journal_position (journalled) values ($1)
        on conflict (one) do update
            set journalled = greatest(queue_journal_position.journalled, excluded.journalled)
        returning journalled
        "#,
        journalled,
    )
    .fetch_one(conn)
    .await
}

/// Up to which revision everything is in the journal; 0 if nothing ever was.
pub async fn position(db: impl PgExecutor<'_>) -> Result<i64> {
    let position =
        sqlx::query_scalar!("select journalled from queue_journal_position").fetch_optional(db).await?;
    Ok(position.unwrap_or(0))
}

/// Up to `limit` places that are not over and lie between these two, in their order.
pub async fn living(db: impl PgExecutor<'_>, after: i64, before: i64, limit: i64) -> Result<Vec<JournalRow>> {
    sqlx::query_as!(
        JournalRow,
        r#"
        select concert_id, user_id, place, version, status, issued_at, grace_until, activated_at, expires_at,
            used, ended_at
        from queue_journal where status <> 'ended' and place > $1 and place < $2 order by place limit $3
        "#,
        after,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Whether any place of a bucket before the one with this first revision is not over. That one may be the older one itself,
/// and then this is not known yet.
pub async fn is_anybody_left(db: impl PgExecutor<'_>, before: i64) -> Result<bool> {
    sqlx::query_scalar!(
        r#"
        select exists (select from queue_journal where status <> 'ended' and version < $1)
            or exists (select from queue_journal_position where journalled >= $1) as "left!"
        "#,
        before,
    )
    .fetch_one(db)
    .await
}

/// The ends since `earlier` of places from before this revision, and those since `present`, which is later, of all others.
pub async fn ends(
    db: impl PgExecutor<'_>,
    before: i64,
    earlier: DateTime<Utc>,
    present: DateTime<Utc>,
) -> Result<Vec<JournalEnd>> {
    sqlx::query_as!(
        JournalEnd,
        r#"
        select concert_id, user_id, place, ended_at as "ended_at!"
        from queue_journal where ended_at >= $2 and (place < $1 or ended_at >= $3)
        "#,
        before,
        earlier,
        present,
    )
    .fetch_all(db)
    .await
}

/// Deletes up to `limit` rows of places that ended before `before`; answers how many.
pub async fn delete_ended(db: impl PgExecutor<'_>, before: DateTime<Utc>, limit: i64) -> Result<u64> {
    let deleted = sqlx::query!(
        r#"
        delete from queue_journal where ctid = any (array(
            select ctid from queue_journal where ended_at < $1 limit $2))
        "#,
        before,
        limit,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Who of these users has paid for seats of that concert at or after that time: a session that was used for a payment is over.
pub async fn paid(
    db: impl PgExecutor<'_>,
    asked: &[(ConcertId, UserId, DateTime<Utc>)],
) -> Result<Vec<(ConcertId, UserId)>> {
    let concerts: Vec<Uuid> = asked.iter().map(|(concert, ..)| *concert).collect();
    let users: Vec<Uuid> = asked.iter().map(|(_, user, _)| *user).collect();
    let since: Vec<DateTime<Utc>> = asked.iter().map(|(.., since)| *since).collect();
    let rows = sqlx::query!(
        r#"
        select asked.concert_id as "concert_id!", asked.user_id as "user_id!"
        from unnest($1::uuid[], $2::uuid[], $3::timestamptz[]) as asked (concert_id, user_id, since)
        where exists (
            select from reservations r
            -- Bounded, so that the view is asked for these reservations alone, and not joined as a whole.
            cross join lateral (select paid_at from payments where reservation_id = r.id limit 1) as p
            where r.user_id = asked.user_id and r.concert_id = asked.concert_id and p.paid_at >= asked.since)
        "#,
        &concerts,
        &users,
        &since,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.concert_id, row.user_id)).collect())
}
