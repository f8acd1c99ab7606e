//! The free seats among which a batch chooses. They are read once, decided about in order of arrival, and compared when they
//! are written, as all seats are: requests of one batch never get in each other's way.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::choose::{Candidate, Choice, SeatKind, choose};
use super::rules::{Refusal, check_sale};
use super::{Booking, Decisions, Job, Work, rejected};
use crate::saga::Outcome;
use crate::store;
use crate::store::batch_tx::BatchTx;
use crate::store::free_seats::{Chooser, FreeSeat, WantedChooser, WantedList};
use crate::store::reservations::BestSeats;
use crate::store::seats::Key;

/// Seats of a list that are read beside those that are wanted: runs of free seats may be shorter than the groups.
const SPARE_SEATS: i64 = 256;

/// A date, and the section if only that is wanted.
type ListKey = (Uuid, Option<String>);

/// The lists of a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct FreeLists {
    lists: BTreeMap<ListKey, FreeList>,
    sales: BTreeMap<ListKey, Sale>,
}

/// Free seats in the order of their rows.
#[derive(Clone, Debug, Default)]
struct FreeList {
    candidates: Vec<Candidate>,
    /// Whether no request of this batch has got the seat, by position.
    is_open: Vec<bool>,
    is_whole: bool,
}

/// When a date is sold, and whether it has the wanted section.
#[derive(Clone, Copy, Debug)]
struct Sale {
    opens_at: DateTime<Utc>,
    ends_at: DateTime<Utc>,
    cancelled_at: Option<DateTime<Utc>>,
    has_section: bool,
}

impl FreeLists {
    pub(super) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    fn note(&mut self, chooser: &Chooser) {
        let sale = Sale {
            opens_at: chooser.sale_opens_at,
            ends_at: chooser.sale_ends_at(),
            cancelled_at: chooser.cancelled_at,
            has_section: chooser.has_section,
        };
        self.sales.insert((chooser.performance_id, chooser.section.clone()), sale);
    }

    /// Takes a list as it was read.
    pub(super) fn insert(&mut self, wanted: &WantedList, mut seats: Vec<FreeSeat>) {
        let is_whole = wanted.most.is_none_or(|most| (seats.len() as i64) < most);
        seats.sort_by(|one, other| (row_of(one), one.seat.number).cmp(&(row_of(other), other.seat.number)));
        let (mut candidates, mut row, mut before) = (Vec::with_capacity(seats.len()), 0, None);
        for seat in &seats {
            let here = Some(row_of(seat));
            if before != here {
                (before, row) = (here, row + 1);
            }
            let kind = match (seat.accessible, seat.companion) {
                (true, _) => SeatKind::Accessible,
                (false, true) => SeatKind::Companion,
                (false, false) => SeatKind::Ordinary,
            };
            candidates.push(Candidate { number: seat.seat.number, rank: seat.rank, row, kind });
        }
        let is_open = vec![true; candidates.len()];
        let key = (wanted.performance_id, wanted.section.clone());
        self.lists.insert(key, FreeList { candidates, is_open, is_whole });
    }

    /// These seats are not free any more.
    pub(super) fn take(&mut self, performance: Uuid, numbers: &[i32]) {
        let of_date = self.lists.iter_mut().filter(|((date, _), _)| *date == performance);
        for (_, list) in of_date {
            for (at, seat) in list.candidates.iter().enumerate() {
                if numbers.contains(&seat.number) {
                    list.is_open[at] = false;
                }
            }
        }
    }

    /// Chooses for a request, without the seats that are not offered to this buyer.
    pub(super) fn choose(&self, performance: Uuid, best: &BestSeats, excepted: &[i32]) -> Choice {
        let Some(list) = self.lists.get(&(performance, best.section.clone())) else {
            return Choice::None { largest_group: 0 };
        };
        let is_offered = |at: usize| list.is_open[at] && !excepted.contains(&list.candidates[at].number);
        choose(&list.candidates, is_offered, best, list.is_whole)
    }

    /// The lists that were cut off and may lack what these jobs want. The seats that the others name count as taken.
    fn too_short(&self, jobs: &[&Job], excepted: impl Fn(&Booking) -> Vec<i32>) -> Vec<WantedList> {
        let mut trial = self.clone();
        for job in jobs.iter().filter(|job| !job.chooses()) {
            trial.take(job.booking.input.performance_id, &job.booking.input.seats);
        }
        let mut short = BTreeSet::new();
        for job in jobs.iter().filter(|job| job.chooses()) {
            let booking = &job.booking;
            let Some(best) = &booking.input.best else { continue };
            let performance = booking.input.performance_id;
            match trial.choose(performance, best, &excepted(booking)) {
                Choice::Seats(numbers) => trial.take(performance, &numbers),
                Choice::CutOff => drop(short.insert((performance, best.section.clone()))),
                Choice::None { .. } => {}
            }
        }
        let whole = |(performance_id, section)| WantedList { performance_id, section, most: None };
        short.into_iter().map(whole).collect()
    }
}

