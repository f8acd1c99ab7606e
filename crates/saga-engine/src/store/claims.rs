//! Idempotency keys that are claimed by the statement that begins what is asked for under them.
//!
//! Such a claim costs no statement and no commit of its own. If one of a batch is taken already the whole statement fails; the batch is
//! then done again without the requests that lost their keys. That is rare: a request is sent again only if its answer was lost.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use sqlx::PgExecutor;
use uuid::Uuid;

use super::Result;
use super::idempotency::{self, Asked, Claim, End, Ended};
use super::write_batch::{Part, WriteBatch};

const CLAIM_KEYS: Part = Part::new("claimed_keys", include_str!("../../sql/claim_keys.sql"));
const _: () = {
    fn _checked(texts: &[String], effects: &[Uuid], fingerprints: &[Vec<u8>], began: &[bool]) {
        drop(sqlx::query_file!("sql/claim_keys.sql", texts, texts, texts, effects, fingerprints, began));
    }
};

/// A key that is to be claimed with the effect of its request, and whether it was.
#[derive(Debug)]
pub struct Key {
    pub asked: Asked,
    is_claimed: OnceLock<bool>,
}

impl Key {
    /// A key that no statement has claimed yet.
    pub fn new(asked: Asked) -> Self {
        Self { asked, is_claimed: OnceLock::new() }
    }

    /// The statement that was to claim it has ended.
    pub fn decide(&self, is_claimed: bool) {
        // The first statement decides: no request begins two effects.
        let _decided = self.is_claimed.set(is_claimed);
    }

    /// Whether this request has the key; none while that is not known.
    pub fn is_claimed(&self) -> Option<bool> {
        self.is_claimed.get().copied()
    }
}

/// How the requests of a batch stand to their keys.
#[derive(Debug)]
pub struct Claims<'a> {
    keys: Vec<Option<&'a Asked>>,
    states: Vec<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has no key, or has claimed it in an earlier attempt.
    Settled,
    Wanted,
    Taken,
}

impl<'a> Claims<'a> {
    /// The keys of a batch, in its order. Of several requests under one key the first may have it.
    pub fn of(keys: impl Iterator<Item = Option<&'a Asked>>) -> Self {
        let (mut seen, keys) = (BTreeSet::new(), keys.collect::<Vec<_>>());
        let states = keys.iter().map(|key| match key {
            None => State::Settled,
            Some(asked) if seen.insert(asked.claim.name()) => State::Wanted,
            Some(_) => State::Taken,
        });
        Self { states: states.collect(), keys }
    }

    /// Whether another request has the key of this one.
    pub fn is_taken(&self, at: usize) -> bool {
        self.states[at] == State::Taken
    }

    /// Adds the claims to the statement that begins what was asked for. `began` says so of each request of the batch. They are
    /// written after all else, in the order of the keys, so that no two statements wait for each other in a circle.
    pub fn add_to(&self, changes: &mut WriteBatch, began: impl Fn(usize) -> bool) {
        let mut wanted: Vec<(&Asked, bool)> = self.wanted().map(|(at, asked)| (asked, began(at))).collect();
        if wanted.is_empty() {
            return;
        }
        wanted.sort_by(|(one, _), (other, _)| one.claim.name().cmp(&other.claim.name()));
        let texts = |part: fn(&Asked) -> &String| -> Vec<String> {
            wanted.iter().map(|(asked, _)| part(asked).clone()).collect()
        };
        let fingerprints: Vec<Vec<u8>> =
            wanted.iter().map(|(asked, _)| asked.claim.fingerprint.clone()).collect();
        let effects: Vec<Uuid> = wanted.iter().map(|(asked, _)| asked.fresh).collect();
        let began: Vec<bool> = wanted.iter().map(|(_, began)| *began).collect();
        changes
            .add(CLAIM_KEYS)
            .bind(texts(|asked| &asked.claim.caller))
            .bind(texts(|asked| &asked.claim.route))
            .bind(texts(|asked| &asked.claim.key))
            .bind(effects)
            .bind(fingerprints)
            .bind(began);
    }

    /// After a statement failed because a key was taken: finds out whose. Says whether the batch can be done again.
    pub async fn look(&mut self, db: impl PgExecutor<'_>) -> Result<bool> {
        let wanted: Vec<(usize, &Asked)> = self.wanted().collect();
        let claims: Vec<&Claim> = wanted.iter().map(|(_, asked)| &*asked.claim).collect();
        let known = idempotency::find(db, &claims).await?;
        let mut has_changed = false;
        for ((at, asked), known) in wanted.into_iter().zip(known) {
            let state = match known {
                None => continue,
                // The earlier attempt was committed and its answer lost.
                Some(known) if known.effect_id == asked.fresh => State::Settled,
                Some(_) => State::Taken,
            };
            (self.states[at], has_changed) = (state, true);
        }
        Ok(has_changed)
    }

    fn wanted(&self) -> impl Iterator<Item = (usize, &'a Asked)> {
        let pairs = self.states.iter().zip(&self.keys).enumerate();
        pairs.filter_map(|(at, (state, key))| Some((at, (*key)?)).filter(|_| *state == State::Wanted))
    }
}

/// Whether a statement failed because a key that it was to claim is taken.
pub fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some("idempotency_keys_pkey")
}

/// Claims a key for a request that is over: with its answer, or open if the answer is not final. False if the key is taken, which is known
/// only once the request that takes it has committed.
pub async fn claim_ended(db: impl PgExecutor<'_>, ended: &Ended, began: bool) -> Result<bool> {
    let Ended { claim, effect, end } = ended;
    let (status, body) = match end {
        End::Save(status, body) => (Some(i16::try_from(*status).unwrap_or(i16::MAX)), Some(body)),
        End::Unlock | End::Release => (None, None),
    };
    let done = sqlx::query!(
        r#"
        insert into idempotency_keys
            (caller, route, key, effect_id, fingerprint, began, locked_until, status, body, created_at)
        values ($1, $2, $3, $4, $5, $6, clock_timestamp(), $7, $8, clock_timestamp())
        on conflict do nothing
        "#,
        claim.caller,
        claim.route,
        claim.key,
        effect,
        claim.fingerprint,
        began,
        status,
        body,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
