//! The seats of a new date, range by range, with their places if there is a plan of the hall.

use std::ops::RangeInclusive;

use serde::Deserialize;
use utoipa::ToSchema;

use super::validation::Validation;
use crate::store::catalog::SeatRange;
use crate::store::seat_places::PlacedRange;
use crate::text;

/// The most seats of one date.
const SEATS_MAX: i64 = 100_000;
/// The dearest seat, in points.
const PRICE_MAX: i64 = 10_000_000;
/// How long the name of a section may be, in characters.
const SECTION_CHARS: RangeInclusive<usize> = 1..=100;
/// How long the label of a row may be, in characters.
const ROW_CHARS: RangeInclusive<usize> = 1..=20;
/// The highest rank, and the highest label of a seat.
const RANK_MAX: i32 = 1_000_000;
/// The farthest place on a plan, in its own unit.
const PLACE_MAX: i32 = 1_000_000;
/// The largest distance between two seats on a plan.
const STEP_MAX: i32 = 1_000;

/// The seats `from` to `to`, both included. If a range has a field of a place, all seats of the date have places.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct SeatsWanted {
    #[schema(minimum = 1)]
    from: i32,
    #[schema(minimum = 1)]
    to: i32,
    #[schema(format = "line", min_length = 1, max_length = 100)]
    section: String,
    /// In points.
    #[schema(minimum = 0, maximum = 10_000_000)]
    price: i64,
    /// The row of the seats. Seats of one row with consecutive numbers are next to each other.
    #[serde(default)]
    #[schema(format = "line", min_length = 1, max_length = 20)]
    row: Option<String>,
    /// What stands on the first seat; the others count on.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000)]
    first_label: Option<i32>,
    /// Where the first seat is on the plan of the hall, in its own unit.
    #[serde(default)]
    #[schema(minimum = -1_000_000, maximum = 1_000_000)]
    x: Option<i32>,
    #[serde(default)]
    #[schema(minimum = -1_000_000, maximum = 1_000_000)]
    y: Option<i32>,
    /// How far the next seat is to the right; 1, if it is left out.
    #[serde(default)]
    #[schema(minimum = -1_000, maximum = 1_000)]
    x_step: Option<i32>,
    /// Seats with a lower rank are better. The position of the range in the list, if it is left out.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000)]
    rank: Option<i32>,
    /// For who needs an accessible seat. Others are offered it last.
    #[serde(default)]
    accessible: bool,
    /// For who comes along with them.
    #[serde(default)]
    companion: bool,
}

/// Checks how many seats there are, then each range, as long as faults are still noted.
pub fn check_seats(ranges: &[SeatsWanted], faults: &mut Validation) {
    // A range may have its ends the wrong way round.
    let total: i64 = ranges.iter().map(|range| range.count().max(0)).sum();
    let good = (1..=SEATS_MAX).contains(&total) && ranges.len() as i64 <= SEATS_MAX;
    faults.expect(good, "/seats", format!("must add up to between 1 and {SEATS_MAX} seats"));
    if total > SEATS_MAX {
        return;
    }
    for (at, range) in ranges.iter().enumerate().filter(|(_, range)| !range.is_good()) {
        if faults.is_full() {
            return;
        }
        range.check(faults, &format!("/seats/{at}"));
    }
    for (at, number) in overlaps(ranges) {
        let reason = format!("has seat {number}, which is in another range as well");
        faults.expect(false, format!("/seats/{at}"), reason);
    }
}

/// Refuses places, where only sections and prices can be given.
pub fn refuse_places(ranges: &[SeatsWanted], faults: &mut Validation) {
    for (at, _) in ranges.iter().enumerate().filter(|(_, range)| range.has_place()) {
        faults.expect(false, format!("/seats/{at}"), "has a place, which cannot be changed");
    }
}

/// The places of all seats, if there is one; with a range that has none, the rank of its position.
pub fn placed(ranges: &[SeatsWanted]) -> Vec<PlacedRange> {
    if !ranges.iter().any(SeatsWanted::has_place) {
        return Vec::new();
    }
    ranges.iter().zip(0..).map(|(range, position)| range.placed(position)).collect()
}

impl SeatsWanted {
    /// How many seats the range has; not positive, if its ends are the wrong way round.
    pub fn count(&self) -> i64 {
        i64::from(self.to) - i64::from(self.from) + 1
    }

    fn is_good(&self) -> bool {
        let section = text::line_problem(&self.section, &SECTION_CHARS).is_none();
        let is_sold =
            self.from >= 1 && self.to >= self.from && (0..=PRICE_MAX).contains(&self.price) && section;
        is_sold && !self.has_place()
    }

