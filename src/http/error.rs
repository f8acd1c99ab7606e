//! The one table of errors: from a code to its status and title, and how a problem looks on the wire (RFC 9457).
//!
//! No other file picks a status for an error. `detail` is written for the caller; what the log needs to
//! know goes to the log, and never out.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::catalog::CatalogError;
use crate::store;

/// What a handler answers with.
pub type Result<T> = std::result::Result<T, Problem>;

/// Every code that `code` may have. Reservations use some of them as their `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    MalformedRequest,
    Unauthenticated,
    InsufficientPoints,
    QueueTokenRequired,
    QueueTokenInvalid,
    QueueTokenWaiting,
    QueueTokenExpired,
    QueueTokenWrongUser,
    QueueTokenWrongConcert,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    PayloadTooLarge,
    SeatTaken,
    ReservationNotPayable,
    ReservationNotCancellable,
    RequestInProgress,
    SoldOut,
    QueueClosed,
    IllegalAct,
    HoldExpired,
    InvalidRequest,
    SaleNotOpen,
    SeatUnknown,
    TooManySeats,
    BalanceLimit,
    IdempotencyKeyRequired,
    IdempotencyKeyReused,
    RateLimited,
    Unavailable,
    Internal,
}

impl Code {
    /// All codes, in the order of their statuses.
    pub const ALL: [Self; 31] = [
        Self::MalformedRequest,
        Self::Unauthenticated,
        Self::InsufficientPoints,
        Self::QueueTokenRequired,
        Self::QueueTokenInvalid,
        Self::QueueTokenWaiting,
        Self::QueueTokenExpired,
        Self::QueueTokenWrongUser,
        Self::QueueTokenWrongConcert,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::PayloadTooLarge,
        Self::SeatTaken,
        Self::ReservationNotPayable,
        Self::ReservationNotCancellable,
        Self::RequestInProgress,
        Self::SoldOut,
        Self::QueueClosed,
        Self::IllegalAct,
        Self::HoldExpired,
        Self::InvalidRequest,
        Self::SaleNotOpen,
        Self::SeatUnknown,
        Self::TooManySeats,
        Self::BalanceLimit,
        Self::IdempotencyKeyRequired,
        Self::IdempotencyKeyReused,
        Self::RateLimited,
        Self::Unavailable,
        Self::Internal,
    ];

    /// The table: status, code, title.
    pub fn row(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedRequest => (S::BAD_REQUEST, "malformed_request", "The body is not JSON"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "Who is calling is not known"),
            Self::InsufficientPoints => (S::PAYMENT_REQUIRED, "insufficient_points", "Too few points"),
            Self::QueueTokenRequired => (S::FORBIDDEN, "queue_token_required", "A queue token is needed"),
            Self::QueueTokenInvalid => (S::FORBIDDEN, "queue_token_invalid", "The queue token is not ours"),
            Self::QueueTokenWaiting => (S::FORBIDDEN, "queue_token_waiting", "It is not your turn yet"),
            Self::QueueTokenExpired => (S::FORBIDDEN, "queue_token_expired", "The queue token has run out"),
            Self::QueueTokenWrongUser => (
                S::FORBIDDEN,
                "queue_token_wrong_user",
                "The queue token is another user's",
            ),
            Self::QueueTokenWrongConcert => (
                S::FORBIDDEN,
                "queue_token_wrong_concert",
                "The queue token is for another concert",
            ),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The key's role does not allow this"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is nothing here"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Wrong method"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large"),
            Self::SeatTaken => (S::CONFLICT, "seat_taken", "Already reserved"),
            Self::ReservationNotPayable => (
                S::CONFLICT,
                "reservation_not_payable",
                "The reservation cannot be paid",
            ),
            Self::ReservationNotCancellable => (
                S::CONFLICT,
                "reservation_not_cancellable",
                "The reservation cannot be cancelled",
            ),
            Self::RequestInProgress => (S::CONFLICT, "request_in_progress", "Still being worked on"),
            Self::SoldOut => (S::CONFLICT, "sold_out", "Sold out"),
            Self::QueueClosed => (S::CONFLICT, "queue_closed", "The line is closed"),
            Self::IllegalAct => (S::CONFLICT, "illegal_act", "Not possible in this state"),
            Self::HoldExpired => (S::GONE, "hold_expired", "The hold has run out"),
            Self::InvalidRequest => (
                S::UNPROCESSABLE_ENTITY,
                "invalid_request",
                "The request is not valid",
            ),
            Self::SaleNotOpen => (S::UNPROCESSABLE_ENTITY, "sale_not_open", "Not on sale now"),
            Self::SeatUnknown => (S::UNPROCESSABLE_ENTITY, "seat_unknown", "There is no such seat"),
            Self::TooManySeats => (S::UNPROCESSABLE_ENTITY, "too_many_seats", "Too many seats"),
            Self::BalanceLimit => (
                S::UNPROCESSABLE_ENTITY,
                "balance_limit",
                "The balance would be too high",
            ),
            Self::IdempotencyKeyRequired => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_required",
                "An Idempotency-Key is needed",
            ),
            Self::IdempotencyKeyReused => (
                S::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The key belongs to another request",
            ),
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Self::Unavailable => (
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "Not available at the moment",
            ),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "A defect on our side"),
        }
    }

    /// The code with this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.row().1 == name)
    }
}

