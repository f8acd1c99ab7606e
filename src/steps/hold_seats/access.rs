//! Access codes: before the sale of a date opens, seats are held for buyers who have a code.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::rules::{Refusal, refusal};
use super::{Booking, Work};
use crate::config::Control;
use crate::store;
use crate::store::access_codes::{Access, AccessKey, Used};
use crate::store::batch_tx::BatchTx;
use crate::store::tracked_rows::TrackedRows;

/// The codes of a batch, and who has used them in it.
#[derive(Debug, Default)]
pub(super) struct AccessCodes {
    known: BTreeMap<AccessKey, Access>,
    pub used: TrackedRows<Uuid, Used>,
    /// Reservations and their codes.
    pub uses: Vec<(Uuid, Uuid)>,
}

impl AccessCodes {
    /// From when on so many seats of a date are sold to this buyer.
    pub(super) fn opens_at(
        &self,
        booking: &Booking,
        count: i64,
        sale_opens_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<DateTime<Utc>, Refusal> {
        let key = booking.input.access_code.map(|code| (code, booking.input.performance_id));
        let access = key.and_then(|key| self.known.get(&key)).filter(|access| access.is_valid);
        let Some(access) = access.filter(|_| now < sale_opens_at) else { return Ok(sale_opens_at) };
        let Some(presale) = access.presale_opens_at else { return Ok(sale_opens_at) };
        let used = self.used.get(&access.code_id).copied().unwrap_or_default();
        if used.uses >= access.max_uses || used.seats + count > access.max_seats {
            let uses_left = (access.max_uses - used.uses).max(0);
            let seats_left = (access.max_seats - used.seats).max(0);
            let detail = json!({ "uses_left": uses_left, "seats_left": seats_left });
            return Err(refusal("access_code_used_up", detail));
        }
        Ok(presale.min(sale_opens_at))
    }

    /// Takes note of a hold; before the sale has opened it uses its code.
    pub(super) fn note(&mut self, booking: &Booking, sale_opens_at: DateTime<Utc>, now: DateTime<Utc>) {
        let Some(code) = booking.input.access_code.filter(|_| now < sale_opens_at) else { return };
        if let Some(used) = self.used.change(&code) {
            used.uses += 1;
            used.seats += booking.input.seats.len() as i64;
        }
        self.uses.push((booking.input.reservation_id, code));
    }
}

impl Work {
    /// Reads the codes with which seats are wanted.
    pub(super) async fn read_access(&mut self, attempt: &mut BatchTx) -> store::Result<()> {
        let holds =
            self.jobs.readable().filter(|job| job.command == super::HOLD).map(|job| &job.booking.input);
        let wanted: Vec<AccessKey> =
            holds.filter_map(|input| Some((input.access_code?, input.performance_id))).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        if self.control == Control::Pessimistic {
            let codes: Vec<Uuid> = wanted.iter().map(|(code, _)| *code).collect();
            store::access_codes::lock(attempt.conn(), &codes).await?;
        }
        let AccessCodes { known, used, .. } = &mut self.decisions.access;
        for access in store::access_codes::read(attempt, &wanted).await? {
            used.insert(access.code_id, access.used);
            known.insert((access.code_id, access.performance_id), access);
        }
        Ok(())
    }
}
