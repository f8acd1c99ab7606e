//! What a request carries: ids in the path, the query, and the body with its `Idempotency-Key`.
//!
//! The order of checks is the order of extractors in a handler's signature. Bodies come last, so that 401 and
//! 403 come before 413, 400 and 422. A malformed id names nothing: it reads as the nil id, which nothing has,
//! so that it ends in the same 404, at the same place, as an id that is merely unknown.

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::auth::Buyer;
use super::body::json;
use super::error::Code;
use super::problem::Problem;
use super::validation::{Validate, Validation, read, read_json};
use crate::ids::UserId;
use crate::store::idempotency::Claim;

/// The longest body whose values are read for its fingerprint: a tree of them takes thirty times the memory of the text.
const SORTED_BYTES_MAX: usize = 16 << 10;
/// The longest `Idempotency-Key`.
pub const KEY_CHARS_MAX: usize = 255;
/// What an `Idempotency-Key` is made of: visible ASCII.
pub const KEY_PATTERN: &str = "^[!-~]+$";

/// The only id in a path.
#[derive(Clone, Copy, Debug)]
pub struct PathId(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        let id = segment.ok().filter(|Path(text)| text.len() == 36).and_then(|Path(text)| text.parse().ok());
        Ok(Self(id.unwrap_or(Uuid::nil())))
    }
}

/// The only number in a path; a malformed one names nothing, and reads as -1.
#[derive(Clone, Copy, Debug)]
pub struct PathNumber(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for PathNumber {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        let number = segment.ok().and_then(|Path(text)| text.parse().ok());
        Ok(Self(number.unwrap_or(-1)))
    }
}

/// The only name in a path; one that no name can be reads as an empty one, which nothing has.
#[derive(Clone, Debug)]
pub struct PathName(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segment = Path::<String>::from_request_parts(parts, state).await;
        let plain = |text: &String| text.len() <= 200 && !text.chars().any(char::is_control);
        Ok(Self(segment.ok().map(|Path(text)| text).filter(plain).unwrap_or_default()))
    }
}

/// An id and a name in a path, in this order; malformed ones name nothing, as in [`PathId`] and [`PathName`].
#[derive(Clone, Debug)]
pub struct PathIdName(pub Uuid, pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathIdName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let segments = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Ok(Path((id, name))) = segments else { return Ok(Self(Uuid::nil(), String::new())) };
        let id = Some(id).filter(|text| text.len() == 36).and_then(|text| text.parse().ok());
        let is_plain = name.len() <= 200 && !name.chars().any(char::is_control);
        Ok(Self(id.unwrap_or(Uuid::nil()), if is_plain { name } else { String::new() }))
    }
}

/// The query string.
#[derive(Clone, Debug)]
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: Validate> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        read(serde_urlencoded::Deserializer::new(pairs)).map(Self)
    }
}

/// A JSON body.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: Validate> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        read_json(&json(&parts, body, false).await?).map(Self)
    }
}

/// A POST that changes something: its body, and the key under which it came, if any.
#[derive(Clone, Debug)]
pub struct Command<T> {
    /// What is asked for.
    pub body: T,
    /// The `Idempotency-Key`, checked.
    pub key: Option<String>,
    /// Method and path.
    pub route: String,
    /// Hash of the body, whatever its spaces and, up to 16 kB, the order of its fields; empty without a key, which
    /// needs none.
    pub fingerprint: Vec<u8>,
}

impl<T> Command<T> {
    /// The body, and the claim of its key for this caller.
    pub fn claimed_by(self, caller: String) -> (T, Option<Claim>) {
        let Self { body, key, route, fingerprint } = self;
        (body, key.map(|key| Claim { caller, route, key, fingerprint }))
    }

    /// 422 unless there is an `Idempotency-Key`.
    pub fn require_key(&self) -> Result<(), Problem> {
        match self.key {
            Some(_) => Ok(()),
            None => Err(Problem::new(
                Code::IdempotencyKeyRequired,
                "Send an Idempotency-Key header, so that a repeated request charges once.",
            )),
        }
    }
}

impl<S: Send + Sync, T: Validate + Bodied> FromRequest<S> for Command<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let text = json(&parts, body, T::MAY_BE_EMPTY).await?;
        // Some clients send the JSON of "nothing" where there is nothing to send.
        let nothing = T::MAY_BE_EMPTY && text.trim() == "null";
        let body = read_json(if nothing { "{}" } else { &text })?;
        let key = idempotency_key(&parts.headers)?;
        let fingerprint = key.as_ref().map(|_| fingerprint(&text)).transpose()?.unwrap_or_default();
        let route = format!("{} {}", parts.method, parts.uri.path());
        Ok(Self { body, key, route, fingerprint })
    }
}

