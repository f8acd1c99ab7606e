//! API keys: how one looks, and looking one up.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::future::Cache;
use sha2::{Digest, Sha256};
use sqlx::PgPool;

use super::super::problem::Problem;
use super::unauthenticated;
use crate::store::api_keys::{self, ApiKey};

/// What every key begins with, so that one is known for what it is where it should not be.
pub const KEY_PREFIX: &str = "bo_";

/// How long a look-up is remembered: a revoked key works at most so much longer.
const LOOK_UP_AGE: Duration = Duration::from_secs(1);

type Hash = [u8; 32];

/// A key that was just made: shown once, stored as its hash.
pub struct NewKey {
    /// What its holder sends.
    pub secret: String,
    /// What is stored.
    pub hash: Hash,
}

impl NewKey {
    /// Makes a key of 256 random bits.
    pub fn generate() -> Self {
        let secret = format!("{KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        let hash = hash(&secret);
        Self { secret, hash }
    }
}

/// Keys by their hash, remembered for a second. Clones share their memory.
#[derive(Clone)]
pub struct Keys {
    pool: PgPool,
    known: Cache<Hash, Option<Arc<ApiKey>>>,
}

impl Keys {
    /// Looks keys up in the database.
    pub fn new(pool: PgPool) -> Self {
        let known = Cache::builder().max_capacity(10_000).time_to_live(LOOK_UP_AGE).build();
        Self { pool, known }
    }

    /// The key that was sent, or 401 if it is none of ours or has been revoked.
    pub(super) async fn look_up(&self, sent: &str) -> Result<ApiKey, Problem> {
        if !sent.starts_with(KEY_PREFIX) {
            return Err(unauthenticated("This takes an API key, which begins with `bo_`."));
        }
        let hash = hash(sent);
        let load = async { Ok::<_, sqlx::Error>(api_keys::by_hash(&self.pool, &hash).await?.map(Arc::new)) };
        let found = self.known.try_get_with(hash, load).await.map_err(|error| Problem::from(&*error))?;
        let key = found.ok_or_else(|| unauthenticated("This API key is unknown or was revoked."))?;
        Ok(ApiKey::clone(&key))
    }
}

fn hash(secret: &str) -> Hash {
    Sha256::digest(secret.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_and_all_different() {
        let (one, other) = (NewKey::generate(), NewKey::generate());
        assert_eq!(one.secret.len(), 3 + 43);
        assert_ne!(one.secret, other.secret);
        assert_eq!(one.hash, hash(&one.secret));
    }
}
