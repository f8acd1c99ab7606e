//! Tickets at the entrance: redeeming one, and taking it back.

pub(super) mod counts;
pub(super) mod upload;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Gate, Staff, Support};
use super::error::Code;
use super::idempotency::once;
use super::ops::saga_acts::ActReason;
use super::problem::{Problem, Result, sentence};
use super::request::{Bodied, Command, PathId};
use super::validation::{Validate, Validation};
use crate::redemptions::{GateScan, RedeemError, Redeemed, Redemptions};
use crate::store::redemptions::Redemption;
use crate::ticket_codes::{CODE_CHARS, SignedTicket};

/// The longest text that is taken for a code.
const CODE_CHARS_MAX: usize = 1_000;
/// The longest name of a gate.
const GATE_CHARS_MAX: usize = 100;
/// How far a scanner's clock may be ahead.
const SCAN_AHEAD_MAX: TimeDelta = TimeDelta::minutes(5);

/// The scan of a ticket at the entrance.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct TicketScan {
    /// What the QR code of the ticket shows.
    #[schema(min_length = 1, max_length = 1_000)]
    code: String,
    /// The name of the gate.
    #[schema(format = "line", min_length = 1, max_length = 100)]
    gate: String,
    /// When it was scanned, if not now.
    #[serde(default)]
    scanned_at: Option<DateTime<Utc>>,
    /// The date that the gate is open for: tickets of other dates are refused.
    #[serde(default)]
    performance_id: Option<Uuid>,
}

impl Bodied for TicketScan {}

impl Validate for TicketScan {
    fn check(&self, faults: &mut Validation) {
        check_code(&self.code, "/code", faults);
        check_gate(&self.gate, faults);
        if let Some(at) = self.scanned_at {
            faults.expect_time(at, "/scanned_at");
        }
    }
}

fn check_code(code: &str, pointer: &str, faults: &mut Validation) {
    let chars = code.chars().take(CODE_CHARS_MAX + 1).count();
    let reason = format!("must have 1 to {CODE_CHARS_MAX} characters; a code has {CODE_CHARS}");
    faults.expect((1..=CODE_CHARS_MAX).contains(&chars), pointer, reason);
}

fn check_gate(gate: &str, faults: &mut Validation) {
    faults.expect_line(gate, 1..=GATE_CHARS_MAX, "/gate");
}

/// A scan from the future would come before no later one.
fn check_past(at: DateTime<Utc>, now: DateTime<Utc>, pointer: &str, faults: &mut Validation) {
    let minutes = SCAN_AHEAD_MAX.num_minutes();
    faults.expect(
        at <= now + SCAN_AHEAD_MAX,
        pointer,
        format!("is more than {minutes} minutes in the future"),
    );
}

/// Times of scans as Postgres keeps them, so that a repeated scan is known again.
fn in_microseconds(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(6)
}

/// A ticket that was redeemed.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RedemptionView {
    ticket_id: Uuid,
    reservation_id: Uuid,
    performance_id: Uuid,
    seat: i32,
    /// The time of the scan.
    redeemed_at: DateTime<Utc>,
    gate: String,
    /// Later scans of the same ticket, which admitted too: by a gate that was offline, or that did not know of this scan.
    duplicates: Vec<OtherScan>,
}

/// Another scan of a ticket.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct OtherScan {
    redeemed_at: DateTime<Utc>,
    gate: String,
}

impl OtherScan {
    fn of(scan: &Redemption) -> Self {
        Self { redeemed_at: scan.scanned_at, gate: scan.gate.clone() }
    }
}

impl RedemptionView {
    fn of(redemption: Redemption, duplicates: &[Redemption]) -> Self {
        let Redemption { ticket_id, reservation_id, performance_id, seat, scanned_at, gate, .. } = redemption;
        let duplicates = duplicates.iter().map(OtherScan::of).collect();
        Self { ticket_id, reservation_id, performance_id, seat, redeemed_at: scanned_at, gate, duplicates }
    }
}