fn fingerprint(json: &str) -> Result<Vec<u8>, Problem> {
    if json.len() > SORTED_BYTES_MAX {
        return Ok(without_spaces(json)
            .fold(Sha256::new(), |hash, part| hash.chain_update(part))
            .finalize()
            .to_vec());
    }
    let value: Value = serde_json::from_str(json)
        .map_err(|error| Problem::new(Code::MalformedRequest, format!("The body is not JSON: {error}.")))?;
    Ok(Sha256::digest(value.to_string()).to_vec())
}

/// The parts of a JSON text without the spaces between its tokens.
fn without_spaces(json: &str) -> impl Iterator<Item = &str> {
    let (mut in_string, mut escaped) = (false, false);
    json.split(move |letter: char| {
        match letter {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ => {}
        }
        !in_string && matches!(letter, ' ' | '\t' | '\n' | '\r')
    })
}

/// Whether a command may come without any body.
pub trait Bodied {
    const MAY_BE_EMPTY: bool = false;
}

/// The body of a command that takes none: nothing, or an empty object.
#[derive(Clone, Copy, Debug, serde::Deserialize)]
pub struct NoBody {}

impl Validate for NoBody {}

impl Bodied for NoBody {
    const MAY_BE_EMPTY: bool = true;
}

/// The user of a command: users act for themselves, and a cashier names a user.
pub fn whose(buyer: &Buyer, named: Option<Uuid>) -> Result<UserId, Problem> {
    let (user, fault) = match (buyer, named) {
        (Buyer::User(user), None) => (Some(user.id), ""),
        (Buyer::Cashier(_), Some(user)) => (Some(user), ""),
        (Buyer::User(_), Some(_)) => (None, "is not known here: only a cashier acts for another user"),
        (Buyer::Cashier(_), None) => (None, "is needed: for whom is it"),
    };
    let mut faults = Validation::default();
    faults.expect(user.is_some(), "/user_id", fault);
    faults.finish()?;
    user.ok_or_else(|| Problem::not_found("user"))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let visible = value.as_bytes().iter().all(u8::is_ascii_graphic);
    let mut faults = Validation::default();
    faults.expect(
        visible && (1..=KEY_CHARS_MAX).contains(&value.len()),
        "/Idempotency-Key",
        format!("must have 1 to {KEY_CHARS_MAX} visible ASCII characters"),
    );
    faults.finish()?;
    Ok(Some(String::from_utf8_lossy(value.as_bytes()).into_owned()))
}
#[cfg(test)]
mod tests {
    use super::super::auth::AuthUser;
    use super::*;
    use crate::ids;
    use crate::store::api_keys::{ApiKey, Role};
    use axum::body::Body;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Order {
        seats: Vec<i32>,
        #[serde(default)]
        #[allow(dead_code, reason = "only whether it can be read counts here")]
        note: Option<Note>,
    }
    #[derive(Debug, Deserialize)]
    struct Note {
        #[allow(dead_code, reason = "only whether it can be read counts here")]
        text: String,
    }
    impl Bodied for Order {}
    impl Validate for Order {
        fn check(&self, faults: &mut Validation) {
            faults.expect(!self.seats.is_empty(), "/seats", "must name a seat");
        }
    }

    async fn send(
        content_type: &str,
        key: Option<&str>,
        body: impl Into<Body>,
    ) -> Result<Command<Order>, Problem> {
        let mut request = Request::post("/v1/orders").header("content-type", content_type);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        Command::from_request(request.body(body.into()).unwrap(), &()).await
    }

    async fn check(body: &str, code: Code, pointers: &[&str]) {
        let problem = send("application/json", None, body.to_owned()).await.unwrap_err();
        assert_eq!(problem.code(), code, "{body}: {problem:?}");
        let body = problem.body();
        let found: Vec<&str> = body["errors"]
            .as_array()
            .map(|errors| errors.iter().map(|fault| fault["pointer"].as_str().unwrap()).collect())
            .unwrap_or_default();
        assert_eq!(found, pointers, "{body}");
    }

