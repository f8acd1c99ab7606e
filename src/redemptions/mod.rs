//! The gate: redeems tickets at the entrance, once each, and takes it back at support's word.
//!
//! A scan is decided by one statement in Postgres; no message is sent, so the gate works while NATS is away. Scanners that
//! were offline upload their scans later: then the earliest scan by its own time is the valid one.

mod counts;
mod upload;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use counts::{COUNT_STREAMS_AT_ONCE, Counts};
pub use upload::{Scan, Verdict};

use crate::config;
use crate::store;
use crate::store::operations::{self, ActRow};
use crate::store::redemptions::{self, Bounds, NewScan, Redemption, RedemptionStatus};
use crate::ticket_codes::{SignedTicket, TicketKeys};

/// Scans that are worked on at once. More of them would only wait for connections to the database, and keep these from others.
const SCANS_AT_ONCE: usize = 6;
/// The name of support's act in the records of acts.
const UNDO: &str = "undo_redemption";

/// What redeems tickets. Clones share their cache and their limits.
#[derive(Clone, Debug)]
pub struct Redemptions {
    pub keys: TicketKeys,
    pool: PgPool,
    bounds: Bounds,
    turns: Arc<Semaphore>,
    counts: counts::CountCache,
}

/// Why a ticket does not admit.
#[derive(Debug, thiserror::Error)]
pub enum RedeemError {
    #[error("the code is unknown or forged")]
    Unknown,
    #[error("the ticket is void")]
    Void(SignedTicket),
    #[error("the ticket is for another date")]
    OtherDate(SignedTicket),
    #[error("tickets of this date are not redeemed at this time")]
    WrongTime { ticket: SignedTicket, starts_at: DateTime<Utc> },
    #[error("the ticket is redeemed already")]
    AlreadyRedeemed(Redemption),
    #[error("support has taken this scan back")]
    Undone(Redemption),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// A ticket that was redeemed.
#[derive(Clone, Debug)]
pub struct Redeemed {
    pub redemption: Redemption,
    /// Later scans of the same ticket, which admitted too: by gates that did not know of this one.
    pub duplicates: Vec<Redemption>,
    /// Whether this very scan was stored before.
    pub was_known: bool,
}

/// A scan of one code at one gate.
#[derive(Clone, Copy, Debug)]
pub struct GateScan<'a> {
    /// The id that its row will have.
    pub id: Uuid,
    pub code: &'a str,
    pub gate: &'a str,
    /// None: now.
    pub scanned_at: Option<DateTime<Utc>>,
    /// The date that the gate is open for, if it says so.
    pub performance_id: Option<Uuid>,
    pub api_key_id: Uuid,
}

impl Redemptions {
    /// Redeems tickets whose codes these keys can read.
    pub fn new(pool: PgPool, keys: TicketKeys, settings: &config::Gate) -> Self {
        let bounds = Bounds { before: settings.before(), after: settings.after() };
        let turns = Arc::new(Semaphore::new(SCANS_AT_ONCE));
        Self { counts: counts::CountCache::new(pool.clone()), keys, pool, bounds, turns }
    }

    /// Redeems a ticket, or says why it does not admit.
    pub async fn redeem(&self, scan: GateScan<'_>) -> Result<Redeemed, RedeemError> {
        let result = self.decide(scan).await;
        count(match &result {
            Ok(_) => "redeemed",
            Err(error) => error.result(),
        });
        result
    }

    async fn decide(&self, scan: GateScan<'_>) -> Result<Redeemed, RedeemError> {
        // Before the signature is verified: a request that waits too long for its turn has cost nothing.
        let _turn = self.turns.acquire().await;
        let ticket = self.keys.read(scan.code).ok_or(RedeemError::Unknown)?;
        if scan.performance_id.is_some_and(|date| date != ticket.performance_id) {
            return Err(RedeemError::OtherDate(ticket));
        }
        let GateScan { id, gate, scanned_at, api_key_id, .. } = scan;
        let new = NewScan { id, ticket, gate, scanned_at, api_key_id };
        let mut conn = self.pool.acquire().await?;
        match redemptions::redeem(&mut *conn, &new, self.bounds).await? {
            Some(redemption) => Ok(Redeemed { redemption, duplicates: Vec::new(), was_known: false }),
            None => self.explain(&mut conn, &new).await,
        }
    }

