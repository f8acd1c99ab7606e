//! The shape of problems, for the API description.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::error::Code;
use super::problem::Fault;

/// The shape of [`Problem::body`](super::problem::Problem::body). Further members depend on the code.
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
    /// With `rate_limited` and `too_many_seats`: the limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
    /// With `rate_limited`, for holds: when the limit is over.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<chrono::DateTime<chrono::Utc>>,
    /// With `rate_limited`, for holds: the same in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<i64>,
    /// With `seat_taken` and `seat_unknown`: the seats it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    seats: Option<Vec<i32>>,
    /// With `seat_taken`: those of the seats whose hold the caller has cancelled within the last 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    just_cancelled: Option<Vec<i32>>,
    /// With `no_seats_together`: for how many seats the same request would succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    largest_group: Option<i64>,
    /// With `access_code_used_up`: how many reservations more the code is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    uses_left: Option<i64>,
    /// With `access_code_used_up`: and for how many seats.
    #[serde(skip_serializing_if = "Option::is_none")]
    seats_left: Option<i64>,
    /// With `seat_unknown`: the section, where it is the section that does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    section: Option<String>,
    /// With `insufficient_points`: what the user has.
    #[serde(skip_serializing_if = "Option::is_none")]
    balance: Option<i64>,
    /// With `insufficient_points`: what it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<i64>,
    /// With `reservation_not_payable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation_status: Option<String>,
    /// With `illegal_act` and `not_waiting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    saga_status: Option<String>,
    /// With `illegal_act`: what could be done instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    allowed: Option<Vec<String>>,
    /// With `invalid_definition`: the line, counted from 1, and what is wrong there (`reason`).
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// With `unsafe_definition`: what is wrong, and the shortest way to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    counter_example: Option<Value>,
    /// With `illegal_act`, where the step did run: its outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Value>,
}