    #[tokio::test]
    async fn faults_are_distinguished_and_pointed_at() {
        check("", Code::MalformedRequest, &[]).await;
        check("{", Code::MalformedRequest, &[]).await;
        check("[]", Code::InvalidRequest, &[""]).await;
        check("{}", Code::InvalidRequest, &[""]).await;
        check(r#"{"seats":[1,"x"]}"#, Code::InvalidRequest, &["/seats/1"]).await;
        check(r#"{"seats":[99999999999]}"#, Code::InvalidRequest, &["/seats/0"]).await;
        check(r#"{"seats":[1],"note":{"text":1}}"#, Code::InvalidRequest, &["/note/text"]).await;
        check(r#"{"seats":[]}"#, Code::InvalidRequest, &["/seats"]).await;
    }

    #[tokio::test]
    async fn every_unknown_field_is_named() {
        let body = r#"{"seats":[1],"color":1,"note":{"text":"","font":2},"size":3}"#;
        check(body, Code::InvalidRequest, &["/color", "/note/font", "/size"]).await;
    }

    #[tokio::test]
    async fn other_content_types_are_refused() {
        let body = r#"{"seats":[1]}"#;
        assert!(send("application/json; charset=utf-8", None, body).await.is_ok());
        assert!(send("application/vnd.boxoffice+json", None, body).await.is_ok());
        for wrong in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            let problem = send(wrong, None, body).await.unwrap_err();
            assert_eq!(problem.code(), Code::MalformedRequest, "{wrong}");
        }
    }

    #[tokio::test]
    async fn body_limit_is_one_mebibyte() {
        let order = r#"{"seats":[1]}"#;
        let padded = |length: usize| format!("{order}{}", " ".repeat(length - order.len()));
        assert!(send("application/json", None, padded(1 << 20)).await.is_ok());
        let problem = send("text/plain", None, padded((1 << 20) + 1)).await.unwrap_err();
        assert_eq!(problem.code(), Code::PayloadTooLarge, "the size is checked before the type");
    }

    #[tokio::test]
    async fn fingerprint_ignores_formatting() {
        let print = async |body: &str| {
            send("application/json", Some("k"), body.to_owned()).await.unwrap().fingerprint
        };
        let one = print(r#"{"seats":[1,2],"note":null}"#).await;
        assert_eq!(one, print("{ \"note\": null,\n \"seats\": [1, 2] }").await);
        assert_ne!(one, print(r#"{"seats":[2,1],"note":null}"#).await);
        let seats = vec!["1"; SORTED_BYTES_MAX].join(",");
        let large =
            |before: &str, text: &str| format!(r#"{before}{{"seats":[{seats}],"note":{{"text":"{text}"}}}}"#);
        let one = print(&large("", r#"a \" b"#)).await;
        assert_eq!(one, print(&large(" \n", r#"a \" b"#)).await);
        for other in [r#"a \"b"#, r#"a \\ b"#] {
            assert_ne!(one, print(&large("", other)).await, "{other}");
        }
    }

    #[tokio::test]
    async fn keys_have_1_to_255_visible_characters() {
        let body = r#"{"seats":[1]}"#;
        let longest = "k".repeat(255);
        for good in ["k", "8f14e45f-ceea-467f-a9c1-0b1c2d3e4f50", "!~", &longest] {
            assert_eq!(send("application/json", Some(good), body).await.unwrap().key.as_deref(), Some(good));
        }
        let long = "k".repeat(256);
        for bad in ["", "a b", "tab\t", &long] {
            let problem = send("application/json", Some(bad), body).await.unwrap_err();
            assert_eq!(problem.code(), Code::InvalidRequest, "{bad:?}");
        }
        let missing = send("application/json", None, body).await.unwrap().require_key().unwrap_err();
        assert_eq!(missing.code(), Code::IdempotencyKeyRequired);
    }

    #[tokio::test]
    async fn bodiless_command_takes_nothing_or_empty_object() {
        let send = async |body: &str| {
            let request = Request::post("/").header("content-type", "application/json");
            Command::<NoBody>::from_request(request.body(body.to_owned().into()).unwrap(), &()).await
        };
        assert!(send("").await.is_ok());
        assert!(send("{}").await.is_ok());
        assert!(send("null").await.is_ok());
        assert_eq!(send(r#"{"x":1}"#).await.unwrap_err().code(), Code::InvalidRequest);
        assert_eq!(send("oops").await.unwrap_err().code(), Code::MalformedRequest);
    }

    #[test]
    fn cashiers_act_for_users_they_name() {
        let (own, other) = (ids::new(), ids::new());
        let user = Buyer::User(AuthUser { id: own });
        let cashier = Buyer::Cashier(ApiKey {
            id: ids::new(),
            name: "till".to_owned(),
            role: Role::Cashier,
            workflows: None,
            created_at: chrono::DateTime::UNIX_EPOCH,
            revoked_at: None,
        });
        assert_eq!(whose(&user, None).unwrap(), own);
        assert_eq!(whose(&cashier, Some(other)).unwrap(), other);
        assert_eq!(whose(&user, Some(other)).unwrap_err().code(), Code::InvalidRequest);
        assert_eq!(whose(&cashier, None).unwrap_err().code(), Code::InvalidRequest);
    }
}
