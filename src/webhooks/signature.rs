//! Signatures by the Standard Webhooks scheme: HMAC-SHA256 over id, time and body.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// What every secret begins with, so that one is known for what it is where it should not be.
const SECRET_PREFIX: &str = "whsec_";
/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// The key of the signatures of one endpoint.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Vec<u8>);

impl Secret {
    pub fn generate() -> Self {
        Self(rand::random::<[u8; SECRET_BYTES]>().to_vec())
    }

    /// As the owner of the endpoint needs it.
    pub fn text(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }
}

/// The value of `webhook-id`: the same for each attempt, and without a dot, which separates the parts of what is signed.
pub(super) fn message_id(event_id: &str) -> String {
    let digest = Sha256::digest(event_id.as_bytes());
    let hex: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{hex}")
}

/// The value of `webhook-signature`: one signature for each secret, with spaces between them.
pub(super) fn signatures<'a>(
    secrets: impl Iterator<Item = &'a [u8]>,
    id: &str,
    at: DateTime<Utc>,
    body: &str,
) -> String {
    let signed = format!("{id}.{}.{body}", at.timestamp());
    let all: Vec<String> =
        secrets.map(|secret| format!("v1,{}", STANDARD.encode(sign(secret, &signed)))).collect();
    all.join(" ")
}

fn sign(secret: &[u8], text: &str) -> Vec<u8> {
    // A key of any length is good.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn signature_is_that_of_the_specification() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let at = DateTime::from_timestamp(1_614_265_330, 0).unwrap();
        let body = r#"{"test": 2432232314}"#;
        let one = signatures([&secret[..]].into_iter(), "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body);
        assert_eq!(one, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let both = signatures([&secret[..], b"other"].into_iter(), "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body);
        assert!(both.starts_with(&format!("{one} v1,")), "{both}");
    }

    #[test]
    fn secrets_and_message_ids_have_their_form() {
        let secret = Secret::generate();
        assert!(secret.text().starts_with("whsec_"));
        assert_eq!(STANDARD.decode(&secret.text()[6..]).unwrap(), secret.0);
        let id = message_id("01a1fca7-a1a9-7405-a9b3-a0fab7972b9e:2:reservation.reserved");
        assert_eq!((id.len(), id.contains('.')), (36, false));
        assert_ne!(id, message_id("01a1fca7-a1a9-7405-a9b3-a0fab7972b9e:4:reservation.reserved"));
    }
}
