//! Who is calling: users by access token, machines and staff by API key.
//!
//! Naming an extractor in a handler's signature is the policy. They stand before anything that reads the
//! body, because who you are is checked before what you sent.

#[cfg(test)]
mod hostile;
mod access;
mod jwks;
mod keys;

use std::marker::PhantomData;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use uuid::Uuid;

pub use access::{Access, AccessError};
pub use keys::{KEY_PREFIX, Keys, NewKey};

use super::error::Code;
use super::problem::Problem;
use crate::ids::UserId;
use crate::store::api_keys::{ApiKey, Role};

/// A user, by a valid access token.
#[derive(Clone, Copy, Debug)]
pub struct AuthUser {
    /// The token's `sub`.
    pub id: UserId,
}

impl AuthUser {
    /// The scope of this user's idempotency keys.
    pub fn caller(self) -> String {
        format!("user:{}", self.id)
    }
}

impl<S> FromRequestParts<S> for AuthUser
where
    S: Send + Sync,
    Access: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let token = bearer(&parts.headers)?;
        let id = Access::from_ref(state).verify(token).await?;
        Ok(Self { id })
    }
}

/// A role that a route asks for; implemented by the markers below.
pub trait Needs {
    const ROLE: Role;
}

/// A key of a viewer, an operator or an admin.
#[derive(Clone, Copy, Debug)]
pub struct Viewer;
/// A key that may act on sagas and lines.
#[derive(Clone, Copy, Debug)]
pub struct Operator;
/// A key that may change what is sold.
#[derive(Clone, Copy, Debug)]
pub struct Admin;
/// A key of the support desk.
#[derive(Clone, Copy, Debug)]
pub struct Support;
/// A key of a scanner at the entrance.
#[derive(Clone, Copy, Debug)]
pub struct Gate;

impl Needs for Viewer {
    const ROLE: Role = Role::Viewer;
}
impl Needs for Operator {
    const ROLE: Role = Role::Operator;
}
impl Needs for Admin {
    const ROLE: Role = Role::Admin;
}
impl Needs for Support {
    const ROLE: Role = Role::Support;
}
impl Needs for Gate {
    const ROLE: Role = Role::Gate;
}

/// A machine or a member of staff, by an API key whose role is enough.
#[derive(Clone, Debug)]
pub struct Staff<R> {
    /// The key.
    pub key: ApiKey,
    needs: PhantomData<R>,
}

impl<R> Staff<R> {
    /// The scope of this API key's idempotency keys.
    pub fn caller(&self) -> String {
        key_caller(self.key.id)
    }
}

impl<S, R> FromRequestParts<S> for Staff<R>
where
    S: Send + Sync,
    Keys: FromRef<S>,
    R: Needs,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let key = Keys::from_ref(state).look_up(bearer(&parts.headers)?).await?;
        require(&key, R::ROLE)?;
        Ok(Self { key, needs: PhantomData })
    }
}

/// A key of the gate, of support, or of a viewer, an operator or an admin: it may read how many tickets are redeemed.
#[derive(Clone, Copy, Debug)]
pub struct RedemptionReader;

impl<S> FromRequestParts<S> for RedemptionReader
where
    S: Send + Sync,
    Keys: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let key = Keys::from_ref(state).look_up(bearer(&parts.headers)?).await?;
        if !matches!(key.role, Role::Gate | Role::Support) {
            require(&key, Role::Viewer)?;
        }
        Ok(Self)
    }
}

/// A buyer: a user for themselves, or a cashier's key for any user.
#[derive(Clone, Debug)]
pub enum Buyer {
    User(AuthUser),
    Cashier(ApiKey),
}

impl Buyer {
    /// The scope of this caller's idempotency keys.
    pub fn caller(&self) -> String {
        match self {
            Self::User(user) => user.caller(),
            Self::Cashier(key) => key_caller(key.id),
        }
    }
}

impl<S> FromRequestParts<S> for Buyer
where
    S: Send + Sync,
    Access: FromRef<S>,
    Keys: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if !bearer(&parts.headers)?.starts_with(KEY_PREFIX) {
            return AuthUser::from_request_parts(parts, state).await.map(Self::User);
        }
        cashier(parts, state).await
    }
}

async fn cashier<S>(parts: &Parts, state: &S) -> Result<Buyer, Problem>
where
    Keys: FromRef<S>,
{
    let key = Keys::from_ref(state).look_up(bearer(&parts.headers)?).await?;
    require(&key, Role::Cashier)?;
    Ok(Buyer::Cashier(key))
}

/// A caller who may credit points: a cashier's key, and in local mode a user for themselves.
#[derive(Clone, Debug)]
pub struct Charger(pub Buyer);

impl<S> FromRequestParts<S> for Charger
where
    S: Send + Sync,
    Access: FromRef<S>,
    Keys: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if Access::from_ref(state).is_local() {
            return Buyer::from_request_parts(parts, state).await.map(Self);
        }
        cashier(parts, state).await.map(Self)
    }
}

/// A client's key, or one of staff whose role is enough.
#[derive(Clone, Debug)]
pub struct ClientOr<R> {
    /// The key.
    pub key: ApiKey,
    needs: PhantomData<R>,
}

impl<R> ClientOr<R> {
    /// What distinguishes requests under this key from those under others.
    pub fn caller(&self) -> String {
        key_caller(self.key.id)
    }

    /// Whether the key is for this workflow. Staff may use all; to a client the others do not exist.
    pub fn may_use(&self, workflow: &str) -> bool {
        self.key.role != Role::Client || self.key.workflows.iter().flatten().any(|known| known == workflow)
    }

    /// The workflows that a client's key is for; `None` is all of them.
    pub fn workflows(&self) -> Option<Vec<String>> {
        (self.key.role == Role::Client).then(|| self.key.workflows.clone().unwrap_or_default())
    }
}

impl<S, R> FromRequestParts<S> for ClientOr<R>
where
    S: Send + Sync,
    Keys: FromRef<S>,
    R: Needs,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let key = Keys::from_ref(state).look_up(bearer(&parts.headers)?).await?;
        if key.role != Role::Client {
            require(&key, R::ROLE)?;
        }
        Ok(Self { key, needs: PhantomData })
    }
}

fn key_caller(id: Uuid) -> String {
    format!("key:{id}")
}

fn require(key: &ApiKey, needed: Role) -> Result<(), Problem> {
    if key.role.includes(needed) {
        return Ok(());
    }
    let (has, needs) = (key.role.as_str(), needed.as_str());
    let detail = format!("This key has the role `{has}`; this takes `{needs}`.");
    Err(Problem::new(Code::Forbidden, detail))
}

/// The credentials of `Authorization: Bearer …`; the scheme's case does not matter.
fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let header = headers
        .get(header::AUTHORIZATION)
        .ok_or_else(|| unauthenticated("Send `Authorization: Bearer` with an access token or an API key."))?;
    let value = header.to_str().unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(token.trim())
        }
        _ => Err(unauthenticated("The Authorization header is not of the form `Bearer <token>`.")),
    }
}

fn unauthenticated(detail: &str) -> Problem {
    Problem::new(Code::Unauthenticated, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: Option<&str>, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        assert_eq!(bearer(&headers).ok(), expected, "{value:?}");
    }

    #[test]
    fn only_bearer_credentials_count() {
        check(Some("Bearer abc"), Some("abc"));
        check(Some("bearer abc"), Some("abc"));
        check(None, None);
        check(Some("Bearer"), None);
        check(Some("Bearer  "), None);
        check(Some("Basic abc"), None);
        check(Some("abc"), None);
    }
}
