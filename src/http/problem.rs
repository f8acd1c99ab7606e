//! An error on its way out: a problem (RFC 9457), and how the errors of the modules below become one.
//!
//! `detail` is written for the caller; what the log needs to know goes to the log, and never out.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::error::Code;
use crate::booking::BookingError;
use crate::catalog::CatalogError;
use crate::operations::AskError;
use crate::operations::queues::ChangeError;
use crate::orchestrator::ActError;
use crate::store;
use crate::waiting_room::{Refused, RoomError};

/// The longest pointer, and the longest reason, in bytes.
const FAULT_BYTES_MAX: usize = 200;
/// The longest `detail`, in bytes.
const DETAIL_BYTES_MAX: usize = 2_000;
/// The largest further member, in bytes. With 20 faults and all texts of full length an answer has less than 16 kB.
const MEMBER_BYTES_MAX: usize = 8_000;

/// What a handler answers with.
pub type Result<T> = std::result::Result<T, Problem>;

/// One thing that is wrong with the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer into the body; for a query parameter or a header its name after a slash.
    pub pointer: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Fault {
    /// A fault whose texts are short enough for an answer: both may come from the input.
    pub fn new(pointer: &str, reason: &str) -> Self {
        Self { pointer: shorten(pointer, FAULT_BYTES_MAX), reason: shorten(reason, FAULT_BYTES_MAX) }
    }
}

/// A text cut so that it takes at most so many bytes within JSON.
fn shorten(text: &str, bytes: usize) -> String {
    let mut taken = 0;
    let size = |letter: char| match letter {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        letter if letter.is_ascii_control() => 6,
        letter => letter.len_utf8(),
    };
    let over = text.char_indices().find(|(_, letter)| {
        taken += size(*letter);
        taken > bytes
    });
    match over {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// An error on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    members: Map<String, Value>,
    retry_after_seconds: Option<u32>,
    /// Whether it comes from a connection that was of no use any more.
    outdated: bool,
}

/// Marks an answer that came of a connection of no more use: what only reads is tried again at once, on a new one.
#[derive(Clone, Copy, Debug)]
pub struct Outdated;

impl Problem {
    /// A problem with what the caller should know and do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after_seconds = match code {
            Code::RequestInProgress | Code::RateLimited | Code::Unavailable => Some(1),
            _ => None,
        };
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            members: Map::new(),
            retry_after_seconds,
            outdated: false,
        }
    }

    /// 404 for an object.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// 422 with what is wrong where.
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let faults: Vec<String> =
            errors.iter().map(|fault| format!("{}: {}", fault.pointer, fault.reason)).collect();
        Self { errors, ..Self::new(Code::InvalidRequest, faults.join("; ")) }
    }

    /// The same problem with one more member. One that is too large for a refusal is left out, and `detail` says so.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        if value.to_string().len() <= MEMBER_BYTES_MAX {
            self.members.insert(name.to_owned(), value);
        } else {
            self.detail = format!("{} (`{name}` is too large to be shown here.)", self.detail);
        }
        self
    }

    /// The same problem, which passes by itself after this time.
    pub fn after(mut self, wait: Duration) -> Self {
        let whole = wait.as_millis().div_ceil(1_000).max(1);
        self.retry_after_seconds = Some(u32::try_from(whole).unwrap_or(u32::MAX));
        self
    }

    /// Which code it has.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.code.row().0
    }

    /// The whole body.
    pub fn body(&self) -> Value {
        let (status, code, title) = self.code.row();
        let mut body = self.members.clone();
        body.insert("type".to_owned(), format!("urn:boxoffice:problem:{code}").into());
        body.insert("title".to_owned(), title.into());
        body.insert("status".to_owned(), status.as_u16().into());
        body.insert("detail".to_owned(), shorten(&self.detail, DETAIL_BYTES_MAX).into());
        body.insert("code".to_owned(), code.into());
        if !self.errors.is_empty() {
            body.insert("errors".to_owned(), serde_json::json!(self.errors));
        }
        Value::Object(body)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status(), content_type, self.body().to_string()).into_response();
        if self.outdated {
            response.extensions_mut().insert(Outdated);
        }
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        from_store(&error)
    }
}

impl From<&sqlx::Error> for Problem {
    fn from(error: &sqlx::Error) -> Self {
        from_store(error)
    }
}

impl From<CatalogError> for Problem {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::NotFound => Self::not_found("concert or performance"),
            CatalogError::Store(error) => from_store(&error),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Required => Code::QueueTokenRequired,
            Refused::Invalid => Code::QueueTokenInvalid,
            Refused::WrongUser => Code::QueueTokenWrongUser,
            Refused::WrongConcert => Code::QueueTokenWrongConcert,
            Refused::Waiting => Code::QueueTokenWaiting,
            Refused::Expired => Code::QueueTokenExpired,
        };
        Self::new(code, sentence(&refused))
    }
}

