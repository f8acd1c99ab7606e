//! Access codes of a presale. A use counts while its reservation is held or confirmed, so it comes back when a hold ends unpaid.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;
use super::batch_tx::BatchTx;
use super::tracked_rows::TrackedRows;
use super::write_batch::{LockOrder, Part, WriteBatch};

const FIND_ACCESS: &str = include_str!("../../sql/find_access.sql");
const _: fn(&[Uuid], DateTime<Utc>) =
    |ids, now| drop(sqlx::query_file!("sql/find_access.sql", ids, ids, now));
const COMPARE_CODES: Part = Part::new("access_codes", include_str!("../../sql/compare_access_codes.sql"));
const _: fn(&[Uuid], &[i64], DateTime<Utc>) =
    |ids, uses, now| drop(sqlx::query_file!("sql/compare_access_codes.sql", ids, uses, uses, now, ids));
const INSERT_USES: Part = Part::new("access_uses", include_str!("../../sql/insert_access_uses.sql"));
const _: fn(&[Uuid]) = |ids| drop(sqlx::query_file!("sql/insert_access_uses.sql", ids, ids));

/// After the buyers, before the seats.
const CODES: LockOrder = LockOrder::after_sagas(1);

/// Codes to be made. They differ only in their ids and hashes.
#[derive(Clone, Debug)]
pub struct NewCodes<'a> {
    pub concert_id: Uuid,
    /// All dates of the concert, if it is none.
    pub performance_id: Option<Uuid>,
    /// Ids, hashes and endings.
    pub codes: &'a [NewCode],
    pub max_uses: i32,
    pub max_seats: i32,
    /// The name of the API key.
    pub created_by: &'a str,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct NewCode {
    pub id: Uuid,
    pub hash: Vec<u8>,
    pub ending: String,
}

/// A code as staff see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AccessCode {
    pub id: Uuid,
    pub concert_id: Uuid,
    /// Null for all dates of the concert.
    pub performance_id: Option<Uuid>,
    /// The last characters of the code.
    pub ending: String,
    /// Most reservations that are held or confirmed at a time.
    pub max_uses: i32,
    /// Most seats of these reservations together.
    pub max_seats: i32,
    /// Reservations that are held or confirmed.
    pub uses: i64,
    /// Their seats.
    pub seats: i64,
    /// The name of the API key.
    pub created_by: String,
    pub created_at: DateTime<Utc>,
    pub revoked_at: Option<DateTime<Utc>>,
    /// The name of the API key.
    pub revoked_by: Option<String>,
}

/// A code and a date.
pub type AccessKey = (Uuid, Uuid);

/// What a code is good for.
#[derive(Clone, Copy, Debug, PartialEq, sqlx::FromRow)]
pub struct Access {
    pub code_id: Uuid,
    pub performance_id: Uuid,
    /// Whether the code is for this date, and not revoked.
    pub is_valid: bool,
    pub presale_opens_at: Option<DateTime<Utc>>,
    pub max_uses: i64,
    pub max_seats: i64,
    read_at: DateTime<Utc>,
    #[sqlx(flatten)]
    pub used: Used,
}

/// How often a code is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Used {
    pub uses: i64,
    pub seats: i64,
}

/// Sets from when on a date is sold to buyers with an access code.
pub async fn set_presale(db: impl PgExecutor<'_>, id: Uuid, presale_opens_at: DateTime<Utc>) -> Result<()> {
    let set =
        sqlx::query!("update performances set presale_opens_at = $2 where id = $1", id, presale_opens_at);
    set.execute(db).await.map(drop)
}

