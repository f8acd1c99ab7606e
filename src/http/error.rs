//! The one table of errors: from a code to its status and title. No other file picks a status for an error.

use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

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
    LocalModeOnly,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    PayloadTooLarge,
    SeatTaken,
    NoSeatsTogether,
    AccessCodeUsedUp,
    ReservationNotPayable,
    ReservationNotCancellable,
    RequestInProgress,
    SoldOut,
    QueueClosed,
    AlreadyRedeemed,
    TicketVoid,
    TicketNotTransferable,
    WrongDate,
    IllegalAct,
    NotWaiting,
    VersionExists,
    WorkflowRetired,
    PerformanceCancelled,
    PerformanceChanged,
    HoldExpired,
    TransferOver,
    InvalidRequest,
    SaleNotOpen,
    AccessCodeInvalid,
    SeatUnknown,
    TooManySeats,
    BalanceLimit,
    GoodwillLimit,
    InvalidDefinition,
    UnsafeDefinition,
    CheckUnfinished,
    IdempotencyKeyRequired,
    IdempotencyKeyReused,
    RateLimited,
    Unavailable,
    Internal,
}

/// The status of requests that are understood and refused.
const INVALID: StatusCode = StatusCode::UNPROCESSABLE_ENTITY;

impl Code {
    /// All codes, in the order of their statuses.
    pub const ALL: [Self; 50] = [
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
        Self::LocalModeOnly,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::SeatTaken,
        Self::NoSeatsTogether,
        Self::AccessCodeUsedUp,
        Self::ReservationNotPayable,
        Self::ReservationNotCancellable,
        Self::RequestInProgress,
        Self::SoldOut,
        Self::QueueClosed,
        Self::AlreadyRedeemed,
        Self::TicketVoid,
        Self::TicketNotTransferable,
        Self::WrongDate,
        Self::IllegalAct,
        Self::NotWaiting,
        Self::VersionExists,
        Self::WorkflowRetired,
        Self::PerformanceCancelled,
        Self::PerformanceChanged,
        Self::HoldExpired,
        Self::TransferOver,
        Self::InvalidRequest,
        Self::SaleNotOpen,
        Self::AccessCodeInvalid,
        Self::SeatUnknown,
        Self::TooManySeats,
        Self::BalanceLimit,
        Self::GoodwillLimit,
        Self::InvalidDefinition,
        Self::UnsafeDefinition,
        Self::CheckUnfinished,
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
            Self::QueueTokenWrongUser => {
                (S::FORBIDDEN, "queue_token_wrong_user", "The queue token is another user's")
            }
            Self::QueueTokenWrongConcert => {
                (S::FORBIDDEN, "queue_token_wrong_concert", "The queue token is for another concert")
            }
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The key's role does not allow this"),
            Self::LocalModeOnly => (S::FORBIDDEN, "local_mode_only", "Possible in local mode only"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is nothing here"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Wrong method"),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "The request came too slowly"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large", "The body is too large"),
            Self::SeatTaken => (S::CONFLICT, "seat_taken", "Already reserved"),
            Self::AccessCodeUsedUp => (S::CONFLICT, "access_code_used_up", "The access code is used up"),
            Self::NoSeatsTogether => (S::CONFLICT, "no_seats_together", "No such seats are free"),
            Self::ReservationNotPayable => {
                (S::CONFLICT, "reservation_not_payable", "The reservation cannot be paid")
            }
            Self::ReservationNotCancellable => {
                (S::CONFLICT, "reservation_not_cancellable", "The reservation cannot be cancelled")
            }
            Self::RequestInProgress => (S::CONFLICT, "request_in_progress", "Still being worked on"),
            Self::SoldOut => (S::CONFLICT, "sold_out", "Sold out"),
            Self::QueueClosed => (S::CONFLICT, "queue_closed", "The line is closed"),
            Self::AlreadyRedeemed => (S::CONFLICT, "already_redeemed", "The ticket was redeemed before"),
            Self::TicketVoid => (S::CONFLICT, "ticket_void", "The ticket is void"),
            Self::TicketNotTransferable => {
                (S::CONFLICT, "ticket_not_transferable", "The ticket cannot be given to another user")
            }
            Self::WrongDate => (S::CONFLICT, "wrong_date", "The ticket is for another date"),
            Self::IllegalAct => (S::CONFLICT, "illegal_act", "Not possible in this state"),
            Self::NotWaiting => (S::CONFLICT, "not_waiting", "The saga does not wait for this"),
            Self::VersionExists => (S::CONFLICT, "version_exists", "This version is deployed already"),
            Self::WorkflowRetired => (S::CONFLICT, "workflow_retired", "No new sagas of this workflow begin"),
            Self::PerformanceCancelled => {
                (S::CONFLICT, "performance_cancelled", "The performance was cancelled")
            }
            Self::PerformanceChanged => (S::CONFLICT, "performance_changed", "It has changed meanwhile"),
            Self::HoldExpired => (S::GONE, "hold_expired", "The hold has run out"),
            Self::TransferOver => (S::GONE, "transfer_over", "The link of the transfer is over"),
            Self::InvalidRequest => (INVALID, "invalid_request", "The request is not valid"),
            Self::SaleNotOpen => (INVALID, "sale_not_open", "Not on sale now"),
            Self::AccessCodeInvalid => (INVALID, "access_code_invalid", "No such access code"),
            Self::SeatUnknown => (INVALID, "seat_unknown", "There is no such seat"),
            Self::TooManySeats => (INVALID, "too_many_seats", "Too many seats"),
            Self::BalanceLimit => (INVALID, "balance_limit", "The balance would be too high"),
            Self::GoodwillLimit => (INVALID, "goodwill_limit", "The key has given enough for today"),
            Self::InvalidDefinition => (INVALID, "invalid_definition", "The definition is not valid"),
            Self::UnsafeDefinition => (INVALID, "unsafe_definition", "The model checker found a fault"),
            Self::CheckUnfinished => (INVALID, "check_unfinished", "The model checker did not finish"),
            Self::IdempotencyKeyRequired => {
                (INVALID, "idempotency_key_required", "An Idempotency-Key is needed")
            }
            Self::IdempotencyKeyReused => {
                (INVALID, "idempotency_key_reused", "The key belongs to another request")
            }
            Self::RateLimited => (S::TOO_MANY_REQUESTS, "rate_limited", "Too many requests"),
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "unavailable", "Not available at the moment"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "A defect on our side"),
        }
    }

    /// The code with this name, if there is one.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.row().1 == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_codes_have_unique_serialised_names() {
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
}