impl From<RoomError> for Problem {
    fn from(error: RoomError) -> Self {
        let code = match error {
            RoomError::NotFound => Code::NotFound,
            RoomError::SoldOut => Code::SoldOut,
            RoomError::QueueClosed => Code::QueueClosed,
            RoomError::Unavailable => Code::Unavailable,
        };
        Self::new(code, sentence(&error))
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Unknown => Self::not_found("concert"),
            ChangeError::Invalid(problems) => {
                let fault = |(field, reason): (&str, String)| Fault::new(&format!("/{field}"), &reason);
                Self::invalid(problems.into_iter().map(fault).collect())
            }
            ChangeError::Database(error) => from_store(&error),
        }
    }
}

impl From<BookingError> for Problem {
    fn from(error: BookingError) -> Self {
        match error {
            BookingError::Unknown => Self::not_found("reservation"),
            BookingError::Unavailable => Self::new(Code::Unavailable, sentence(&error)),
            BookingError::KeyTaken => Self::new(Code::RequestInProgress, sentence(&error)),
            BookingError::Database(error) => from_store(&error),
        }
    }
}

impl From<ActError> for Problem {
    fn from(error: ActError) -> Self {
        let detail = sentence(&error);
        match error {
            ActError::Unknown => Self::not_found("saga"),
            ActError::Ran(outcome) => {
                Self::new(Code::IllegalAct, detail).with("outcome", serde_json::json!(outcome))
            }
            ActError::Fence(_) => Self::new(Code::Unavailable, detail),
            ActError::UnknownCommand(_) => Self::not_found("command"),
            ActError::Covers { .. } => Self::new(Code::IllegalAct, detail),
            ActError::Consumers(_) => Self::new(Code::Unavailable, detail),
            ActError::NotAtStep(_) => Self::invalid(vec![Fault::new("/step", &error.to_string())]),
            ActError::Lacking(_) | ActError::TooLarge(_) => {
                Self::invalid(vec![Fault::new("/output", &error.to_string())])
            }
            ActError::Illegal { status, allowed } => Self::new(Code::IllegalAct, detail)
                .with("saga_status", status.name())
                .with("allowed", allowed),
            ActError::Database(error) => from_store(&error),
        }
    }
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Unknown => Self::not_found("saga"),
            AskError::TooWide => {
                let reason = error.to_string();
                Self::invalid(vec![Fault::new("", &reason)])
            }
            AskError::Database(error) => from_store(&error),
        }
    }
}

/// An error's own words, as a sentence.
pub(super) fn sentence(error: &dyn std::fmt::Display) -> String {
    let words = error.to_string();
    let mut chars = words.chars();
    let first = chars.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(chars).chain(['.']).collect()
}

fn from_store(error: &sqlx::Error) -> Problem {
    if store::is_unavailable(error) {
        tracing::warn!(%error, "the database is not available");
        let detail = "The database does not answer; try again. With an Idempotency-Key that is safe even for what may have \
                      been done.";
        let outdated = store::outdates_connections(error);
        return Problem { outdated, ..Problem::new(Code::Unavailable, detail) };
    }
    internal(error)
}

/// A defect: the log gets the error, the caller gets the request id to quote.
pub fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "a request failed for a reason that should not happen");
    Problem::new(Code::Internal, "This should not have happened. Quote the X-Request-Id when you report it.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problem_has_rfc_9457_members() {
        let problem = Problem::new(Code::SeatTaken, "Seat 7 is taken.").with("seats", vec![7]);
        let expected = serde_json::json!({
            "type": "urn:boxoffice:problem:seat_taken", "title": "Already reserved", "status": 409,
            "detail": "Seat 7 is taken.", "code": "seat_taken", "seats": [7],
        });
        assert_eq!(problem.body(), expected);
    }

    #[test]
    fn only_passing_errors_have_retry_after() {
        for code in Code::ALL {
            let response = Problem::new(code, "").into_response();
            let passes = matches!(code, Code::RequestInProgress | Code::RateLimited | Code::Unavailable);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), passes, "{code:?}");
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        }
    }

    #[test]
    fn faults_are_listed_with_their_pointers() {
        let fault = Fault::new("/amount", "must be 1 or more");
        let body = Problem::invalid(vec![fault]).body();
        assert_eq!(body["errors"][0]["pointer"], "/amount");
        assert_eq!(body["detail"], "/amount: must be 1 or more");
    }

    #[test]
    fn lost_database_is_503_wrong_query_500() {
        assert_eq!(Problem::from(sqlx::Error::PoolTimedOut).code(), Code::Unavailable);
        assert_eq!(Problem::from(sqlx::Error::RowNotFound).code(), Code::Internal);
    }
}
