//! Ticket codes: what a ticket's QR code shows. A code is derived from its ticket and signed with Ed25519, so it is stored
//! nowhere, and a scanner that has the public keys can check it without a connection.
//!
//! A code is the base64url of 105 bytes: the version (1 byte), the id of the key (4), the ids of the ticket and of the
//! performance (16 each), the number of the seat (4, the highest byte first), and the signature of these 41 bytes (64).
//! `docs/gate.md` describes it for those who write scanners.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

/// The first byte of every code.
const VERSION: u8 = 1;
const KEY_ID_BYTES: usize = 4;
/// What is signed.
const SIGNED_BYTES: usize = 1 + KEY_ID_BYTES + 16 + 16 + 4;
/// All of a code.
const CODE_BYTES: usize = SIGNED_BYTES + 64;
/// Characters of a code. 105 bytes need no padding.
pub const CODE_CHARS: usize = CODE_BYTES / 3 * 4;
/// Separates the key's seed from other uses of the same secret.
const SEED_CONTEXT: &[u8] = b"boxoffice ticket codes 1\0";

type KeyId = [u8; KEY_ID_BYTES];

/// What a code says about its ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedTicket {
    pub ticket_id: Uuid,
    pub performance_id: Uuid,
    pub seat: i32,
}

/// A public key that codes can be checked with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PublicTicketKey {
    /// The second to fifth byte of the codes under this key, in hexadecimal digits.
    #[schema(example = "5f0a3b1c")]
    pub id: String,
    /// `Ed25519`.
    pub algorithm: String,
    /// The 32 bytes of the key in base64url.
    pub key: String,
    /// Whether new codes are signed with this key.
    pub is_current: bool,
}

/// A further public key that is none.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not the public key of ticket codes: 32 bytes in base64url, as GET /v1/tickets/keys shows them"
)]
pub struct InvalidPublicKey(String);

/// The key that signs codes, and the public keys that count. Clones share them.
#[derive(Clone)]
pub struct TicketKeys(Arc<Keys>);

struct Keys {
    signing: SigningKey,
    /// The current one first.
    accepted: Vec<(KeyId, VerifyingKey)>,
}

impl TicketKeys {
    /// Signs with the key that is derived from the secret. Codes under the further public keys count too.
    pub fn new<'a>(
        secret: &str,
        further: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidPublicKey> {
        let seed = Sha256::new().chain_update(SEED_CONTEXT).chain_update(secret.as_bytes()).finalize();
        let signing = SigningKey::from_bytes(&seed.into());
        let mut accepted = vec![(key_id(&signing.verifying_key()), signing.verifying_key())];
        for text in further {
            let key = public_key(text).ok_or_else(|| InvalidPublicKey(text.to_owned()))?;
            if !accepted.iter().any(|(_, known)| *known == key) {
                accepted.push((key_id(&key), key));
            }
        }
        Ok(Self(Arc::new(Keys { signing, accepted })))
    }

    /// The code of a ticket, always the same under one key.
    pub fn code(&self, ticket: SignedTicket) -> String {
        let mut code = [0; CODE_BYTES];
        code[..SIGNED_BYTES].copy_from_slice(&signed_bytes(self.0.accepted[0].0, ticket));
        let signature = self.0.signing.sign(&code[..SIGNED_BYTES]);
        code[SIGNED_BYTES..].copy_from_slice(&signature.to_bytes());
        URL_SAFE_NO_PAD.encode(code)
    }

    /// What a code says, if it was signed with one of the keys.
    pub fn read(&self, code: &str) -> Option<SignedTicket> {
        let bytes: [u8; CODE_BYTES] = URL_SAFE_NO_PAD.decode(code).ok()?.try_into().ok()?;
        let (signed, signature) = bytes.split_at(SIGNED_BYTES);
        if signed[0] != VERSION {
            return None;
        }
        let (key, facts) = signed[1..].split_at(KEY_ID_BYTES);
        let signature = Signature::from_slice(signature).ok()?;
        let mut keys = self.0.accepted.iter().filter(|(id, _)| id == key);
        keys.find(|(_, key)| key.verify_strict(signed, &signature).is_ok())?;
        Some(SignedTicket {
            ticket_id: Uuid::from_slice(&facts[..16]).ok()?,
            performance_id: Uuid::from_slice(&facts[16..32]).ok()?,
            seat: i32::from_be_bytes(facts[32..].try_into().ok()?),
        })
    }

