//! Seats that staff keep from sale: blocked and released all or nothing. A block owns its seats as a reservation does.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;
use super::seats::SeatStatus;

/// Seats to be blocked.
#[derive(Clone, Copy, Debug)]
pub struct NewBlock<'a> {
    pub id: Uuid,
    pub performance_id: Uuid,
    pub seats: &'a [i32],
    pub reason: &'a str,
    pub until: Option<DateTime<Utc>>,
    /// The name of the API key.
    pub blocked_by: &'a str,
}

/// Seats that staff keep from sale.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SeatBlock {
    pub id: Uuid,
    #[serde(skip)]
    pub concert_id: Uuid,
    pub performance_id: Uuid,
    /// The seats when they were blocked.
    pub seats: Vec<i32>,
    /// Those that are not sold, released or free again.
    pub seats_blocked: Vec<i32>,
    pub reason: String,
    /// From then on the seats are free for every buyer; null, if the block has to be released.
    pub until: Option<DateTime<Utc>>,
    /// The name of the API key.
    pub blocked_by: String,
    pub created_at: DateTime<Utc>,
    pub released_at: Option<DateTime<Utc>>,
    /// The name of the API key.
    pub released_by: Option<String>,
}

/// What became of a wish to block seats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    Done,
    /// These seats do not exist.
    Unknown(Vec<i32>),
    /// These seats are not free.
    Taken(Vec<i32>),
    /// The block has this end, which is over.
    Over,
}

/// Blocks all the seats, or none. A block that is there already (the same request once more) stays as it is.
pub async fn insert(conn: &mut PgConnection, block: &NewBlock<'_>) -> Result<Blocked> {
    let found = sqlx::query!(
        r#"
        select number, status as "status: SeatStatus", holder, claimable_at from seats
        where performance_id = $1 and number = any($2)
        order by number for no key update
        "#,
        block.performance_id,
        block.seats,
    )
    .fetch_all(&mut *conn)
    .await?;
    let now = super::now(&mut *conn).await?;
    if block.until.is_some_and(|until| until <= now) {
        return Ok(Blocked::Over);
    }
    let is_unknown = |number: &&i32| !found.iter().any(|seat| seat.number == **number);
    let unknown: Vec<i32> = block.seats.iter().filter(is_unknown).copied().collect();
    if !unknown.is_empty() {
        return Ok(Blocked::Unknown(unknown));
    }
    let mine = found.iter().all(|seat| seat.holder == Some(block.id));
    let taken = found.iter().filter(|seat| !seat.status.is_free(seat.claimable_at, now));
    let taken: Vec<i32> = taken.map(|seat| seat.number).collect();
    match (mine, taken.is_empty()) {
        (true, _) => return Ok(Blocked::Done),
        (false, false) => return Ok(Blocked::Taken(taken)),
        (false, true) => {}
    }
    sqlx::query!(
        r#"
        insert into seat_blocks (id, performance_id, seats, reason, until, blocked_by, created_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        "#,
        block.id,
        block.performance_id,
        block.seats,
        block.reason,
        block.until,
        block.blocked_by,
        now,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        update seats set status = 'blocked', holder = $3, expires_at = null, claimable_at = $4
        where performance_id = $1 and number = any($2)
        "#,
        block.performance_id,
        block.seats,
        block.id,
        block.until,
    )
    .execute(conn)
    .await?;
    Ok(Blocked::Done)
}

/// Releases a block: the seats that it still has are free. `None` if there is no such block; one that was released before stays
/// as it is.
pub async fn release(
    conn: &mut PgConnection,
    performance: Uuid,
    id: Uuid,
    released_by: &str,
) -> Result<Option<Vec<i32>>> {
    let known = sqlx::query!(
        "select seats from seat_blocks where id = $1 and performance_id = $2 for no key update",
        id,
        performance,
    );
    let Some(block) = known.fetch_optional(&mut *conn).await? else { return Ok(None) };
    let owned = sqlx::query_scalar!(
        r#"
        select number from seats
        where performance_id = $1 and number = any($2) and holder = $3 and status = 'blocked'
        order by number for no key update
        "#,
        performance,
        &block.seats,
        id,
    )
    .fetch_all(&mut *conn)
    .await?;
    sqlx::query!(
        r#"
        update seats set status = 'free', holder = null, claimable_at = null
        where performance_id = $1 and number = any($2) and holder = $3 and status = 'blocked'
        "#,
        performance,
        &owned,
        id,
    )
    .execute(&mut *conn)
    .await?;
    let now = super::now(&mut *conn).await?;
    sqlx::query!(
        "update seat_blocks set released_at = $2, released_by = $3 where id = $1 and released_at is null",
        id,
        now,
        released_by,
    )
    .execute(conn)
    .await?;
    Ok(Some(owned))
}

/// One block of a date.
pub async fn find(db: impl PgExecutor<'_>, performance: Uuid, id: Uuid) -> Result<Option<SeatBlock>> {
    Ok(select(db, performance, Some(id), None, 1).await?.pop())
}

/// The blocks of a date, the newest first, those before `before` if it is given.
pub async fn of_performance(
    db: impl PgExecutor<'_>,
    performance: Uuid,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<SeatBlock>> {
    select(db, performance, None, before, limit).await
}

async fn select(
    db: impl PgExecutor<'_>,
    performance: Uuid,
    id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<SeatBlock>> {
    sqlx::query_as!(
        SeatBlock,
        r#"
        select b.id, p.concert_id, b.performance_id, b.seats, b.reason, b.until, b.blocked_by, b.created_at,
               b.released_at, b.released_by,
               array(select s.number from seats s
                     where s.performance_id = b.performance_id and s.number = any(b.seats) and s.holder = b.id
                       and s.status = 'blocked' and (s.claimable_at is null or s.claimable_at > clock_timestamp())
                     order by s.number) as "seats_blocked!"
        from seat_blocks b
        join performances p on p.id = b.performance_id
        where b.performance_id = $1 and ($2::uuid is null or b.id = $2) and ($3::uuid is null or b.id < $3)
        order by b.id desc limit $4
        "#,
        performance,
        id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
