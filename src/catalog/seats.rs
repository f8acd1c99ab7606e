//! A seat map: what never changes about the seats is written once, each new state of them is filled in, and each
//! answer is rendered when it is first asked for.

use std::sync::{Arc, OnceLock};

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::Document;
use crate::store::catalog::{Seat, SeatPlace, SeatStatus, TakenSeats};

/// The shape of a seat map's JSON.
#[derive(Serialize, ToSchema)]
pub struct SeatMapBody<'a> {
    performance_id: Uuid,
    seats: &'a [Seat],
}

/// The seats of a date without their state.
#[derive(Debug)]
pub(super) struct Layout {
    performance: Uuid,
    numbers: Vec<i32>,
    /// The JSON of each seat up to its status, one after the other, and where each ends.
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// The seats of a date as they stood at a moment.
#[derive(Debug)]
pub struct SeatMap {
    layout: Arc<Layout>,
    statuses: Vec<SeatStatus>,
    /// All seats, then those of each status.
    documents: [OnceLock<Document>; 4],
}

impl Layout {
    /// Writes down seats that are given by number.
    pub(super) fn of(performance: Uuid, seats: &[SeatPlace]) -> Self {
        let (mut text, mut ends) = (Vec::with_capacity(seats.len() * 64), Vec::with_capacity(seats.len()));
        for seat in seats {
            serde_json::to_writer(&mut text, seat).expect("a plain struct has a JSON form");
            // Its brace is closed when the status is known.
            text.pop();
            text.extend_from_slice(b",\"status\":\"");
            ends.push(text.len());
        }
        Self { performance, numbers: seats.iter().map(|seat| seat.number).collect(), text, ends }
    }

    fn begun(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }
}

impl SeatMap {
    /// The map of a date in which these seats are taken.
    pub(super) fn of(layout: Arc<Layout>, taken: &TakenSeats) -> Self {
        let mut statuses = vec![SeatStatus::Free; layout.numbers.len()];
        for (numbers, status) in [(&taken.held, SeatStatus::Held), (&taken.sold, SeatStatus::Sold)] {
            for at in numbers.iter().filter_map(|number| layout.numbers.binary_search(number).ok()) {
                statuses[at] = status;
            }
        }
        Self { layout, statuses, documents: [const { OnceLock::new() }; 4] }
    }

    /// The map as it goes out: all seats, or those with one status.
    pub fn document(&self, only: Option<SeatStatus>) -> &Document {
        let place = match only {
            None => 0,
            Some(SeatStatus::Free) => 1,
            Some(SeatStatus::Held) => 2,
            Some(SeatStatus::Sold) => 3,
        };
        self.documents[place].get_or_init(|| Document::of(self.render(only)))
    }

    fn render(&self, only: Option<SeatStatus>) -> Vec<u8> {
        let wanted = self.statuses.iter().enumerate();
        let wanted = wanted.filter(|(_, status)| only.is_none_or(|only| only == **status));
        let mut json = Vec::with_capacity(self.layout.text.len() + self.statuses.len() * 8 + 128);
        json.extend_from_slice(
            format!("{{\"performance_id\":\"{}\",\"seats\":[", self.layout.performance).as_bytes(),
        );
        for (at, status) in wanted {
            json.extend_from_slice(self.layout.begun(at));
            json.extend_from_slice(status.as_str().as_bytes());
            json.extend_from_slice(b"\"},");
        }
        json.pop_if(|last| *last == b',');
        json.extend_from_slice(b"]}");
        json
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(taken: &TakenSeats) -> SeatMap {
        let seats: Vec<SeatPlace> = [(1, "A"), (2, "\"B\"\\"), (7, "C")]
            .map(|(number, section)| SeatPlace { number, section: section.to_owned(), price: 10 })
            .to_vec();
        SeatMap::of(Arc::new(Layout::of(Uuid::nil(), &seats)), taken)
    }

    fn taken(held: &[i32], sold: &[i32]) -> TakenSeats {
        TakenSeats { held: held.to_vec(), sold: sold.to_vec() }
    }

    #[test]
    fn the_tag_changes_with_the_body_and_only_with_it() {
        let tag = |held: &[i32], only| map(&taken(held, &[])).document(only).etag.clone();
        assert_eq!(tag(&[1], None), tag(&[1], None));
        assert_ne!(tag(&[1], None), tag(&[2], None));
        assert_ne!(tag(&[1], None), tag(&[1], Some(SeatStatus::Free)));
        let tag = tag(&[], None);
        assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    }

    #[test]
    fn the_body_has_the_documented_shape() {
        let map = map(&taken(&[2], &[7, 99]));
        let seat =
            |number, section: &str, status| Seat { number, section: section.to_owned(), price: 10, status };
        let all = [
            seat(1, "A", SeatStatus::Free),
            seat(2, "\"B\"\\", SeatStatus::Held),
            seat(7, "C", SeatStatus::Sold),
        ];
        let check = |only, seats: &[Seat]| {
            let body = serde_json::to_string(&SeatMapBody { performance_id: Uuid::nil(), seats }).unwrap();
            assert_eq!(std::str::from_utf8(&map.document(only).json).unwrap(), body);
        };
        check(None, &all);
        check(Some(SeatStatus::Free), &all[..1]);
        check(Some(SeatStatus::Held), &all[1..2]);
        check(Some(SeatStatus::Sold), &all[2..]);
    }

    #[test]
    fn a_filter_that_nothing_passes_gives_an_empty_list() {
        let json = map(&taken(&[], &[])).document(Some(SeatStatus::Sold)).json.clone();
        assert!(json.ends_with(b"\"seats\":[]}"), "{json:?}");
    }
}
