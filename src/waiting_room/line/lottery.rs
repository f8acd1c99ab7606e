//! The lottery that orders the users who joined before an opening, so that being first brings no advantage.
//!
//! Each opening has a seed of 32 bytes. Its SHA-256 is public long before, and the seed from the opening on, so that
//! it cannot be chosen once the users are known. A user's number is HMAC-SHA256 over the 16 bytes of the user's id,
//! with the seed as the key. The users of the lottery are ordered by their numbers, read as bytes. Users who join
//! later stand behind them, in order of arrival.

use chrono::{DateTime, TimeDelta, Utc};
use hmac::digest::Key;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::clock::plus;
use crate::ids::UserId;

/// How long after the opening earlier joins may still arrive. Until then no rank is shown and no user is admitted.
pub const SETTLING: TimeDelta = TimeDelta::milliseconds(300);

/// The first eight bytes of a user's number. Equal numbers are extremely rare; their users stand in order of arrival.
pub type Number = u64;

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lottery {
    /// Users who joined before this time take part.
    pub opens_at: DateTime<Utc>,
    seed: [u8; 32],
}

/// The public data of a lottery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Draw {
    /// SHA-256 of the seed, in hex.
    pub seed_hash: String,
    /// The seed, in hex; null until the sale has opened.
    pub seed: Option<String>,
}

/// The keyed hash that gives the numbers.
#[derive(Clone)]
pub struct LotteryKey(Hmac<Sha256>);

impl Lottery {
    /// The lottery of an opening, from the concert's secret. An opening that follows from the dates has a seed of its
    /// own; an opening that was set keeps its seed when it is moved, see `store::queue::change`.
    pub fn new(secret: &[u8], opens_at: DateTime<Utc>, is_set: bool) -> Self {
        let label = if is_set { 0 } else { opens_at.timestamp_millis() };
        let seed = keyed(secret).chain_update(label.to_be_bytes()).finalize().into_bytes().into();
        Self { opens_at, seed }
    }

    pub fn is_early(&self, issued_at: DateTime<Utc>) -> bool {
        issued_at < self.opens_at
    }

    /// Whether the lottery is drawn at this time: the sale is open, and the users who joined before are known.
    pub fn is_drawn(&self, now: DateTime<Utc>) -> bool {
        self.draws_at() <= now
    }

    pub fn draws_at(&self) -> DateTime<Utc> {
        plus(self.opens_at, SETTLING)
    }

    pub fn key(&self) -> LotteryKey {
        LotteryKey(keyed(&self.seed))
    }

    pub fn shown(&self, now: DateTime<Utc>) -> Draw {
        let seed = self.is_drawn(now).then(|| hex(&self.seed));
        Draw { seed_hash: hex(&Sha256::digest(self.seed)), seed }
    }
}

impl LotteryKey {
    /// The user with the lowest number is first.
    pub fn number(&self, user: UserId) -> Number {
        let number: [u8; 32] = self.0.clone().chain_update(user.as_bytes()).finalize().into_bytes().into();
        number.first_chunk().map_or(0, |first| Number::from_be_bytes(*first))
    }
}

impl std::fmt::Debug for Lottery {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Lottery").field("opens_at", &self.opens_at).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for LotteryKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LotteryKey").finish_non_exhaustive()
    }
}

/// HMAC pads a short key with zeros to a whole block. This is the padded key.
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = Key::<Hmac<Sha256>>::default();
    block.iter_mut().zip(key).for_each(|(into, byte)| *into = *byte);
    Hmac::new(&block)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed by another program.
    const SEED: &str = "9f0cd9b94097fe4929918d2b8942b34439574261a35dc50163f06c67d4e48899";
    const SEED_HASH: &str = "7f353ae0fe3bc2c607e0bbfcbd58258e684c449d16e40756bbc2fad9c611fa76";
    const OTHER_SEED: &str = "b247a74ce6705a8a51067e9fd7d41814a30794f95b65365952eac33ab65a1aa5";
    const NUMBERS: [(u128, Number); 4] = [
        (1, 0x6d06_fe1b_2034_e868),
        (2, 0xc9c1_a761_fb9f_60fe),
        (3, 0x8629_8e58_52f8_b0e0),
        (0x0198_c0de_0000_7000_8000_0000_0000_0001, 0x7613_a48d_ddae_7693),
    ];

    fn secret() -> Vec<u8> {
        (0..32).collect()
    }

    fn at(milliseconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_900_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn lottery_can_be_verified_independently() {
        let lottery = Lottery::new(&secret(), at(0), true);
        assert_eq!(hex(&lottery.seed), SEED);
        let key = lottery.key();
        for (user, number) in NUMBERS {
            assert_eq!(key.number(UserId::from_u128(user)), number);
        }
        let another_program = Hmac::<Sha256>::new_from_slice(&lottery.seed).unwrap();
        let user = UserId::from_u128(7);
        let whole = another_program.chain_update(user.as_bytes()).finalize().into_bytes();
        assert_eq!(key.number(user).to_be_bytes(), whole[..8]);
    }

    #[test]
    fn seed_hash_is_public_before_the_seed() {
        let lottery = Lottery::new(&secret(), at(0), true);
        let before = Draw { seed_hash: SEED_HASH.to_owned(), seed: None };
        assert_eq!(lottery.shown(at(299)), before);
        assert_eq!(lottery.shown(at(300)), Draw { seed: Some(SEED.to_owned()), ..before });
        assert!(lottery.is_early(at(-1)) && !lottery.is_early(at(0)));
        assert!(!format!("{lottery:?}").contains(&SEED[..8]));
    }

    #[test]
    fn moved_opening_keeps_its_seed() {
        let shown = |opens_at, is_set| Lottery::new(&secret(), opens_at, is_set).shown(at(90_000)).seed;
        assert_eq!(shown(at(5_000), true).as_deref(), Some(SEED));
        assert_eq!(shown(at(0), false).as_deref(), Some(OTHER_SEED));
        assert_ne!(shown(at(5_000), false).as_deref(), Some(OTHER_SEED));
    }
}
