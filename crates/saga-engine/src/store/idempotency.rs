//! What callers asked for under an `Idempotency-Key`, and the final answers.
//!
//! A row carries the id that the request's effect has, so that the effect is fenced by its own primary key, also when the process dies
//! between effect and answer. What is here claims a key before anything is done; [`super::claims`] claims it with the effect.
//!
//! Claims and ends come many at once. They are written in the order of their keys, so that two instances never wait for
//! each other in a circle.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;

/// Under which key a request came: the key belongs to caller, method and path together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    pub caller: String,
    /// Method and path, such as `POST /v1/sagas`.
    pub route: String,
    pub key: String,
    /// Hash of the body.
    pub fingerprint: Vec<u8>,
}

impl Claim {
    /// What one key is known by.
    pub fn name(&self) -> (&str, &str, &str) {
        (&self.caller, &self.route, &self.key)
    }
}

/// A request that wants its key.
#[derive(Clone, Debug)]
pub struct Asked {
    pub claim: Arc<Claim>,
    /// The id of the effect if the key is new; no other request has it.
    pub fresh: Uuid,
}

/// A claim whose work is over.
#[derive(Clone, Debug)]
pub struct Ended {
    pub claim: Arc<Claim>,
    /// The effect that it was held with.
    pub effect: Uuid,
    pub end: End,
}

/// What becomes of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum End {
    /// Status and body are the final answer.
    Save(u16, Value),
    /// The effect is still under way: the next request under the key looks at the same effect.
    Unlock,
    /// Nothing final came of it: the next request under the key starts anew.
    Release,
}

impl End {
    fn answer(&self) -> Option<(i16, &Value)> {
        match self {
            Self::Save(status, body) => Some((i16::try_from(*status).unwrap_or(i16::MAX), body)),
            Self::Unlock | Self::Release => None,
        }
    }
}

/// What is known under a key.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    pub fingerprint: Vec<u8>,
    pub effect_id: Uuid,
    /// Whether the request that claimed the key began what its answer is about.
    pub began: bool,
    /// Whether that request may still be at work, by the database's clock.
    pub is_locked: bool,
    pub status: Option<i16>,
    pub body: Option<Value>,
}

/// Claims keys for five seconds by the database's clock, and answers for each, in order, the id that the effect must
/// have: `fresh` for a new key, the earlier one for a claim that was left without an answer. None if the key has an
/// answer, belongs to another body, or is being worked on: see [`find`]. Of several requests under one key one
/// gets it. A second call with the same `fresh` keeps its claim.
pub async fn claim(db: impl PgExecutor<'_>, asked: &[Asked]) -> Result<Vec<Option<Uuid>>> {
    let mut sorted: Vec<&Asked> = asked.iter().collect();
    sorted.sort_by(|one, other| one.claim.cmp(&other.claim));
    let callers: Vec<&str> = sorted.iter().map(|one| one.claim.caller.as_str()).collect();
    let routes: Vec<&str> = sorted.iter().map(|one| one.claim.route.as_str()).collect();
    let keys: Vec<&str> = sorted.iter().map(|one| one.claim.key.as_str()).collect();
    let fresh: Vec<Uuid> = sorted.iter().map(|one| one.fresh).collect();
    let fingerprints: Vec<&[u8]> = sorted.iter().map(|one| one.claim.fingerprint.as_slice()).collect();
    // The statement does not wait for an existing row: another request is at work under its key.
    let rows = sqlx::query!(
        r#"
        with asked as (
            select caller, route, key, fresh, fingerprint from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::bytea[])
                as asked (caller, route, key, fresh, fingerprint)
        ), claimed as (
            insert into idempotency_keys (caller, route, key, effect_id, fingerprint, locked_until, created_at)
            select caller, route, key, fresh, fingerprint, clock_timestamp() + interval '5 seconds', clock_timestamp()
            from asked
            where not exists (
                select from idempotency_keys k
                where (k.caller, k.route, k.key) = (asked.caller, asked.route, asked.key)
            )
            on conflict do nothing
            returning effect_id
        ), left_behind as (
            select k.caller, k.route, k.key, asked.fresh
            from asked join idempotency_keys k using (caller, route, key)
            where asked.fresh not in (select effect_id from claimed)
                and k.status is null and k.fingerprint = asked.fingerprint
                and (k.locked_until <= clock_timestamp() or k.effect_id = asked.fresh)
            for update of k skip locked
        ), taken_over as (
            update idempotency_keys k set locked_until = clock_timestamp() + interval '5 seconds'
            from left_behind l where (k.caller, k.route, k.key) = (l.caller, l.route, l.key)
            returning l.fresh, k.effect_id
        )
        select effect_id as "fresh!", effect_id as "effect!" from claimed
        union all
        select fresh, effect_id from taken_over
        "#,
        &callers as &[&str],
        &routes as &[&str],
        &keys as &[&str],
        &fresh,
        &fingerprints as &[&[u8]],
    )
    .fetch_all(db)
    .await?;
    let effects: HashMap<Uuid, Uuid> = rows.into_iter().map(|row| (row.fresh, row.effect)).collect();
    Ok(asked.iter().map(|one| effects.get(&one.fresh).copied()).collect())
}