    fn check(&self, faults: &mut Validation, at: &str) {
        faults.expect(self.from >= 1, format!("{at}/from"), "must be 1 or more");
        faults.expect(self.to >= self.from, format!("{at}/to"), "must not be less than from");
        faults.expect_line(&self.section, SECTION_CHARS, &format!("{at}/section"));
        let price = format!("must be between 0 and {PRICE_MAX}");
        faults.expect((0..=PRICE_MAX).contains(&self.price), format!("{at}/price"), price);
        if let Some(row) = &self.row {
            faults.expect_line(row, ROW_CHARS, &format!("{at}/row"));
        }
        let bounds = [
            ("first_label", self.first_label, 0, RANK_MAX),
            ("x", self.x, -PLACE_MAX, PLACE_MAX),
            ("y", self.y, -PLACE_MAX, PLACE_MAX),
            ("x_step", self.x_step, -STEP_MAX, STEP_MAX),
            ("rank", self.rank, 0, RANK_MAX),
        ];
        for (field, value, least, most) in bounds {
            let is_good = value.is_none_or(|value| (least..=most).contains(&value));
            faults.expect(is_good, format!("{at}/{field}"), format!("must be between {least} and {most}"));
        }
        let both = self.accessible && self.companion;
        faults.expect(!both, format!("{at}/companion"), "cannot be combined with accessible");
    }

    fn has_place(&self) -> bool {
        let numbers = [self.first_label, self.x, self.y, self.x_step, self.rank];
        self.row.is_some() || numbers.iter().any(Option::is_some) || self.accessible || self.companion
    }

    fn placed(&self, position: i32) -> PlacedRange {
        PlacedRange {
            from: self.from,
            to: self.to,
            rank: self.rank.unwrap_or(position),
            row_label: self.row.clone(),
            first_label: self.first_label,
            x: self.x,
            y: self.y,
            x_step: self.x_step.unwrap_or(1),
            accessible: self.accessible,
            companion: self.companion,
        }
    }
}

impl From<SeatsWanted> for SeatRange {
    fn from(SeatsWanted { from, to, section, price, .. }: SeatsWanted) -> Self {
        Self { from, to, section, price }
    }
}

/// Ranges that begin within another one: where in the list, and with which number; the first twenty are enough.
fn overlaps(ranges: &[SeatsWanted]) -> Vec<(usize, i32)> {
    let mut sorted: Vec<(usize, &SeatsWanted)> = ranges.iter().enumerate().collect();
    sorted.sort_by_key(|(_, range)| range.from);
    let mut last = i32::MIN;
    let mut found = Vec::new();
    for (at, range) in sorted {
        if range.from <= last {
            found.push((at, range.from));
            if found.len() == 20 {
                break;
            }
        }
        last = last.max(range.to);
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ranges(list: &Value) -> Vec<SeatsWanted> {
        serde_json::from_value(list.clone()).unwrap()
    }

    #[test]
    fn places_have_bounds() {
        let mut faults = Validation::default();
        let list = json!([
            { "from": 1, "to": 2, "section": "A", "price": 1, "row": "", "rank": -1, "x": 1_000_001 },
            { "from": 3, "to": 4, "section": "A", "price": 1, "accessible": true, "companion": true },
            { "from": 5, "to": 6, "section": "A", "price": 1, "row": "B", "x": -5, "x_step": -1 },
        ]);
        check_seats(&ranges(&list), &mut faults);
        let body = faults.finish().unwrap_err().body();
        let pointers: Vec<&str> = body["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fault| fault["pointer"].as_str().unwrap())
            .collect();
        assert_eq!(pointers, ["/seats/0/row", "/seats/0/x", "/seats/0/rank", "/seats/1/companion"]);
    }

    #[test]
    fn one_place_gives_all_seats_places() {
        let plain = json!({ "from": 1, "to": 2, "section": "A", "price": 1 });
        let row = json!({ "from": 3, "to": 4, "section": "A", "price": 1, "row": "B" });
        assert!(placed(&ranges(&json!([plain]))).is_empty());
        let all = placed(&ranges(&json!([row, plain])));
        let ranks: Vec<(i32, i32, Option<&str>)> =
            all.iter().map(|range| (range.from, range.rank, range.row_label.as_deref())).collect();
        assert_eq!(ranks, [(3, 0, Some("B")), (1, 1, None)]);
    }
}