/// Redeems a ticket: of many scans of one ticket, one is answered 201. It works while NATS is away.
#[utoipa::path(post, path = "/v1/tickets/redemptions", tag = "tickets", request_body = TicketScan, security(("key" = [])),
    responses((status = 201, body = RedemptionView, description = "The ticket admits"),
              (status = 200, body = RedemptionView, description = "This very scan, by gate and scanned_at, was stored before")),
    extensions(("x-problems" = json!(["forbidden", "not_found", "already_redeemed", "ticket_void", "wrong_date",
        "illegal_act", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn redeem(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Gate>,
    command: Command<TicketScan>,
) -> Result<Response> {
    let mut faults = Validation::default();
    if let Some(at) = command.body.scanned_at {
        check_past(at, app.clock.now(), "/scanned_at", &mut faults);
    }
    faults.finish()?;
    let gates = app.redemptions()?;
    once(
        &app.repeats,
        staff.caller(),
        command,
        async |TicketScan { code, gate, scanned_at, performance_id }, effect| {
            let scan = GateScan {
                id: effect.id,
                code: &code,
                gate: &gate,
                scanned_at: scanned_at.map(in_microseconds),
                performance_id,
                api_key_id: staff.key.id,
            };
            let redeemed = gates.redeem(scan).await.map_err(|error| refusal(error, gates))?;
            let Redeemed { redemption, duplicates, was_known } = redeemed;
            // A request that is repeated under its key after a crash finds the row that it made itself.
            let is_first = !was_known || redemption.id == effect.id;
            let view = RedemptionView::of(redemption, &duplicates);
            Ok(if is_first { Answer::created(&view) } else { Answer::ok(&view) })
        },
    )
    .await
}

fn refusal(error: RedeemError, gates: &Redemptions) -> Problem {
    let detail = sentence(&error);
    match error {
        RedeemError::Unknown => Problem::not_found("ticket: the code is unknown or forged"),
        RedeemError::Void(ticket) => about(Problem::new(Code::TicketVoid, detail), &ticket),
        RedeemError::OtherDate(ticket) => about(Problem::new(Code::WrongDate, detail), &ticket),
        RedeemError::WrongTime { ticket, starts_at } => {
            let (from, until) = gates.hours(starts_at);
            about(Problem::new(Code::WrongDate, detail), &ticket)
                .with("starts_at", starts_at.to_rfc3339())
                .with("redeemable_from", from.to_rfc3339())
                .with("redeemable_until", until.to_rfc3339())
        }
        RedeemError::AlreadyRedeemed(first) => {
            redeemed_before(Problem::new(Code::AlreadyRedeemed, detail), &first)
        }
        RedeemError::Undone(scan) => redeemed_before(Problem::new(Code::IllegalAct, detail), &scan),
        RedeemError::Database(error) => error.into(),
    }
}

fn about(problem: Problem, ticket: &SignedTicket) -> Problem {
    problem
        .with("ticket_id", ticket.ticket_id.to_string())
        .with("performance_id", ticket.performance_id.to_string())
        .with("seat", ticket.seat)
}

fn redeemed_before(problem: Problem, scan: &Redemption) -> Problem {
    problem
        .with("ticket_id", scan.ticket_id.to_string())
        .with("performance_id", scan.performance_id.to_string())
        .with("seat", scan.seat)
        .with("redeemed_at", serde_json::json!(scan.scanned_at))
        .with("gate", scan.gate.clone())
}

/// Takes the redemption of a ticket back, with all scans of it: the ticket can be redeemed again. The answer has the scan that
/// was valid.
#[utoipa::path(post, path = "/v1/tickets/redemptions/{ticket}/undo", tag = "tickets", request_body = ActReason,
    params(("ticket" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = RedemptionView)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn undo(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Support>,
    PathId(ticket): PathId,
    command: Command<ActReason>,
) -> Result<Response> {
    let gates = app.redemptions()?;
    once(&app.repeats, staff.caller(), command, async |ActReason { reason }, _| {
        let undone = gates.undo(ticket, &staff.key.name, &reason).await?;
        let undone = undone.ok_or_else(|| Problem::not_found("redeemed ticket"))?;
        Ok(Answer::ok(&RedemptionView::of(undone, &[])))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(scan: &TicketScan) -> Vec<String> {
        let mut faults = Validation::default();
        scan.check(&mut faults);
        let body = faults.finish().err().map(|problem| problem.body()["errors"].clone());
        let errors = body.iter().flat_map(|errors| errors.as_array().into_iter().flatten());
        errors.map(|error| error["pointer"].as_str().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn scans_without_code_or_gate_are_refused() {
        let scan = |code: &str, gate: &str| TicketScan {
            code: code.to_owned(),
            gate: gate.to_owned(),
            scanned_at: None,
            performance_id: None,
        };
        assert!(pointers(&scan("T1", "North")).is_empty());
        assert_eq!(pointers(&scan("", "")), ["/code", "/gate"]);
        assert_eq!(pointers(&scan(&"é".repeat(1_001), &"é".repeat(101))), ["/code", "/gate"]);
        assert!(pointers(&scan(&"é".repeat(1_000), &"é".repeat(100))).is_empty());
    }

    #[test]
    fn scans_from_the_future_are_refused() {
        let now = DateTime::UNIX_EPOCH;
        for (minutes, good) in [(-60, true), (5, true), (6, false)] {
            let mut faults = Validation::default();
            check_past(now + TimeDelta::minutes(minutes), now, "/scanned_at", &mut faults);
            assert_eq!(faults.finish().is_ok(), good, "{minutes}");
        }
    }
}
