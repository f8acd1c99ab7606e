//! A seat map as it goes out: rendered once, then given to everybody for a moment.

use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::store::catalog::Seat;

/// The JSON of a seat map and the hash of it.
#[derive(Clone, Debug)]
pub struct SeatMap {
    pub json: Bytes,
    /// The strong entity tag, quotes included.
    pub etag: String,
}

/// The shape of the JSON.
#[derive(Serialize, ToSchema)]
pub struct SeatMapBody<'a> {
    performance_id: Uuid,
    seats: &'a [Seat],
}

impl SeatMap {
    /// Renders the seats of a date.
    pub(super) fn render(performance_id: Uuid, seats: &[Seat]) -> Self {
        let body = SeatMapBody { performance_id, seats };
        let json = Bytes::from(serde_json::to_vec(&body).expect("a list of plain structs has a JSON form"));
        let digest = Sha256::digest(&json);
        let hash: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self { json, etag: format!("\"{hash}\"") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::catalog::SeatStatus;

    fn seat(status: SeatStatus) -> Seat {
        Seat { number: 1, section: "A".to_owned(), price: 10, status }
    }

    #[test]
    fn the_tag_changes_with_the_body_and_only_with_it() {
        let free = SeatMap::render(Uuid::nil(), &[seat(SeatStatus::Free)]);
        let same = SeatMap::render(Uuid::nil(), &[seat(SeatStatus::Free)]);
        let held = SeatMap::render(Uuid::nil(), &[seat(SeatStatus::Held)]);
        assert_eq!(free.etag, same.etag);
        assert_ne!(free.etag, held.etag);
        assert!(free.etag.starts_with('"') && free.etag.len() == 34, "{}", free.etag);
    }

    #[test]
    fn the_body_has_the_documented_shape() {
        let map = SeatMap::render(Uuid::nil(), &[seat(SeatStatus::Sold)]);
        let expected = serde_json::json!({
            "performance_id": Uuid::nil(),
            "seats": [{ "number": 1, "section": "A", "price": 10, "status": "sold" }],
        });
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&map.json).unwrap(), expected);
    }
}