/// Adds codes.
pub async fn insert(db: impl PgExecutor<'_>, new: &NewCodes<'_>, now: DateTime<Utc>) -> Result<()> {
    let ids: Vec<Uuid> = new.codes.iter().map(|code| code.id).collect();
    let hashes: Vec<Vec<u8>> = new.codes.iter().map(|code| code.hash.clone()).collect();
    let endings: Vec<String> = new.codes.iter().map(|code| code.ending.clone()).collect();
    sqlx::query!(
        r#"
        insert into access_codes (id, concert_id, performance_id, hash, ending, max_uses, max_seats, created_by, created_at)
        select id, $4, $5, hash, ending, $6, $7, $8, $9
        from unnest($1::uuid[], $2::bytea[], $3::text[]) as new (id, hash, ending)
        "#,
        &ids,
        &hashes,
        &endings,
        new.concert_id,
        new.performance_id,
        new.max_uses,
        new.max_seats,
        new.created_by,
        now,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The id of the code with this hash, if it is of this concert and not revoked.
pub async fn find(db: impl PgExecutor<'_>, concert: Uuid, hash: &[u8]) -> Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select id from access_codes where hash = $1 and concert_id = $2 and revoked_at is null",
        hash,
        concert
    )
    .fetch_optional(db)
    .await
}

/// Revokes a code of this concert: it is good for nothing more; reservations that were made with it stay. `false` if there is no
/// such code. One that was revoked before stays as it is.
pub async fn revoke(db: impl PgExecutor<'_>, concert: Uuid, id: Uuid, revoked_by: &str) -> Result<bool> {
    let revoked = sqlx::query!(
        r#"
        update access_codes set revoked_at = coalesce(revoked_at, clock_timestamp()),
                                revoked_by = coalesce(revoked_by, $3)
        where id = $1 and concert_id = $2
        "#,
        id,
        concert,
        revoked_by,
    );
    Ok(revoked.execute(db).await?.rows_affected() > 0)
}

/// The codes of a concert, the newest first, those before `before` if it is given.
pub async fn of_concert(
    db: impl PgExecutor<'_>,
    concert: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<AccessCode>> {
    sqlx::query_as!(
        AccessCode,
        r#"
        select c.id, c.concert_id, c.performance_id, c.ending, c.max_uses, c.max_seats, used.uses as "uses!",
               used.seats as "seats!", c.created_by, c.created_at, c.revoked_at, c.revoked_by
        from access_codes c
        cross join lateral (
            select count(*) as uses, coalesce(sum(cardinality(r.seats)), 0)::bigint as seats
            from access_code_uses u join reservations r on r.id = u.reservation_id
            where u.code_id = c.id
              and (r.status = 'confirmed' or r.status = 'held' and r.claimable_at > clock_timestamp())
        ) as used
        where c.concert_id = $1 and ($2::uuid is null or c.id < $2)
        order by c.id desc limit $3
        "#,
        concert,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// What these codes are good for at these dates, by the time that this attempt has read, or by the database's clock.
pub async fn read(attempt: &mut BatchTx, wanted: &[AccessKey]) -> Result<Vec<Access>> {
    let (codes, dates): (Vec<Uuid>, Vec<Uuid>) = wanted.iter().copied().unzip();
    let now = attempt.read_at();
    let query = sqlx::query_as(FIND_ACCESS).bind(codes).bind(dates).bind(now);
    let found: Vec<Access> = query.fetch_all(attempt.conn()).await?;
    if let Some(first) = found.first() {
        attempt.note_time(first.read_at);
    }
    Ok(found)
}

/// Keeps other transactions from using these codes until this one ends. Locks are taken in the order of the keys.
pub async fn lock(conn: &mut PgConnection, codes: &[Uuid]) -> Result<()> {
    sqlx::query!(
        r#"
        select pg_advisory_xact_lock(hashtextextended(code::text, 20129)) as "locked: ()"
        from (select distinct code from unnest($1::uuid[]) as code order by code) as ordered
        "#,
        codes,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes the locks of [`lock`] when the rest is written, and compares how often each code is used with what was read; `own` are
/// the reservations that are just being written.
pub fn compare(changes: &mut WriteBatch, used: &TrackedRows<Uuid, Used>, now: DateTime<Utc>, own: &[Uuid]) {
    let (mut codes, mut uses, mut seats) = (Vec::new(), Vec::new(), Vec::new());
    for (code, then, _) in used.changed() {
        codes.push(*code);
        uses.push(then.uses);
        seats.push(then.seats);
    }
    if !codes.is_empty() {
        changes.check(CODES, COMPARE_CODES).bind(codes).bind(uses).bind(seats).bind(now).bind(own.to_vec());
    }
}

/// Writes which reservation was made with which code.
pub fn insert_uses(changes: &mut WriteBatch, uses: &[(Uuid, Uuid)]) {
    if uses.is_empty() {
        return;
    }
    let (reservations, codes): (Vec<Uuid>, Vec<Uuid>) = uses.iter().copied().unzip();
    changes.complete(INSERT_USES, uses.len()).bind(reservations).bind(codes);
}
