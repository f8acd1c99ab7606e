//! How a buyer finds seats: reads the dates and a map, asks for good seats, and tries others when
//! another buyer was faster.

use std::collections::HashSet;

use rand::RngExt;
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::buyer::{Buyer, unexpected};
use super::client::{Reply, Request, Surprise};
use super::tally::{Call, Happening};
use super::wire::{Date, Page, Reservation, SeatMap};

/// How often a buyer tries other seats.
const TRIES: u32 = 10;
/// A buyer chooses from the better half of the free seats, and from this many at most.
const GOOD_SEATS: usize = 20;

impl Buyer {
    /// Seats held, or none if there were none to be had.
    pub(super) async fn choose(&mut self, concert: Uuid) -> Result<Option<Reservation>, Surprise> {
        // Half of them come alone, a third in twos, the rest in threes.
        let party = [1, 1, 1, 2, 2, 3][self.rng.random_range(0..6)];
        let mut lost = HashSet::new();
        for _ in 0..TRIES {
            if Instant::now() >= self.home_time {
                break;
            }
            let Some(date) = self.find_date(concert, party).await? else {
                self.think(500..1_000).await;
                continue;
            };
            let seats = self.find_seats(date, party, &lost).await?;
            if seats.is_empty() {
                continue;
            }
            self.think(20..200).await;
            if let Some(reservation) = self.reach_for(date, &seats, &mut lost).await? {
                return Ok(Some(reservation));
            }
        }
        Ok(None)
    }

    async fn find_date(&mut self, concert: Uuid, party: usize) -> Result<Option<Uuid>, Surprise> {
        let path = format!("/v1/concerts/{concert}/performances");
        let request = Request::get(Call::Browse, &path).by(&self.bearer).with_place(&self.place);
        let dates: Page<Date> = self.must(&request).await?;
        let enough = |date: &Date| usize::try_from(date.seats_free).is_ok_and(|free| free >= party);
        let good: Vec<Uuid> = dates.items.iter().filter(|date| enough(date)).map(|date| date.id).collect();
        if good.is_empty() {
            return Ok(None);
        }
        Ok(Some(good[self.rng.random_range(0..good.len())]))
    }

    /// Free seats next to each other on the list, near its beginning. May be fewer than wanted; the map may be old.
    async fn find_seats(
        &mut self,
        date: Uuid,
        party: usize,
        lost: &HashSet<(Uuid, i32)>,
    ) -> Result<Vec<i32>, Surprise> {
        let path = format!("/v1/performances/{date}/seats?status=free");
        let request = Request::get(Call::Browse, &path).by(&self.bearer).with_place(&self.place);
        let map: SeatMap = self.must(&request).await?;
        let free: Vec<i32> =
            map.seats.iter().map(|seat| seat.number).filter(|seat| !lost.contains(&(date, *seat))).collect();
        if free.is_empty() {
            return Ok(free);
        }
        let from = self.rng.random_range(0..free.len().div_ceil(2).min(GOOD_SEATS));
        Ok(free.into_iter().skip(from).take(party).collect())
    }

    async fn reach_for(
        &mut self,
        date: Uuid,
        seats: &[i32],
        lost: &mut HashSet<(Uuid, i32)>,
    ) -> Result<Option<Reservation>, Surprise> {
        let wish = json!({ "performance_id": date, "seats": seats });
        let request = Request::post(Call::Reserve, "/v1/reservations", wish);
        match self.send::<Reservation>(&request.by(&self.bearer).with_place(&self.place)).await? {
            Reply::Good(reservation) => {
                let mut got: Vec<i32> = reservation.seats.iter().map(|seat| seat.number).collect();
                got.sort_unstable();
                if reservation.status != "held" || got != seats {
                    return Err(Surprise(format!("asked for seats {seats:?}, got {reservation:?}")));
                }
                Ok(Some(reservation))
            }
            Reply::Refused(problem) if problem.code == "seat_taken" => {
                self.sale.tally.count(Happening::Conflict);
                let named = problem.more.get("seats").and_then(|seats| seats.as_array()).cloned();
                let named: Vec<i32> = named
                    .into_iter()
                    .flatten()
                    .filter_map(|seat| i32::try_from(seat.as_i64()?).ok())
                    .collect();
                if named.is_empty() || named.iter().any(|seat| !seats.contains(seat)) {
                    return Err(Surprise(format!(
                        "asked for seats {seats:?}, and the answer says that {named:?} are taken"
                    )));
                }
                lost.extend(named.into_iter().map(|seat| (date, seat)));
                Ok(None)
            }
            Reply::Refused(problem) => Err(unexpected("reserving", &problem)),
        }
    }
}
