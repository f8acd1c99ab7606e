//! A seat map. The unchanging part of its JSON is rendered once per date, the statuses are filled in for each version,
//! and each response is rendered on its first request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::OnceCell;
use utoipa::ToSchema;
use uuid::Uuid;

use super::document::Document;
use super::seat_history::SeatHistory;
use crate::store::catalog::{Seat, SeatPlace, SeatStatus, TakenSeats};

/// A map with more seats is rendered by a blocking thread, so that the runtime's threads serve other requests.
const INLINE_SEATS_MAX: usize = 2_000;
/// Changes are sent if they are at most this part of all seats. Otherwise the whole map is sent, which is rendered
/// once for all.
const CHANGES_SHARE: usize = 4;

#[derive(Serialize, ToSchema)]
pub struct SeatMapBody<'a> {
    performance_id: Uuid,
    /// The name of this version; a client can send it back as `since`.
    version: &'a str,
    /// If present, only the seats that changed since that version follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<&'a str>,
    seats: &'a [Seat],
}

/// The seats of a date without their status.
#[derive(Debug)]
pub(super) struct Layout {
    performance: Uuid,
    numbers: Vec<i32>,
    /// The JSON of each seat up to its status, and where each one ends.
    text: Vec<u8>,
    ends: Vec<usize>,
    history: Mutex<SeatHistory>,
}

/// The seats of a date at one moment.
#[derive(Debug)]
pub struct SeatMap {
    layout: Arc<Layout>,
    statuses: Arc<[SeatStatus]>,
    /// The number of the version on this instance, and its name.
    number: u64,
    version: Arc<str>,
    /// All seats, then those of each status.
    documents: [OnceCell<Document>; 5],
}

impl Layout {
    /// The seats are sorted by number.
    pub(super) fn of(performance: Uuid, seats: &[SeatPlace]) -> Self {
        let (mut text, mut ends) = (Vec::with_capacity(seats.len() * 64), Vec::with_capacity(seats.len()));
        for seat in seats {
            serde_json::to_writer(&mut text, seat).expect("a plain struct has a JSON form");
            // Removes the closing brace, because the status follows.
            text.pop();
            text.extend_from_slice(b",\"status\":\"");
            ends.push(text.len());
        }
        let numbers = seats.iter().map(|seat| seat.number).collect();
        Self { performance, numbers, text, ends, history: Mutex::default() }
    }

    fn history(&self) -> MutexGuard<'_, SeatHistory> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn prefix(&self, at: usize) -> &[u8] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[at]]
    }
}

impl SeatMap {
    pub(super) fn of(layout: Arc<Layout>, taken: &TakenSeats) -> Self {
        let mut statuses = vec![SeatStatus::Free; layout.numbers.len()];
        let lists = [
            (&taken.held, SeatStatus::Held),
            (&taken.sold, SeatStatus::Sold),
            (&taken.blocked, SeatStatus::Blocked),
        ];
        for (numbers, status) in lists {
            for at in numbers.iter().filter_map(|number| layout.numbers.binary_search(number).ok()) {
                statuses[at] = status;
            }
        }
        let (number, version, statuses) = layout.history().add(layout.performance, statuses);
        Self { layout, statuses, number, version, documents: [const { OnceCell::const_new() }; 5] }
    }

    /// The map as JSON: all seats, or those with one status.
    pub async fn document(self: &Arc<Self>, only: Option<SeatStatus>) -> Document {
        let place = match only {
            None => 0,
            Some(SeatStatus::Free) => 1,
            Some(SeatStatus::Held) => 2,
            Some(SeatStatus::Sold) => 3,
            Some(SeatStatus::Blocked) => 4,
        };
        let render = async || {
            if self.statuses.len() <= INLINE_SEATS_MAX {
                return Document::of(self.render(only));
            }
            let map = Arc::clone(self);
            let rendered = tokio::task::spawn_blocking(move || Document::of(map.render(only))).await;
            rendered.expect("rendering does not panic")
        };
        self.documents[place].get_or_init(render).await.clone()
    }

    /// The seats that changed since a version; `None` if that version is unknown or too many seats changed.
    pub fn changes(&self, since: &str) -> Option<Document> {
        let changed = self.layout.history().between(since, self.number)?;
        let is_small = changed.len() <= self.statuses.len() / CHANGES_SHARE;
        is_small.then(|| {
            let seats = changed.into_iter().map(|at| at as usize);
            Document::of(self.write(Some(since), seats))
        })
    }

    fn render(&self, only: Option<SeatStatus>) -> Vec<u8> {
        let wanted = self.statuses.iter().enumerate();
        let wanted = wanted.filter(|(_, status)| only.is_none_or(|only| only == **status));
        self.write(None, wanted.map(|(at, _)| at))
    }

