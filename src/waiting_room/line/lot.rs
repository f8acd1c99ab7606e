//! The lot that orders those who came before an opening, so that nobody gains by being first at the door.
//!
//! Each opening has a seed of 32 bytes. Its SHA-256 is public long before, the seed itself from the opening on, so
//! that nobody can choose it once it is known who came. A user's number is HMAC-SHA256 with the seed as the key over the
//! 16 bytes of the user's id; those present at the opening stand in the order of their numbers, read as bytes. Whoever
//! comes later stands behind them, in order of arrival.

use chrono::{DateTime, TimeDelta, Utc};
use hmac::digest::Key;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::clock::plus;
use crate::ids::UserId;

/// How long after an opening joins from before it may be on their way. Until then nobody is told a rank or admitted.
pub const SETTLING: TimeDelta = TimeDelta::milliseconds(300);

/// The first eight bytes of a user's number decide; equal ones, which hardly ever happen, stand in order of arrival.
pub type Number = u64;

/// The draw of one opening.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Lot {
    /// Who took a place before this is drawn.
    pub opens_at: DateTime<Utc>,
    seed: [u8; 32],
}

/// What everybody may know of a draw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Draw {
    /// SHA-256 of the seed, in hex.
    pub seed_hash: String,
    /// The seed, in hex; null until the sale has opened.
    pub seed: Option<String>,
}

/// The lot, ready to give numbers.
#[derive(Clone)]
pub struct Drum(Hmac<Sha256>);

impl Lot {
    /// The lot of an opening, from the concert's secret. The seed of an opening that follows from the dates is another one
    /// for each opening; an opening that was set keeps its seed when it is moved, see `store::queue::change`.
    pub fn new(secret: &[u8], opens_at: DateTime<Utc>, is_set: bool) -> Self {
        let label = if is_set { 0 } else { opens_at.timestamp_millis() };
        let seed = keyed(secret).chain_update(label.to_be_bytes()).finalize().into_bytes().into();
        Self { opens_at, seed }
    }

    /// Whether a place taken then is drawn.
    pub fn is_early(&self, issued_at: DateTime<Utc>) -> bool {
        issued_at < self.opens_at
    }

    /// Whether the draw has been made: the sale is open, and whoever came before is known.
    pub fn is_drawn(&self, now: DateTime<Utc>) -> bool {
        self.draws_at() <= now
    }

    /// When the draw is made.
    pub fn draws_at(&self) -> DateTime<Utc> {
        plus(self.opens_at, SETTLING)
    }

    /// Ready to give numbers.
    pub fn drum(&self) -> Drum {
        Drum(keyed(&self.seed))
    }

    /// What everybody may know of it.
    pub fn shown(&self, now: DateTime<Utc>) -> Draw {
        let seed = self.is_drawn(now).then(|| hex(&self.seed));
        Draw { seed_hash: hex(&Sha256::digest(self.seed)), seed }
    }
}

impl Drum {
    /// A user's number: the lowest is the first.
    pub fn number(&self, user: UserId) -> Number {
        let number: [u8; 32] = self.0.clone().chain_update(user.as_bytes()).finalize().into_bytes().into();
        number.first_chunk().map_or(0, |first| Number::from_be_bytes(*first))
    }
}

impl std::fmt::Debug for Lot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Lot").field("opens_at", &self.opens_at).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Drum {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Drum").finish_non_exhaustive()
    }
}

/// HMAC fills a short key up with zeros to a whole block: this is the key as it would make it.
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

    /// Worked out by another program.
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
    fn anybody_can_work_the_draw_out() {
        let lot = Lot::new(&secret(), at(0), true);
        assert_eq!(hex(&lot.seed), SEED);
        let drum = lot.drum();
        for (user, number) in NUMBERS {
            assert_eq!(drum.number(UserId::from_u128(user)), number);
        }
        let another_program = Hmac::<Sha256>::new_from_slice(&lot.seed).unwrap();
        let user = UserId::from_u128(7);
        let whole = another_program.chain_update(user.as_bytes()).finalize().into_bytes();
        assert_eq!(drum.number(user).to_be_bytes(), whole[..8]);
    }

    #[test]
    fn the_hash_is_public_before_and_the_seed_from_the_opening_on() {
        let lot = Lot::new(&secret(), at(0), true);
        let before = Draw { seed_hash: SEED_HASH.to_owned(), seed: None };
        assert_eq!(lot.shown(at(299)), before);
        assert_eq!(lot.shown(at(300)), Draw { seed: Some(SEED.to_owned()), ..before });
        assert!(lot.is_early(at(-1)) && !lot.is_early(at(0)));
        assert!(!format!("{lot:?}").contains(&SEED[..8]));
    }

    #[test]
    fn an_opening_that_is_set_keeps_its_seed_when_it_is_moved_and_each_other_one_has_its_own() {
        let shown = |opens_at, is_set| Lot::new(&secret(), opens_at, is_set).shown(at(90_000)).seed;
        assert_eq!(shown(at(5_000), true).as_deref(), Some(SEED));
        assert_eq!(shown(at(0), false).as_deref(), Some(OTHER_SEED));
        assert_ne!(shown(at(5_000), false).as_deref(), Some(OTHER_SEED));
    }
}
