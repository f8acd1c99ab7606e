//! Whoever comes: signed in, unknown to the service until then.

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use crate::bench::client::Caller;
use crate::bench::stage::Stage;
use crate::ids;

/// How long they are signed in, in seconds.
const SIGNED_IN: i64 = 86_400;

/// Signs people in as an identity provider would.
pub(super) struct People {
    header: Header,
    key: EncodingKey,
    until: i64,
}

impl People {
    /// Those who the service of this stage lets in.
    pub(super) fn of(stage: &Stage) -> Self {
        Self {
            header: Header::new(Algorithm::HS256),
            key: EncodingKey::from_secret(stage.access_secret().as_bytes()),
            until: stage.clock.now().timestamp() + SIGNED_IN,
        }
    }

    /// Somebody who was never here before.
    pub(super) fn newcomer(&self) -> anyhow::Result<Caller> {
        Ok(self.somebody()?.1)
    }

    /// The same, with the name that the service knows them by.
    pub(super) fn somebody(&self) -> anyhow::Result<(Uuid, Caller)> {
        let id = ids::new();
        let claims = json!({ "sub": id, "exp": self.until });
        let bearer = encode(&self.header, &claims, &self.key)?;
        Ok((id, Caller { bearer, queue_token: String::new() }))
    }
}

/// The order of arrival, as a queue token says it.
pub(super) fn place(token: &str) -> anyhow::Result<u64> {
    #[derive(Clone, Deserialize)]
    struct Claims {
        place: u64,
    }
    Ok(jsonwebtoken::dangerous::insecure_decode::<Claims>(token)?.claims.place)
}