    fn write(&self, since: Option<&str>, seats: impl Iterator<Item = usize>) -> Vec<u8> {
        let (performance, version) = (self.layout.performance, &self.version);
        // A known version is a hash, so it needs no escaping.
        let since = since.map(|since| format!(",\"since\":\"{since}\"")).unwrap_or_default();
        let head =
            format!("{{\"performance_id\":\"{performance}\",\"version\":\"{version}\"{since},\"seats\":[");
        let longest = self.layout.text.len() + self.statuses.len() * 8;
        let mut json = Vec::with_capacity(if since.is_empty() { longest + head.len() + 2 } else { 1 << 10 });
        json.extend_from_slice(head.as_bytes());
        for at in seats {
            json.extend_from_slice(self.layout.prefix(at));
            json.extend_from_slice(self.statuses[at].as_str().as_bytes());
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
    use crate::store::catalog::PlanPlace;

    /// Every second seat has a place on the plan.
    fn plan(number: i32) -> PlanPlace {
        match number % 2 {
            0 => PlanPlace {
                row: Some("\"K\"".to_owned()),
                x: Some(-3),
                accessible: true,
                ..PlanPlace::default()
            },
            _ => PlanPlace::default(),
        }
    }

    fn place(number: i32, section: &str) -> SeatPlace {
        SeatPlace { number, section: section.to_owned(), price: 10, plan: plan(number) }
    }

    fn map(taken: &TakenSeats) -> Arc<SeatMap> {
        let seats: Vec<SeatPlace> =
            [(1, "A"), (2, "\"B\"\\"), (7, "C")].map(|(number, section)| place(number, section)).to_vec();
        Arc::new(SeatMap::of(Arc::new(Layout::of(Uuid::nil(), &seats)), taken))
    }

    fn taken(held: &[i32], sold: &[i32]) -> TakenSeats {
        TakenSeats { layout_version: 1, held: held.to_vec(), sold: sold.to_vec(), blocked: Vec::new() }
    }

    #[tokio::test]
    async fn etag_changes_only_with_the_body() {
        let tag = async |held: &[i32], only| map(&taken(held, &[])).document(only).await.etag;
        assert_eq!(tag(&[1], None).await, tag(&[1], None).await);
        assert_ne!(tag(&[1], None).await, tag(&[2], None).await);
        assert_ne!(tag(&[1], None).await, tag(&[1], Some(SeatStatus::Free)).await);
        let tag = tag(&[], None).await;
        assert!(tag.starts_with('"') && tag.len() == 34, "{tag}");
    }

    #[tokio::test]
    async fn the_body_has_the_documented_shape() {
        let map = map(&taken(&[2], &[7, 99]));
        let seat = |number, section: &str, status| Seat {
            number,
            section: section.to_owned(),
            price: 10,
            plan: plan(number),
            status,
        };
        let all = [
            seat(1, "A", SeatStatus::Free),
            seat(2, "\"B\"\\", SeatStatus::Held),
            seat(7, "C", SeatStatus::Sold),
        ];
        let check = async |only, seats: &[Seat]| {
            let body = SeatMapBody { performance_id: Uuid::nil(), version: &map.version, since: None, seats };
            let body = serde_json::to_string(&body).unwrap();
            assert_eq!(std::str::from_utf8(&map.document(only).await.json).unwrap(), body);
        };
        check(None, &all).await;
        check(Some(SeatStatus::Free), &all[..1]).await;
        check(Some(SeatStatus::Held), &all[1..2]).await;
        check(Some(SeatStatus::Sold), &all[2..]).await;
    }

    #[tokio::test]
    async fn filter_without_matches_gives_an_empty_list() {
        let json = map(&taken(&[], &[])).document(Some(SeatStatus::Sold)).await.json;
        assert!(json.ends_with(b"\"seats\":[]}"), "{json:?}");
    }

    #[test]
    fn changes_have_the_shape_of_a_map() {
        let seats: Vec<SeatPlace> = (1..=8).map(|number| place(number, "A")).collect();
        let layout = Arc::new(Layout::of(Uuid::nil(), &seats));
        let before = SeatMap::of(Arc::clone(&layout), &taken(&[], &[]));
        let after = SeatMap::of(layout, &taken(&[3], &[7]));
        let seat =
            |number, status| Seat { number, section: "A".to_owned(), price: 10, plan: plan(number), status };
        let body = SeatMapBody {
            performance_id: Uuid::nil(),
            version: &after.version,
            since: Some(&before.version),
            seats: &[seat(3, SeatStatus::Held), seat(7, SeatStatus::Sold)],
        };
        let changes = after.changes(&before.version).unwrap();
        assert_eq!(std::str::from_utf8(&changes.json).unwrap(), serde_json::to_string(&body).unwrap());
        assert!(after.changes("unknown").is_none() && before.changes(&after.version).is_none());
        let much = SeatMap::of(Arc::clone(&after.layout), &taken(&[1, 2, 3], &[4, 5, 6, 7]));
        assert!(much.changes(&after.version).is_none(), "the whole map is sent instead");
    }
}