/// What is known under each of these keys, if anything.
pub async fn find(db: impl PgExecutor<'_>, claims: &[&Claim]) -> Result<Vec<Option<Known>>> {
    let callers: Vec<&str> = claims.iter().map(|claim| claim.caller.as_str()).collect();
    let routes: Vec<&str> = claims.iter().map(|claim| claim.route.as_str()).collect();
    let keys: Vec<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
    let rows = sqlx::query!(
        r#"
        select k.fingerprint as "fingerprint?", k.effect_id as "effect_id?", k.began as "began?",
            k.locked_until > clock_timestamp() as is_locked, k.status as "status?", k.body as "body?"
        from unnest($1::text[], $2::text[], $3::text[]) with ordinality as asked (caller, route, key, at)
        left join idempotency_keys k using (caller, route, key)
        order by asked.at
        "#,
        &callers as &[&str],
        &routes as &[&str],
        &keys as &[&str],
    )
    .fetch_all(db)
    .await?;
    let known = rows.into_iter().map(|row| {
        Some(Known {
            fingerprint: row.fingerprint?,
            effect_id: row.effect_id?,
            began: row.began?,
            is_locked: row.is_locked?,
            status: row.status,
            body: row.body,
        })
    });
    Ok(known.collect())
}

/// Ends claims that are still held with their effects and have no answer yet; nothing happens to others. Where several
/// ended the same one, an answer counts before none.
pub async fn end(db: impl PgExecutor<'_>, ended: &[Ended]) -> Result<()> {
    let mut sorted: Vec<&Ended> = ended.iter().collect();
    sorted.sort_by(|one, other| {
        let order = |ended: &Ended| (ended.effect, ended.end == End::Release, ended.end == End::Unlock);
        (&one.claim, order(one)).cmp(&(&other.claim, order(other)))
    });
    sorted.dedup_by(|later, first| (&later.claim, later.effect) == (&first.claim, first.effect));
    let callers: Vec<&str> = sorted.iter().map(|one| one.claim.caller.as_str()).collect();
    let routes: Vec<&str> = sorted.iter().map(|one| one.claim.route.as_str()).collect();
    let keys: Vec<&str> = sorted.iter().map(|one| one.claim.key.as_str()).collect();
    let effects: Vec<Uuid> = sorted.iter().map(|one| one.effect).collect();
    let answers = || sorted.iter().map(|one| one.end.answer());
    let statuses: Vec<Option<i16>> = answers().map(|answer| Some(answer?.0)).collect();
    let bodies: Vec<Option<&Value>> = answers().map(|answer| Some(answer?.1)).collect();
    let released: Vec<bool> = sorted.iter().map(|one| one.end == End::Release).collect();
    sqlx::query!(
        r#"
        with ended as (
            select caller, route, key, effect_id, status, body, released
            from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::smallint[], $6::jsonb[], $7::bool[])
                as ended (caller, route, key, effect_id, status, body, released)
        ), released as (
            delete from idempotency_keys k using ended e
            where e.released and k.status is null
                and (k.caller, k.route, k.key, k.effect_id) = (e.caller, e.route, e.key, e.effect_id)
        )
        update idempotency_keys k set status = e.status, body = e.body,
            locked_until = case when e.status is null then clock_timestamp() else k.locked_until end
        from ended e
        where not e.released and k.status is null
            and (k.caller, k.route, k.key, k.effect_id) = (e.caller, e.route, e.key, e.effect_id)
        "#,
        &callers as &[&str],
        &routes as &[&str],
        &keys as &[&str],
        &effects,
        &statuses as &[Option<i16>],
        &bodies as &[Option<&Value>],
        &released,
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
