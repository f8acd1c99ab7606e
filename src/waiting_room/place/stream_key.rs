//! Keys that open the event stream of a place: signed as queue tokens are, and of another shape, so that neither passes as the
//! other.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::token::{Claims, Signer};
use crate::clock::is_plausible;

/// How long a key may be used after it was issued.
pub const STREAM_KEY_TTL: Duration = Duration::from_secs(30);

/// What a key says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamKey {
    /// Whose stream it opens.
    #[serde(rename = "stream_of")]
    pub place: Claims,
    /// Names the stream.
    pub id: Uuid,
    pub issued_at: DateTime<Utc>,
}

impl StreamKey {
    /// Whether it is a key of this place.
    pub fn is_of(&self, place: &Claims) -> bool {
        let own = &self.place;
        (own.user, own.concert, own.place) == (place.user, place.concert, place.place)
    }

    /// Whether its time is over.
    pub fn is_over(&self, now: DateTime<Utc>) -> bool {
        let ttl = TimeDelta::from_std(STREAM_KEY_TTL).unwrap_or_default();
        // The clock of another instance may be somewhat ahead.
        (now - self.issued_at).abs() > ttl
    }
}

impl Signer {
    /// The text of a key.
    pub fn sign_stream_key(&self, key: &StreamKey) -> String {
        self.encode(key)
    }

    /// What a key says, if its signature is ours.
    pub fn read_stream_key(&self, text: &str) -> Option<StreamKey> {
        self.decode::<StreamKey>(text).filter(|key| key.place.are_possible() && is_plausible(key.issued_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;

    fn key() -> StreamKey {
        let issued_at = DateTime::from_timestamp(1_900_000_100, 0).unwrap();
        StreamKey { place: place(), id: ids::new(), issued_at }
    }

    fn place() -> Claims {
        Claims {
            user: ids::new(),
            concert: ids::new(),
            place: 12,
            issued_at: DateTime::from_timestamp(1_900_000_000, 0).unwrap(),
            activated_at: None,
            expires_at: None,
            bucket: 3,
        }
    }

    #[test]
    fn keys_and_tokens_are_not_interchangeable() {
        let signer = Signer::new(b"a secret of thirty-two bytes ....");
        let key = key();
        let text = signer.sign_stream_key(&key);
        assert_eq!(signer.read_stream_key(&text), Some(key.clone()));
        assert_eq!(signer.read(&text), None);
        assert_eq!(signer.read_stream_key(&signer.sign(&key.place)), None);
        assert_eq!(Signer::new(b"another").read_stream_key(&text), None);
    }

    #[test]
    fn key_ends_after_its_time() {
        let key = key();
        let after = |seconds| key.is_over(key.issued_at + TimeDelta::seconds(seconds));
        assert_eq!((after(0), after(29), after(31), after(-31)), (false, false, true, true));
        let other = StreamKey { place: Claims { place: 13, ..key.place.clone() }, ..key.clone() };
        assert!(key.is_of(&key.place) && !other.is_of(&key.place));
    }
}
