//! Queue tokens: what a place in line looks like in a client's hands, signed so that any gate can check it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::ids::{ConcertId, UserId};

/// A place in a line: the revision of the bucket at which it was first written.
pub type Place = u64;

/// What a token says about its owner and its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(rename = "sub")]
    pub user: UserId,
    pub concert: ConcertId,
    pub place: Place,
    pub issued_at: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activated_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}
