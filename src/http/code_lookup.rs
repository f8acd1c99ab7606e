//! Access codes: how one looks, and looking one up for a buyer.

use sha2::{Digest, Sha256};
use sqlx::PgPool;
use uuid::Uuid;

use super::error::Code;
use super::problem::{Problem, Result};
use super::rate_limit::RateLimit;
use crate::ids::{ConcertId, UserId};
use crate::store;

/// How often one user may send a code within a minute to one instance, right or wrong.
const TRIES_PER_MINUTE: u32 = 20;
/// The characters of a code, without those that are easily mistaken for others (Crockford).
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Characters of a code: 80 random bits.
const CODE_CHARS: usize = 16;

/// A new code, in groups of four.
pub fn generate() -> String {
    let characters: Vec<char> = rand::random::<[u8; CODE_CHARS]>()
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
        .collect();
    let groups: Vec<String> = characters.chunks(4).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

/// The hash of a code as a buyer types it: case, spaces and hyphens do not count, and similar letters stand for each other.
pub fn hash(code: &str) -> Vec<u8> {
    let typed = code.chars().filter(|letter| !letter.is_whitespace() && *letter != '-');
    let read: String = typed
        .map(|letter| match letter.to_ascii_uppercase() {
            'O' => '0',
            'I' | 'L' => '1',
            other => other,
        })
        .collect();
    Sha256::digest(read).to_vec()
}

/// Looks codes up for buyers, each of whom may do so a limited number of times.
pub struct CodeLookup {
    pool: PgPool,
    tries: RateLimit<UserId>,
}

impl CodeLookup {
    pub fn new(pool: PgPool) -> Self {
        Self { pool, tries: RateLimit::per_minute(TRIES_PER_MINUTE) }
    }

    /// The id of a code that a user sent.
    pub async fn find(&self, user: UserId, concert: ConcertId, code: &str) -> Result<Uuid> {
        self.tries.check(&user).map_err(|refused| {
            let detail = format!(
                "A user may send an access code {TRIES_PER_MINUTE} times a minute. Wait, and try again."
            );
            Problem::new(Code::RateLimited, detail).with("limit", TRIES_PER_MINUTE).after(refused.wait)
        })?;
        let found = store::access_codes::find(&self.pool, concert, &hash(code)).await?;
        found.ok_or_else(|| Problem::new(Code::AccessCodeInvalid, "This concert has no such access code."))
    }

    pub fn remove_idle(&self) {
        self.tries.remove_idle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = generate();
        assert_eq!(code.len(), CODE_CHARS + 3);
        assert_ne!(code, generate());
        assert_eq!(hash(&code), hash(&code.to_lowercase().replace('-', " ")));
        assert_eq!(hash("OIL0-1"), hash("0110-1"));
        assert_ne!(hash("0123"), hash("0124"));
    }
}
