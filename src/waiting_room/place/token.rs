//! Queue tokens: signed claims about a place, which every instance can check without a lookup.

#![warn(clippy::arithmetic_side_effects)] // numbers and times from outside

use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::is_plausible;
use crate::ids::{ConcertId, UserId};

/// A place in a line: the revision of its first write. A lower one comes first, also across buckets, see
/// [`crate::bus::incarnation`].
pub type Place = u64;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The owner.
    #[serde(rename = "sub")]
    pub user: UserId,
    pub concert: ConcertId,
    /// The order of arrival.
    pub place: Place,
    /// When the user joined.
    pub issued_at: DateTime<Utc>,
    /// When the user was admitted. A token from before the admission lacks it, and can still be used to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<DateTime<Utc>>,
    /// The end of the session as it was known when the token was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// The bucket in which the admission was last seen. If that bucket is lost, the token proves the place but no
    /// longer the admission.
    #[serde(default)]
    pub bucket: u64,
}

impl Claims {
    /// Whether place and times are possible.
    pub(super) fn are_possible(&self) -> bool {
        let times = [Some(self.issued_at), self.activated_at, self.expires_at];
        let is_place = self.place > 0 && i64::try_from(self.place).is_ok();
        is_place && times.into_iter().flatten().all(is_plausible)
    }
}

/// Signs tokens with one secret, and accepts tokens of further secrets; the header of a token names its secret. The
/// same claims always give the same token.
pub struct Signer {
    header: Header,
    /// The encoded header with which every token begins.
    head: String,
    signing: EncodingKey,
    /// By key id; the current one first.
    checking: Vec<(String, DecodingKey)>,
    validation: Validation,
}

impl Signer {
    /// All instances share the secret.
    pub fn new(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // The gate decides whether a session is over. An expired token can still be used to ask.
        validation.validate_exp = false;
        validation.required_spec_claims.clear();
        let header = Header { kid: Some(key_id(secret)), ..Header::new(Algorithm::HS256) };
        let signing = EncodingKey::from_secret(secret);
        let empty = jsonwebtoken::encode(&header, &(), &signing).unwrap_or_default();
        let head = head(&empty).to_owned();
        let signer = Self { header, head, signing, checking: Vec::new(), validation };
        signer.accepting(secret)
    }

    /// Also accepts tokens that were signed with this secret: an earlier one, or the next.
    pub fn accepting(mut self, secret: &[u8]) -> Self {
        self.checking.push((key_id(secret), DecodingKey::from_secret(secret)));
        self
    }

    pub fn sign(&self, claims: &Claims) -> String {
        self.encode(claims)
    }

    pub(super) fn encode(&self, claims: &impl Serialize) -> String {
        match jsonwebtoken::encode(&self.header, claims, &self.signing) {
            Ok(token) => token,
            Err(error) => {
                // HMAC accepts a key of any length, and the claims are plain fields, so this cannot fail.
                tracing::error!(%error, "a queue token could not be signed");
                String::new()
            }
        }
    }

    /// The token of `latest` for a client that sent a token with the claims `read`: the same token, if nothing has
    /// changed and the current secret has signed it.
    pub fn renew(&self, sent: &str, read: &Claims, latest: &Claims) -> String {
        if latest == read && head(sent) == self.head { sent.to_owned() } else { self.sign(latest) }
    }

    /// The claims of a token with a valid signature.
    pub fn read(&self, token: &str) -> Option<Claims> {
        self.decode(token).filter(Claims::are_possible)
    }

    pub(super) fn decode<T: DeserializeOwned + Clone>(&self, token: &str) -> Option<T> {
        self.checking.iter().find_map(|(id, key)| {
            let read = jsonwebtoken::decode::<T>(token, key, &self.validation).ok()?;
            (read.header.kid.as_ref() == Some(id)).then_some(read.claims)
        })
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Signer").field("kid", &self.header.kid).finish_non_exhaustive()
    }
}

/// The part before the first dot.
fn head(token: &str) -> &str {
    token.split_once('.').map_or("", |(head, _)| head)
}

