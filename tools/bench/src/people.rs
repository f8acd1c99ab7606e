//! New users: signed in by an identity provider, and unknown to the service before.

use std::sync::{Mutex, PoisonError};

use anyhow::bail;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::client::{Caller, Client};
use super::load;
use super::progress::Progress;
use super::stage::Stage;
use boxoffice::ids;

/// How long they are signed in, in seconds.
const SIGNED_IN: i64 = 86_400;

/// Signs people in as an identity provider would.
pub(super) struct People {
    header: Header,
    key: EncodingKey,
    until: i64,
}

impl People {
    /// Signs with the secret that the service of this stage accepts.
    pub(super) fn of(stage: &Stage) -> Self {
        Self {
            header: Header::new(Algorithm::HS256),
            key: EncodingKey::from_secret(stage.access_secret().as_bytes()),
            until: stage.clock.now().timestamp() + SIGNED_IN,
        }
    }

    /// A new user.
    pub(super) fn newcomer(&self) -> anyhow::Result<Caller> {
        Ok(self.somebody()?.1)
    }

    /// A new user, with their id, as their access token names it.
    pub(super) fn somebody(&self) -> anyhow::Result<(Uuid, Caller)> {
        let id = ids::new();
        let claims = json!({ "sub": id, "exp": self.until });
        let bearer = encode(&self.header, &claims, &self.key)?;
        Ok((id, Caller { bearer, queue_token: String::new() }))
    }
}

/// So many new users join a line, `at_once` of them at a time. Returns each with their id.
pub(super) async fn stand_in_line(
    stage: &Stage,
    client: &Client,
    concert: Uuid,
    at_once: u32,
    people: u32,
    progress: &Progress,
) -> anyhow::Result<Vec<(Uuid, Caller)>> {
    let signed = People::of(stage);
    let joined = Mutex::new(Vec::with_capacity(people as usize));
    progress.begin("people join", people.into());
    let load = load::at_once(at_once, people, progress, async |_| {
        let (id, mut caller) = signed.somebody()?;
        caller.queue_token = client.join(concert, &caller).await?.1.token;
        joined.lock().unwrap_or_else(PoisonError::into_inner).push((id, caller));
        Ok(())
    })
    .await;
    if load.errors > 0 {
        bail!("{} of {people} could not join", load.errors);
    }
    Ok(joined.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The order of arrival, as a queue token says it.
pub(super) fn place(token: &str) -> anyhow::Result<u64> {
    #[derive(Clone, Deserialize)]
    struct Claims {
        place: u64,
    }
    Ok(jsonwebtoken::dangerous::insecure_decode::<Claims>(token)?.claims.place)
}