/// Its section and its row.
fn row_of(seat: &FreeSeat) -> (&str, Option<&str>) {
    (&seat.seat.section, seat.row_label.as_deref())
}

impl Work {
    /// The lists that the jobs need, each with as many seats as are wanted, and some more.
    pub(super) fn wanted_lists(&self) -> Vec<WantedList> {
        let mut lists: BTreeMap<ListKey, i64> = BTreeMap::new();
        for input in self.jobs.readable().filter(|job| job.chooses()).map(|job| &job.booking.input) {
            let Some(best) = &input.best else { continue };
            let most = lists.entry((input.performance_id, best.section.clone())).or_insert(SPARE_SEATS);
            *most += 2 * i64::from(best.count);
        }
        let list =
            |((performance_id, section), most)| WantedList { performance_id, section, most: Some(most) };
        lists.into_iter().map(list).collect()
    }

    /// Reads the lists, and what the buyers have who get seats from them.
    pub(super) async fn read_free(
        &mut self,
        attempt: &mut BatchTx,
        lists: Vec<WantedList>,
    ) -> store::Result<()> {
        if lists.is_empty() {
            return Ok(());
        }
        let choosers: Vec<WantedChooser> =
            self.jobs.readable().filter(|job| job.chooses()).map(|job| chooser(&job.booking)).collect();
        let Decisions { limits, owned, dates, balances, free, .. } = &mut self.decisions;
        for chooser in store::free_seats::choosers(attempt, &choosers, limits.ended_holds).await? {
            free.note(&chooser);
            // An earlier read counts: what was read with it is compared, too.
            dates.entry(chooser.performance_id).or_insert(chooser.date_version);
            owned.insert((chooser.buyer, chooser.performance_id), chooser.owned);
            balances.extend(chooser.balance.map(|balance| (chooser.buyer, balance)));
        }
        let jobs: Vec<&Job> = self.jobs.readable().collect();
        let mut missing = lists;
        while !missing.is_empty() {
            let mut found: BTreeMap<i32, Vec<FreeSeat>> = BTreeMap::new();
            for seat in store::free_seats::read(attempt, &missing).await? {
                self.decisions.seats.insert(seat.seat.key(), seat.seat.clone());
                found.entry(seat.list).or_default().push(seat);
            }
            for (position, list) in (0..).zip(&missing) {
                self.decisions.free.insert(list, found.remove(&position).unwrap_or_default());
            }
            let excepted = |booking: &Booking| self.decisions.just_cancelled(booking);
            missing = self.decisions.free.too_short(&jobs, excepted);
        }
        Ok(())
    }
}

fn chooser(booking: &Booking) -> WantedChooser {
    let input = &booking.input;
    WantedChooser {
        performance_id: input.performance_id,
        section: input.best.as_ref().and_then(|best| best.section.clone()),
        buyer: input.user_id,
        pays: input.pay_now,
    }
}

impl Decisions {
    fn is_free(&self, key: Key, now: DateTime<Utc>) -> bool {
        self.seats.get(&key).is_some_and(|seat| seat.status.is_free(seat.claimable_at, now))
    }

    /// The booking with the seats that are chosen for it, or why it gets none.
    pub(super) fn chosen(
        &self,
        booking: &Booking,
        best: &BestSeats,
        now: DateTime<Utc>,
    ) -> Result<Booking, Outcome> {
        let refused = |Refusal { code, detail }| rejected(code, detail);
        let performance = booking.input.performance_id;
        let Some(sale) = self.free.sales.get(&(performance, best.section.clone())) else {
            return Err(rejected("seat_unknown", json!({ "seats": [] })));
        };
        let count = i64::from(best.count);
        let opens_at = self.access.opens_at(booking, count, sale.opens_at, now).map_err(refused)?;
        check_sale(opens_at, sale.ends_at, sale.cancelled_at, now).map_err(refused)?;
        if !sale.has_section {
            return Err(rejected("seat_unknown", json!({ "seats": [], "section": best.section })));
        }
        self.check_limits(booking, count, now).map_err(refused)?;
        match self.free.choose(performance, best, &self.just_cancelled(booking)) {
            Choice::Seats(seats) if !seats.iter().all(|number| self.is_free((performance, *number), now)) => {
                Err(Outcome::Failed { code: "seats_not_read".to_owned() })
            }
            Choice::Seats(seats) => {
                let mut booking = booking.clone();
                booking.input.seats = seats;
                Ok(booking)
            }
            // Other requests of the batch were decided otherwise than the reading expected: the command comes again.
            Choice::CutOff => Err(Outcome::Failed { code: "seats_not_read".to_owned() }),
            Choice::None { largest_group } => {
                Err(rejected("no_seats_together", json!({ "largest_group": largest_group })))
            }
        }
    }
}