/// The id of a secret, without revealing it, so that tokens of several secrets can be distinguished.
fn key_id(secret: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"queue token key id");
    hash.update(secret);
    hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            user: crate::ids::new(),
            concert: crate::ids::new(),
            place: 12,
            issued_at: DateTime::from_timestamp(1_900_000_000, 123_456_789).unwrap(),
            activated_at: None,
            expires_at: None,
            bucket: 3,
        }
    }

    #[test]
    fn token_has_its_claims_and_is_stable() {
        let signer = Signer::new(b"a secret of thirty-two bytes ....");
        let claims = claims();
        let token = signer.sign(&claims);
        assert_eq!(signer.read(&token).as_ref(), Some(&claims));
        assert_eq!(Signer::new(b"a secret of thirty-two bytes ....").sign(&claims), token);
    }

    #[test]
    fn earlier_secret_is_accepted_until_removed() {
        let (old, new, claims) = (Signer::new(b"old"), Signer::new(b"new"), claims());
        let token = old.sign(&claims);
        assert_eq!(new.read(&token), None);
        let both = Signer::new(b"new").accepting(b"older").accepting(b"old");
        assert_eq!(both.read(&token).as_ref(), Some(&claims));
        assert_eq!(both.sign(&claims), new.sign(&claims), "only the current secret signs");
        assert_eq!(both.read(&new.sign(&claims)), Some(claims));
    }

    #[test]
    fn same_token_is_returned_until_claims_change() {
        let (old, new, claims) = (Signer::new(b"old"), Signer::new(b"new").accepting(b"old"), claims());
        let admitted = Claims { activated_at: DateTime::from_timestamp(1_900_000_060, 0), ..claims };
        let token = new.sign(&claims);
        assert_eq!(new.renew(&token, &claims, &claims), token);
        let unsigned = format!("{}.as.sent", head(&token));
        assert_eq!(new.renew(&unsigned, &claims, &claims), unsigned, "it is not signed anew");
        assert_eq!(new.renew(&token, &claims, &admitted), new.sign(&admitted));
        assert_eq!(new.renew(&old.sign(&claims), &claims, &claims), token, "the secret was exchanged");
        assert_eq!(new.renew("", &claims, &claims), token);
    }

    #[test]
    fn header_names_secret_and_algorithm() {
        let (signer, claims) = (Signer::new(b"ours"), claims());
        let signed =
            |header: Header| jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(b"ours"));
        let header = |algorithm, kid: Option<&str>| {
            signed(Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }).unwrap()
        };
        let own = key_id(b"ours");
        assert_eq!(signer.read(&header(Algorithm::HS256, Some(&own))), Some(claims.clone()));
        for (algorithm, kid) in [
            (Algorithm::HS256, None),
            (Algorithm::HS256, Some("0a0b0c0d")),
            (Algorithm::HS384, Some(own.as_str())),
            (Algorithm::HS512, Some(own.as_str())),
        ] {
            assert_eq!(signer.read(&header(algorithm, kid)), None, "{algorithm:?} {kid:?}");
        }
    }

    #[test]
    fn a_session_long_over_can_still_be_read() {
        let signer = Signer::new(b"secret");
        let over = Claims { expires_at: DateTime::from_timestamp(1_500_000_000, 0), ..claims() };
        assert_eq!(signer.read(&signer.sign(&over)), Some(over));
    }

    #[test]
    fn forged_foreign_and_unsigned_tokens_are_not_read() {
        let signer = Signer::new(b"ours");
        let claims = claims();
        let foreign = Signer::new(b"theirs").sign(&claims);
        assert_eq!(signer.read(&foreign), None);
        let ours = signer.sign(&claims);
        let (head, rest) = ours.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let other = signer.sign(&Claims { place: 1, ..claims });
        let other_body = other.split('.').nth(1).unwrap();
        assert_eq!(signer.read(&format!("{head}.{other_body}.{signature}")), None);
        // {"alg":"none"}
        assert_eq!(signer.read(&format!("eyJhbGciOiJub25lIn0.{other_body}.")), None);
        for nonsense in ["", ".", "..", "abc", "a.b.c"] {
            assert_eq!(signer.read(nonsense), None);
        }
    }

    #[test]
    fn impossible_claims_are_refused() {
        let signer = Signer::new(b"ours");
        let read = |claims: Claims| signer.read(&signer.sign(&claims));
        for place in [0, 1 << 63, u64::MAX] {
            assert_eq!(read(Claims { place, ..claims() }), None, "{place}");
        }
        for time in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::UNIX_EPOCH] {
            assert_eq!(read(Claims { issued_at: time, ..claims() }), None, "{time}");
            assert_eq!(read(Claims { expires_at: Some(time), ..claims() }), None, "{time}");
            assert_eq!(read(Claims { activated_at: Some(time), ..claims() }), None, "{time}");
        }
    }

    proptest::proptest! {
        #[test]
        fn mutated_tokens_are_not_read(at in 0usize..400, byte in proptest::prelude::any::<char>()) {
            let signer = Signer::new(b"ours");
            let token = signer.sign(&claims());
            let mut characters: Vec<char> = token.chars().collect();
            let at = at % characters.len();
            characters[at] = byte;
            let mutated: String = characters.into_iter().collect();
            let read = signer.read(&mutated);
            // The last character of a signature has unused bits.
            proptest::prop_assert!(read.is_none() || mutated == token || at + 1 == token.len());
        }
    }
}
