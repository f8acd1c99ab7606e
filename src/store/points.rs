//! Points as their owner sees them: the balance, charging, and the ledger.
//!
//! Taking points for a purchase and giving them back belongs to the payment step, and is not here.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Result;

/// A charge that would lift a balance above this is refused. Refunds are exempt.
pub const BALANCE_LIMIT: i64 = 1_000_000_000_000;

/// Why a balance changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum EntryKind {
    Charge,
    Use,
    Refund,
    /// Given by the support desk.
    Goodwill,
}

/// One line of the ledger. `amount` is positive whichever way the points went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Entry {
    pub id: Uuid,
    pub kind: EntryKind,
    pub amount: i64,
    /// The balance after this entry.
    pub balance: i64,
    pub reservation_id: Option<Uuid>,
    pub created_at: DateTime<Utc>,
    /// Where it stands in the ledger; the cursor of lists.
    #[serde(skip)]
    pub position: i64,
}

/// The points of a user; one who was never heard of has none.
pub async fn balance(db: impl PgExecutor<'_>, user: Uuid) -> Result<i64> {
    let found = sqlx::query_scalar!(r#"select balance from accounts where user_id = $1"#, user)
        .fetch_optional(db)
        .await?;
    Ok(found.unwrap_or(0))
}

/// Adds points that were charged; see [`credit`].
pub async fn charge(db: impl PgExecutor<'_>, entry: Uuid, user: Uuid, amount: i64) -> Result<Option<i64>> {
    credit(db, "charge", entry, user, amount).await
}

/// Adds points: account, entry of this kind and the note that it must be announced, in one statement. Answers the new
/// balance, or nothing if it would go above [`BALANCE_LIMIT`]. The entry's id is the fence: the second
/// one under the same id breaks `ledger_entries_pkey` and changes nothing.
pub async fn credit(
    db: impl PgExecutor<'_>,
    kind: &str,
    entry: Uuid,
    user: Uuid,
    amount: i64,
) -> Result<Option<i64>> {
    sqlx::query_scalar!(
        r#"
        with account as (
            insert into accounts as a (user_id, balance) values ($2, $3)
            on conflict (user_id) do update
                set balance = a.balance + excluded.balance, updated_at = clock_timestamp()
                where a.balance + excluded.balance <= $4
            returning balance
        ), entry as (
            insert into ledger_entries (id, user_id, kind, amount, balance, created_at)
            select $1, $2, $5, $3, balance, clock_timestamp() from account
            returning id, balance, created_at
        ), note as (
            insert into unannounced_entries (entry_id, created_at) select id, created_at from entry
        )
        select balance from entry
        "#,
        entry,
        user,
        amount,
        BALANCE_LIMIT,
        kind,
    )
    .fetch_optional(db)
    .await
}

/// One entry of a user.
pub async fn entry(db: impl PgExecutor<'_>, id: Uuid, user: Uuid) -> Result<Option<Entry>> {
    sqlx::query_as!(
        Entry,
        r#"
        select id, kind as "kind: EntryKind", amount, balance, reservation_id, created_at, position
        from ledger_entries where id = $1 and user_id = $2
        "#,
        id,
        user,
    )
    .fetch_optional(db)
    .await
}

/// A user's entries, newest first, below the given position.
pub async fn entries(
    db: impl PgExecutor<'_>,
    user: Uuid,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Entry>> {
    sqlx::query_as!(
        Entry,
        r#"
        select id, kind as "kind: EntryKind", amount, balance, reservation_id, created_at, position
        from ledger_entries
        where user_id = $1 and ($2::bigint is null or position < $2)
        order by position desc
        limit $3
        "#,
        user,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
