//! Scans of a gate that was offline, uploaded together.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Gate, Staff};
use super::super::idempotency::once;
use super::super::problem::Result;
use super::super::request::{Bodied, Command};
use super::super::validation::{Validate, Validation};
use super::{OtherScan, check_code, check_gate, check_past, in_microseconds};
use crate::redemptions::{Redeemed, Scan, Verdict};

/// Most scans of one upload.
const SCANS_MAX: usize = 1_000;

/// Scans of one gate, in any order.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct ScanUpload {
    /// The name of the gate.
    #[schema(format = "line", min_length = 1, max_length = 100)]
    gate: String,
    /// The date that the gate was open for: tickets of other dates are refused.
    #[serde(default)]
    performance_id: Option<Uuid>,
    #[schema(min_items = 1, max_items = 1_000)]
    scans: Vec<OfflineScan>,
}

/// A scan that was made offline.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct OfflineScan {
    /// What the QR code of the ticket shows.
    #[schema(min_length = 1, max_length = 1_000)]
    code: String,
    scanned_at: DateTime<Utc>,
}

impl Bodied for ScanUpload {}

impl Validate for ScanUpload {
    fn check(&self, faults: &mut Validation) {
        check_gate(&self.gate, faults);
        let count = self.scans.len();
        let reason = format!("must have 1 to {SCANS_MAX} scans; these are {count}");
        faults.expect((1..=SCANS_MAX).contains(&count), "/scans", reason);
        for (at, scan) in self.scans.iter().enumerate().take(SCANS_MAX) {
            check_code(&scan.code, &format!("/scans/{at}/code"), faults);
            faults.expect_time(scan.scanned_at, &format!("/scans/{at}/scanned_at"));
        }
    }
}

/// What has become of uploaded scans.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UploadedScans {
    /// Tickets that these scans have redeemed, now or in an earlier upload of the same scans.
    redeemed: usize,
    /// Scans of tickets that another scan has redeemed.
    conflicts: usize,
    /// Scans that admit to nothing: forged or unknown codes, void tickets, other dates, and those that support has taken back.
    refused: usize,
    /// One for each scan, in their order.
    results: Vec<UploadedScan>,
}

/// What has become of one scan.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct UploadedScan {
    /// `redeemed`, `already_redeemed`, `undone`, `ticket_void`, `wrong_date` or `not_found`.
    result: String,
    ticket_id: Option<Uuid>,
    performance_id: Option<Uuid>,
    seat: Option<i32>,
    /// Other scans of the ticket that admitted: the valid one of `already_redeemed`, or later ones of `redeemed`.
    others: Vec<OtherScan>,
}

impl UploadedScan {
    fn of(verdict: Verdict) -> Self {
        let result = verdict.name().to_owned();
        let (ticket, others) = match verdict {
            Verdict::Redeemed(Redeemed { redemption, duplicates, .. }) => {
                let others = duplicates.iter().map(OtherScan::of).collect();
                (Some((redemption.ticket_id, redemption.performance_id, redemption.seat)), others)
            }
            Verdict::AlreadyRedeemed(valid) => {
                (Some((valid.ticket_id, valid.performance_id, valid.seat)), vec![OtherScan::of(&valid)])
            }
            Verdict::Undone(scan) => (Some((scan.ticket_id, scan.performance_id, scan.seat)), Vec::new()),
            Verdict::Void(ticket) | Verdict::OtherDate(ticket) | Verdict::WrongTime { ticket, .. } => {
                (Some((ticket.ticket_id, ticket.performance_id, ticket.seat)), Vec::new())
            }
            Verdict::Unknown => (None, Vec::new()),
        };
        Self {
            result,
            ticket_id: ticket.map(|ticket| ticket.0),
            performance_id: ticket.map(|ticket| ticket.1),
            seat: ticket.map(|ticket| ticket.2),
            others,
        }
    }
}

/// Stores the scans of a gate that was offline. Of several scans of one ticket, the earliest by `scanned_at` is the valid one,
/// also when a later one was stored before. Uploading the same scans again changes nothing.
#[utoipa::path(post, path = "/v1/tickets/redemptions/batch", tag = "tickets", request_body = ScanUpload,
    security(("key" = [])), responses((status = 200, body = UploadedScans)),
    extensions(("x-problems" = json!(["forbidden", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn upload(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Gate>,
    command: Command<ScanUpload>,
) -> Result<Response> {
    let (mut faults, now) = (Validation::default(), app.clock.now());
    for (at, scan) in command.body.scans.iter().enumerate() {
        check_past(scan.scanned_at, now, &format!("/scans/{at}/scanned_at"), &mut faults);
    }
    faults.finish()?;
    let gates = app.redemptions()?;
    once(&app.repeats, staff.caller(), command, async |ScanUpload { gate, performance_id, scans }, _| {
        let scans = scans.into_iter();
        let scans = scans
            .map(|OfflineScan { code, scanned_at }| Scan { code, scanned_at: in_microseconds(scanned_at) });
        let verdicts = gates.upload(scans.collect(), &gate, performance_id, staff.key.id).await?;
        let results: Vec<UploadedScan> = verdicts.into_iter().map(UploadedScan::of).collect();
        let count = |name: &str| results.iter().filter(|one| one.result == name).count();
        let (redeemed, conflicts) = (count("redeemed"), count("already_redeemed"));
        let refused = results.len() - redeemed - conflicts;
        Ok(Answer::ok(&UploadedScans { redeemed, conflicts, refused, results }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scans: usize, code: &str, pointers: &[&str]) {
        let scan = OfflineScan { code: code.to_owned(), scanned_at: DateTime::UNIX_EPOCH };
        let upload = ScanUpload { gate: "North".to_owned(), performance_id: None, scans: vec![scan; scans] };
        let mut faults = Validation::default();
        upload.check(&mut faults);
        let body = faults.finish().err().map(|problem| problem.body()).unwrap_or_default();
        let found: Vec<&str> =
            body["errors"].as_array().into_iter().flatten().filter_map(|e| e["pointer"].as_str()).collect();
        assert_eq!(found, pointers);
    }

    #[test]
    fn uploads_have_1_to_1000_scans() {
        check(0, "T1", &["/scans"]);
        check(1, "T1", &[]);
        check(1, "", &["/scans/0/code"]);
        check(SCANS_MAX, "T1", &[]);
        check(SCANS_MAX + 1, "T1", &["/scans"]);
    }
}
