//! The cursor of a row: which export it belongs to, and the key of the row.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::Export;

/// The key of a row of an export. `seat` is 0 unless the key has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub id: Uuid,
    pub seat: i32,
}

impl Position {
    /// Before all rows: no row has the nil id.
    pub const START: Self = Self { id: Uuid::nil(), seat: 0 };

    /// The text that a client sends to go on after this row.
    pub fn cursor(self, export: Export) -> String {
        let mut bytes = vec![tag(export)];
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.seat.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position that a cursor of this export names; none if the text is no such cursor.
    pub fn of_cursor(cursor: &str, export: Export) -> Option<Self> {
        let bytes: [u8; 21] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
        let (head, rest) = bytes.split_first()?;
        let (id, seat) = rest.split_at(16);
        let position =
            Self { id: Uuid::from_slice(id).ok()?, seat: i32::from_be_bytes(seat.try_into().ok()?) };
        (*head == tag(export)).then_some(position)
    }
}

/// Keeps the cursor of one export from being taken for that of another.
fn tag(export: Export) -> u8 {
    match export {
        Export::Reservations => b'r',
        Export::Ledger => b'l',
        Export::Tickets => b't',
        Export::Redemptions => b'd',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids;

    #[test]
    fn cursor_leads_back_to_its_row() {
        let position = Position { id: ids::new(), seat: 100_000 };
        let cursor = position.cursor(Export::Tickets);
        assert_eq!(cursor.len(), 28);
        assert_eq!(Position::of_cursor(&cursor, Export::Tickets), Some(position));
        assert_eq!(Position::of_cursor(&cursor, Export::Ledger), None);
        for bad in ["", "a", "%%", &cursor[1..], &format!("{cursor}AAAA")] {
            assert_eq!(Position::of_cursor(bad, Export::Tickets), None, "{bad:?}");
        }
    }
}