/// One thing that is wrong with the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Fault {
    /// JSON pointer into the body; for a query parameter or a header its name after a slash.
    pub pointer: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An error on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<Fault>,
    members: Map<String, Value>,
    retry_after_seconds: Option<u32>,
}

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
        }
    }

    /// 404 for an object.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    /// 422 with what is wrong where.
    pub fn invalid(errors: Vec<Fault>) -> Self {
        let faults: Vec<String> = errors
            .iter()
            .map(|fault| format!("{}: {}", fault.pointer, fault.reason))
            .collect();
        Self {
            errors,
            ..Self::new(Code::InvalidRequest, faults.join("; "))
        }
    }

    /// The same problem with one more member.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
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
        body.insert("detail".to_owned(), self.detail.clone().into());
        body.insert("code".to_owned(), code.into());
        if !self.errors.is_empty() {
            body.insert("errors".to_owned(), serde_json::json!(self.errors));
        }
        Value::Object(body)
    }
}

/// The shape of [`Problem::body`], for the API description. Further members depend on the code.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    #[schema(example = "urn:boxoffice:problem:seat_taken")]
    r#type: String,
    #[schema(example = "Already reserved")]
    title: String,
    #[schema(example = 409)]
    status: u16,
    detail: String,
    code: Code,
    /// With `invalid_request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Fault>>,
    /// With `seat_taken` and `seat_unknown`: the seats it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    seats: Option<Vec<i32>>,
    /// With `insufficient_points`: what the user has.
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<i64>,
    /// With `insufficient_points`: what it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<i64>,
    /// With `reservation_not_payable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation_status: Option<String>,
    /// With `illegal_act`.
    #[serde(skip_serializing_if = "Option::is_none")]
    saga_status: Option<String>,
    /// With `illegal_act`: what could be done instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<String>>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status(), content_type, self.body().to_string()).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.code == Code::Unauthenticated {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
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

fn from_store(error: &sqlx::Error) -> Problem {
    if store::is_unavailable(error) {
        tracing::warn!(%error, "the database is not available");
        return Problem::new(
            Code::Unavailable,
            "The database does not answer; nothing was changed. Try again.",
        );
    }
    internal(error)
}

/// A defect: the log gets the error, the caller gets the request id to quote.
pub fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "a request failed for a reason that should not happen");
    Problem::new(
        Code::Internal,
        "This should not have happened. Quote the X-Request-Id when you report it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_named_once_and_as_it_serialises() {
        let names: std::collections::HashSet<&str> = Code::ALL.iter().map(|code| code.row().1).collect();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            let (status, name, title) = code.row();
            assert_eq!(serde_json::to_value(code).unwrap(), name);
            assert_eq!(Code::named(name), Some(code));
            assert!(status.is_client_error() || status.is_server_error());
            assert!(!title.is_empty());
        }
    }

    #[test]
    fn a_problem_has_the_members_of_rfc_9457_and_its_own() {
        let problem = Problem::new(Code::SeatTaken, "Seat 7 is taken.").with("seats", vec![7]);
        let expected = serde_json::json!({
            "type": "urn:boxoffice:problem:seat_taken", "title": "Already reserved", "status": 409,
            "detail": "Seat 7 is taken.", "code": "seat_taken", "seats": [7],
        });
        assert_eq!(problem.body(), expected);
    }

    #[test]
    fn what_passes_says_when_to_try_again_and_what_does_not_pass_does_not() {
        for code in Code::ALL {
            let response = Problem::new(code, "").into_response();
            let passes = matches!(
                code,
                Code::RequestInProgress | Code::RateLimited | Code::Unavailable
            );
            assert_eq!(
                response.headers().contains_key(header::RETRY_AFTER),
                passes,
                "{code:?}"
            );
            assert_eq!(
                response.headers()[header::CONTENT_TYPE],
                "application/problem+json"
            );
        }
    }

    #[test]
    fn faults_are_listed_with_their_pointers() {
        let fault = Fault {
            pointer: "/amount".to_owned(),
            reason: "must be 1 or more".to_owned(),
        };
        let body = Problem::invalid(vec![fault]).body();
        assert_eq!(body["errors"][0]["pointer"], "/amount");
        assert_eq!(body["detail"], "/amount: must be 1 or more");
    }

    #[test]
    fn a_database_that_is_away_is_503_and_a_wrong_query_500() {
        assert_eq!(Problem::from(sqlx::Error::PoolTimedOut).code(), Code::Unavailable);
        assert_eq!(Problem::from(sqlx::Error::RowNotFound).code(), Code::Internal);
    }
}
