//! What callers asked for under an `Idempotency-Key`, and the final answers.
//!
//! A row is claimed before anything is done. It carries the id that the request's effect will have, so that
//! the effect is fenced by its own primary key, also when the process dies between effect and answer.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// Under which key a request came: the key belongs to caller, method and path together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub caller: String,
    /// Method and path, such as `POST /v1/reservations`.
    pub route: String,
    pub key: String,
    /// Hash of the body.
    pub fingerprint: Vec<u8>,
}

/// What is known under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub fingerprint: Vec<u8>,
    pub status: Option<i16>,
    pub body: Option<Value>,
}

/// Claims a key for five seconds by the database's clock, and answers the id that the effect must have:
/// `fresh` for a new key, the earlier one for a claim that was left without an answer. Nothing if the key has
/// an answer, belongs to another body, or is being worked on: see [`find`].
pub async fn claim(db: impl PgExecutor<'_>, claim: &Claim, fresh: Uuid) -> Result<Option<Uuid>> {
    sqlx::query_scalar!(
        r#"
        insert into idempotency_keys as k (caller, route, key, effect_id, fingerprint, locked_until, created_at)
        values ($1, $2, $3, $4, $5, clock_timestamp() + interval '5 seconds', clock_timestamp())
        on conflict (caller, route, key) do update set locked_until = excluded.locked_until
            where k.status is null and k.fingerprint = excluded.fingerprint and k.locked_until <= clock_timestamp()
        returning effect_id
        "#,
        claim.caller,
        claim.route,
        claim.key,
        fresh,
        claim.fingerprint,
    )
    .fetch_optional(db)
    .await
}

/// What is known under a key, if anything.
pub async fn find(db: impl PgExecutor<'_>, claim: &Claim) -> Result<Option<Known>> {
    sqlx::query_as!(
        Known,
        r#"
        select fingerprint, status, body from idempotency_keys
        where caller = $1 and route = $2 and key = $3
        "#,
        claim.caller,
        claim.route,
        claim.key,
    )
    .fetch_optional(db)
    .await
}

/// Saves the final answer of whoever holds the claim with this effect.
pub async fn save(
    db: impl PgExecutor<'_>,
    claim: &Claim,
    effect: Uuid,
    status: u16,
    body: &Value,
) -> Result<()> {
    sqlx::query!(
        r#"
        update idempotency_keys set status = $5, body = $6
        where caller = $1 and route = $2 and key = $3 and effect_id = $4 and status is null
        "#,
        claim.caller,
        claim.route,
        claim.key,
        effect,
        i16::try_from(status).unwrap_or(i16::MAX),
        body,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives a claim up: nothing final came of it, and the next request under the key starts anew.
pub async fn release(db: impl PgExecutor<'_>, claim: &Claim, effect: Uuid) -> Result<()> {
    sqlx::query!(
        r#"
        delete from idempotency_keys
        where caller = $1 and route = $2 and key = $3 and effect_id = $4 and status is null
        "#,
        claim.caller,
        claim.route,
        claim.key,
        effect,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Opens a claim whose effect is still under way: the next request under the key looks at the same effect.
pub async fn unlock(db: impl PgExecutor<'_>, claim: &Claim, effect: Uuid) -> Result<()> {
    sqlx::query!(
        r#"
        update idempotency_keys set locked_until = clock_timestamp()
        where caller = $1 and route = $2 and key = $3 and effect_id = $4 and status is null
        "#,
        claim.caller,
        claim.route,
        claim.key,
        effect,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets keys from before the given time, a bounded number at once; answers how many.
pub async fn purge(db: impl PgExecutor<'_>, before: DateTime<Utc>) -> Result<u64> {
    let done = sqlx::query!(
        r#"
        delete from idempotency_keys where ctid = any (array(
            select ctid from idempotency_keys where created_at < $1 order by created_at limit 10000
        ))
        "#,
        before,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