    /// Says why a scan changed nothing. If it is earlier than the valid one, it becomes the valid one.
    async fn explain(&self, conn: &mut PgConnection, scan: &NewScan<'_>) -> Result<Redeemed, RedeemError> {
        let ticket = scan.ticket;
        let (standing, now) = redemptions::standing(&mut *conn, &[ticket]).await?;
        let standing = standing.into_iter().next().ok_or(RedeemError::Unknown)?;
        if standing.reservation_id.is_none() {
            return Err(RedeemError::Void(ticket));
        }
        let scans = redemptions::of_tickets(&mut *conn, &[ticket.ticket_id]).await?;
        let is_same = |known: &&Redemption| {
            known.id == scan.id || known.gate == scan.gate && scan.scanned_at == Some(known.scanned_at)
        };
        let same = scans.iter().find(is_same);
        let valid = scans.iter().find(|known| known.status == RedemptionStatus::Valid);
        if let Some(undone) = same.filter(|same| same.status == RedemptionStatus::Undone) {
            return Err(RedeemError::Undone(undone.clone()));
        }
        if let Some(valid) = valid {
            if valid.id == same.map_or(Uuid::nil(), |same| same.id) {
                return Ok(Redeemed::of(valid, &scans, true));
            }
            if scan.scanned_at.is_none_or(|at| at >= valid.scanned_at) {
                return Err(RedeemError::AlreadyRedeemed(valid.clone()));
            }
        }
        if !self.admits_at(standing.starts_at, scan.scanned_at.unwrap_or(now)) {
            return Err(RedeemError::WrongTime { ticket, starts_at: standing.starts_at });
        }
        let scanned_at = Some(scan.scanned_at.unwrap_or(now));
        let scan = NewScan { scanned_at, ..scan.clone() };
        match self.store_all(conn, std::slice::from_ref(&scan)).await?.pop() {
            Some(verdict) => verdict.into_result(ticket),
            None => Err(RedeemError::Unknown),
        }
    }

    fn admits_at(&self, starts_at: DateTime<Utc>, at: DateTime<Utc>) -> bool {
        starts_at - self.bounds.before <= at && at <= starts_at + self.bounds.after
    }

    /// From when until when tickets of a date that starts at this time are redeemed.
    pub fn hours(&self, starts_at: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        (starts_at - self.bounds.before, starts_at + self.bounds.after)
    }

    /// Takes the redemption of a ticket back, and writes down who did it and why. None if the ticket is not redeemed.
    pub async fn undo(&self, ticket: Uuid, actor: &str, reason: &str) -> store::Result<Option<Redemption>> {
        let mut tx = self.pool.begin().await?;
        let Some(undone) = redemptions::undo(&mut tx, &[ticket], actor, reason).await?.pop() else {
            return Ok(None);
        };
        let detail = json!({ "ticket_id": ticket, "seat": undone.seat, "gate": undone.gate, "redeemed_at": undone.scanned_at });
        let row = ActRow {
            actor,
            act: UNDO,
            saga_id: Some(undone.reservation_id),
            target: None,
            reason,
            from: "redeemed",
            to: "valid",
            detail: Some(&detail),
        };
        operations::record_act(&mut *tx, &row).await?;
        tx.commit().await?;
        Ok(Some(undone))
    }
}

impl Redeemed {
    fn of(valid: &Redemption, scans: &[Redemption], was_known: bool) -> Self {
        let is_duplicate = |scan: &&Redemption| {
            scan.ticket_id == valid.ticket_id && scan.status == RedemptionStatus::Duplicate
        };
        let duplicates = scans.iter().filter(is_duplicate).cloned().collect();
        Self { redemption: valid.clone(), duplicates, was_known }
    }
}

impl RedeemError {
    /// The label of the metric.
    fn result(&self) -> &'static str {
        match self {
            Self::Unknown => "not_found",
            Self::Void(_) => "ticket_void",
            Self::OtherDate(_) | Self::WrongTime { .. } => "wrong_date",
            Self::AlreadyRedeemed(_) => "already_redeemed",
            Self::Undone(_) => "undone",
            Self::Database(_) => "error",
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("boxoffice_redemptions_total", "result" => result).increment(1);
}
