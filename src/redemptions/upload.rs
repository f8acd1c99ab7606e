//! Scans of a gate that was offline, stored together. The earliest scan of a ticket is the valid one, whichever was stored
//! first, and a repeated upload changes nothing.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{RedeemError, Redeemed, Redemptions, count};
use crate::ids;
use crate::store;
use crate::store::redemptions::{self, NewScan, Redemption, RedemptionStatus};
use crate::ticket_codes::SignedTicket;

/// How often an upload is tried that met other transactions in another order.
const ATTEMPTS: u32 = 3;

/// A scan that is uploaded.
#[derive(Clone, Debug)]
pub struct Scan {
    pub code: String,
    pub scanned_at: DateTime<Utc>,
}

/// What has become of an uploaded scan.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// It is the valid one of its ticket.
    Redeemed(Redeemed),
    /// This earlier scan of the ticket is.
    AlreadyRedeemed(Redemption),
    /// Support has taken it back.
    Undone(Redemption),
    Void(SignedTicket),
    OtherDate(SignedTicket),
    WrongTime {
        ticket: SignedTicket,
        starts_at: DateTime<Utc>,
    },
    Unknown,
}

impl Verdict {
    /// The same as the result of one scan.
    pub(super) fn into_result(self, ticket: SignedTicket) -> Result<Redeemed, RedeemError> {
        match self {
            Self::Redeemed(redeemed) => Ok(redeemed),
            Self::AlreadyRedeemed(valid) => Err(RedeemError::AlreadyRedeemed(valid)),
            Self::Undone(scan) => Err(RedeemError::Undone(scan)),
            Self::Void(_) => Err(RedeemError::Void(ticket)),
            Self::OtherDate(_) => Err(RedeemError::OtherDate(ticket)),
            Self::WrongTime { starts_at, .. } => Err(RedeemError::WrongTime { ticket, starts_at }),
            Self::Unknown => Err(RedeemError::Unknown),
        }
    }

    /// Its name in answers and in the metric.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Redeemed(_) => "redeemed",
            Self::AlreadyRedeemed(_) => "already_redeemed",
            Self::Undone(_) => "undone",
            Self::Void(_) => "ticket_void",
            Self::OtherDate(_) | Self::WrongTime { .. } => "wrong_date",
            Self::Unknown => "not_found",
        }
    }
}

impl Redemptions {
    /// Stores the scans of one gate, all in one transaction; a verdict for each, in their order.
    pub async fn upload(
        &self,
        scans: Vec<Scan>,
        gate: &str,
        performance: Option<Uuid>,
        api_key_id: Uuid,
    ) -> store::Result<Vec<Verdict>> {
        let keys = self.keys.clone();
        // A thousand signatures take a thread some 50 ms.
        let read = move || scans.into_iter().map(|scan| (keys.read(&scan.code), scan.scanned_at)).collect();
        let read: Vec<(Option<SignedTicket>, DateTime<Utc>)> =
            tokio::task::spawn_blocking(read).await.map_err(|_| sqlx::Error::WorkerCrashed)?;
        let is_wanted = |ticket: &SignedTicket| performance.is_none_or(|date| date == ticket.performance_id);
        let new: Vec<NewScan<'_>> = read
            .iter()
            .filter_map(|(ticket, at)| Some((ticket.filter(is_wanted)?, *at)))
            .map(|(ticket, at)| NewScan { id: ids::new(), ticket, gate, scanned_at: Some(at), api_key_id })
            .collect();
        let _turn = self.turns.acquire().await;
        let mut conn = self.pool.acquire().await?;
        let mut stored = self.store_all(&mut conn, &new).await?.into_iter();
        let verdicts = read.iter().map(|(ticket, _)| match ticket {
            None => Verdict::Unknown,
            Some(ticket) if !is_wanted(ticket) => Verdict::OtherDate(*ticket),
            Some(_) => stored.next().unwrap_or(Verdict::Unknown),
        });
        let verdicts: Vec<Verdict> = verdicts.collect();
        verdicts.iter().for_each(|verdict| count(verdict.name()));
        Ok(verdicts)
    }

    /// Stores scans whose times are known; a verdict for each, in their order.
    pub(super) async fn store_all(
        &self,
        conn: &mut PgConnection,
        scans: &[NewScan<'_>],
    ) -> store::Result<Vec<Verdict>> {
        if scans.is_empty() {
            return Ok(Vec::new());
        }
        let mut attempt = 1;
        loop {
            match self.try_to_store(conn, scans).await {
                // A saga wrote some of the same reservations in another order.
                Err(error) if attempt < ATTEMPTS && is_deadlock(&error) => attempt += 1,
                result => return result,
            }
        }
    }

    async fn try_to_store(
        &self,
        conn: &mut PgConnection,
        scans: &[NewScan<'_>],
    ) -> store::Result<Vec<Verdict>> {
        let tickets: Vec<SignedTicket> = scans.iter().map(|scan| scan.ticket).collect();
        let ids: Vec<Uuid> = tickets.iter().map(|ticket| ticket.ticket_id).collect();
        let mut tx = conn.begin().await?;
        redemptions::lock(&mut tx, &tickets).await?;
        let (standing, now) = redemptions::standing(&mut *tx, &tickets).await?;
        let standing: HashMap<Uuid, _> = standing.into_iter().map(|found| (found.ticket_id, found)).collect();
        let mut admitted = Vec::with_capacity(scans.len());
        for scan in scans {
            let Some(found) = standing.get(&scan.ticket.ticket_id) else { continue };
            let at = scan.scanned_at.unwrap_or(now);
            let reservation = found.reservation_id.filter(|_| self.admits_at(found.starts_at, at));
            admitted.extend(reservation.map(|reservation| (scan.clone(), reservation, at)));
        }
        redemptions::add(&mut tx, &admitted).await?;
        redemptions::settle(&mut tx, &ids).await?;
        let stored = redemptions::of_tickets(&mut *tx, &ids).await?;
        tx.commit().await?;
        let mut by_ticket: HashMap<Uuid, Vec<Redemption>> = HashMap::new();
        for scan in stored {
            by_ticket.entry(scan.ticket_id).or_default().push(scan);
        }
        let verdict = |scan: &NewScan<'_>| {
            let ticket = scan.ticket;
            let Some(found) = standing.get(&ticket.ticket_id) else { return Verdict::Unknown };
            if found.reservation_id.is_none() {
                return Verdict::Void(ticket);
            }
            let known = by_ticket.get(&ticket.ticket_id).map(Vec::as_slice).unwrap_or_default();
            let wrong_time = Verdict::WrongTime { ticket, starts_at: found.starts_at };
            judge(scan, known).unwrap_or(wrong_time)
        };
        Ok(scans.iter().map(verdict).collect())
    }
}

/// What a stored scan has come to be among all scans of its ticket; none if it was not stored.
fn judge(scan: &NewScan<'_>, known: &[Redemption]) -> Option<Verdict> {
    let own = known.iter().find(|one| one.gate == scan.gate && Some(one.scanned_at) == scan.scanned_at)?;
    let was_known = own.id != scan.id;
    Some(match own.status {
        RedemptionStatus::Valid => Verdict::Redeemed(Redeemed::of(own, known, was_known)),
        RedemptionStatus::Undone => Verdict::Undone(own.clone()),
        RedemptionStatus::Duplicate => {
            let valid = known.iter().find(|one| one.status == RedemptionStatus::Valid).unwrap_or(own);
            Verdict::AlreadyRedeemed(valid.clone())
        }
    })
}

fn is_deadlock(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some("40P01")
}