    /// The public keys, the one that signs first.
    pub fn public(&self) -> Vec<PublicTicketKey> {
        let shown = |(at, (id, key)): (usize, &(KeyId, VerifyingKey))| PublicTicketKey {
            id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            algorithm: "Ed25519".to_owned(),
            key: URL_SAFE_NO_PAD.encode(key.as_bytes()),
            is_current: at == 0,
        };
        self.0.accepted.iter().enumerate().map(shown).collect()
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("TicketKeys").field(&self.public()).finish()
    }
}

fn signed_bytes(key: KeyId, ticket: SignedTicket) -> [u8; SIGNED_BYTES] {
    let mut bytes = [0; SIGNED_BYTES];
    bytes[0] = VERSION;
    bytes[1..5].copy_from_slice(&key);
    bytes[5..21].copy_from_slice(ticket.ticket_id.as_bytes());
    bytes[21..37].copy_from_slice(ticket.performance_id.as_bytes());
    bytes[37..].copy_from_slice(&ticket.seat.to_be_bytes());
    bytes
}

fn key_id(key: &VerifyingKey) -> KeyId {
    let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
    [hash[0], hash[1], hash[2], hash[3]]
}

fn public_key(text: &str) -> Option<VerifyingKey> {
    let bytes: [u8; 32] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    // A weak key has signatures that fit many messages.
    VerifyingKey::from_bytes(&bytes).ok().filter(|key| !key.is_weak())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "a secret of the tests, long enough for anybody";

    fn ticket() -> SignedTicket {
        SignedTicket { ticket_id: Uuid::from_u128(7), performance_id: Uuid::from_u128(8), seat: 70_000 }
    }

    fn keys(secret: &str, further: &[&str]) -> TicketKeys {
        TicketKeys::new(secret, further.iter().copied()).unwrap()
    }

    #[test]
    fn code_is_stable_and_says_its_ticket() {
        let code = keys(SECRET, &[]).code(ticket());
        assert_eq!(code.len(), CODE_CHARS);
        assert_eq!(code, keys(SECRET, &[]).code(ticket()));
        assert_eq!(keys(SECRET, &[]).read(&code), Some(ticket()));
    }

    /// What `docs/gate.md` says about the layout, followed with nothing but the public key.
    #[test]
    fn code_can_be_checked_by_its_published_layout() {
        let keys = keys(SECRET, &[]);
        let public = keys.public().remove(0);
        let bytes = URL_SAFE_NO_PAD.decode(keys.code(ticket())).unwrap();
        assert_eq!((bytes.len(), bytes[0]), (105, 1));
        assert_eq!(bytes[1..5].iter().map(|byte| format!("{byte:02x}")).collect::<String>(), public.id);
        assert_eq!(bytes[5..21], *Uuid::from_u128(7).as_bytes());
        assert_eq!(bytes[21..37], *Uuid::from_u128(8).as_bytes());
        assert_eq!(bytes[37..41], [0, 1, 0x11, 0x70]);
        let key: [u8; 32] = URL_SAFE_NO_PAD.decode(public.key).unwrap().try_into().unwrap();
        let signature = Signature::from_slice(&bytes[41..]).unwrap();
        VerifyingKey::from_bytes(&key).unwrap().verify_strict(&bytes[..41], &signature).unwrap();
    }

    #[test]
    fn any_changed_byte_is_a_forgery() {
        let keys = keys(SECRET, &[]);
        let good = URL_SAFE_NO_PAD.decode(keys.code(ticket())).unwrap();
        for at in 0..CODE_BYTES {
            let mut forged = good.clone();
            forged[at] ^= 1;
            assert_eq!(keys.read(&URL_SAFE_NO_PAD.encode(&forged)), None, "byte {at}");
        }
        for wrong in ["", "T-1", "====", &"A".repeat(CODE_CHARS), &"A".repeat(10_000)] {
            assert_eq!(keys.read(wrong), None);
        }
    }

    #[test]
    fn codes_of_an_earlier_key_count_while_it_is_named() {
        let (old, other) = (keys(SECRET, &[]), "another secret of the tests and long enough too");
        let code = old.code(ticket());
        assert_eq!(keys(other, &[]).read(&code), None);
        let public = old.public().remove(0).key;
        let new = keys(other, &[&public, &public]);
        assert_eq!(new.read(&code), Some(ticket()));
        assert_ne!(new.code(ticket()), code);
        let shown: Vec<bool> = new.public().iter().map(|key| key.is_current).collect();
        assert_eq!(shown, [true, false]);
    }

    #[test]
    fn malformed_and_weak_public_keys_are_refused() {
        let weak = URL_SAFE_NO_PAD.encode([0; 32]);
        for wrong in ["", "abc", &weak, &"A".repeat(44)] {
            assert!(TicketKeys::new(SECRET, [wrong]).is_err(), "{wrong}");
        }
    }
}
