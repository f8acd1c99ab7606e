//! The body of a reservation: seats by their numbers, or a wish that the service fulfils with the best free ones.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Array, ArrayBuilder};
use utoipa::openapi::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use uuid::Uuid;

use super::error::Code;
use super::problem::{Problem, Result};
use super::request::Bodied;
use super::validation::{Validate, Validation};
use crate::store::reservations::BestSeats;

/// How long the name of a section may be, in characters.
const SECTION_CHARS: RangeInclusive<usize> = 1..=100;
/// How long an access code may be, with its spaces and hyphens.
const CODE_CHARS: RangeInclusive<usize> = 1..=64;

/// Seats to be held: exactly one of `seats` and `best` says which.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewReservation {
    pub performance_id: Uuid,
    #[serde(default)]
    #[schema(schema_with = seat_numbers)]
    seats: Option<Vec<i64>>,
    #[serde(default)]
    best: Option<BestWanted>,
    /// For a date that is sold to buyers with an access code first.
    #[serde(default)]
    #[schema(format = "line", min_length = 1, max_length = 64)]
    pub access_code: Option<String>,
    /// Pay for them at once, with the buyer's points.
    #[serde(default)]
    pub pay: bool,
    /// Who buys: with a cashier's key only, and then needed.
    #[serde(default)]
    pub user_id: Option<Uuid>,
}

/// The best free seats, by the order that the date defines.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct BestWanted {
    /// How many: all of them, or none.
    #[schema(minimum = 1)]
    count: i64,
    /// In this section; in any, if it is left out.
    #[serde(default)]
    #[schema(format = "line", min_length = 1, max_length = 100)]
    section: Option<String>,
    /// Next to each other; otherwise the best ones wherever they are.
    #[serde(default = "is_together")]
    #[schema(default = true)]
    together: bool,
    /// At least one of them is accessible. Others are offered accessible seats last.
    #[serde(default)]
    accessible: bool,
}

fn is_together() -> bool {
    true
}

/// Seats as a body names them.
fn seat_numbers() -> Array {
    let number = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .minimum(Some(1));
    ArrayBuilder::new()
        .items(number)
        .min_items(Some(1))
        .unique_items(true)
        .description(Some("Numbers of seats, all or none"))
        .build()
}

impl Bodied for NewReservation {}

impl Validate for NewReservation {
    fn check(&self, faults: &mut Validation) {
        if let Some(code) = &self.access_code {
            faults.expect_line(code, CODE_CHARS, "/access_code");
        }
        match (&self.seats, &self.best) {
            (Some(seats), None) => faults.expect(!seats.is_empty(), "/seats", "must name one seat or more"),
            (None, Some(best)) => best.check(faults),
            (None, None) => faults.expect(false, "/seats", "must be there, or best instead"),
            (Some(_), Some(_)) => faults.expect(false, "/best", "must not be there beside seats"),
        }
    }
}

impl BestWanted {
    fn check(&self, faults: &mut Validation) {
        faults.expect(self.count >= 1, "/best/count", "must be 1 or more");
        if let Some(section) = &self.section {
            faults.expect_line(section, SECTION_CHARS, "/best/section");
        }
    }
}

impl NewReservation {
    /// Looks at each seat, unless there are more than one reservation may have: that is for [`Self::seats`] to refuse,
    /// however many there are.
    pub fn check_each(&self, most: u32) -> Result<()> {
        if self.is_over(most) {
            return Ok(());
        }
        let (mut faults, mut seen) = (Validation::default(), HashSet::new());
        for (at, number) in self.seats.iter().flatten().enumerate() {
            faults.expect(*number > 0, format!("/seats/{at}"), "must be 1 or more");
            faults.expect(seen.insert(number), format!("/seats/{at}"), "is there twice");
        }
        faults.finish()
    }

    fn is_over(&self, most: u32) -> bool {
        let named = self.seats.as_ref().map_or(0, |seats| seats.len() as i64);
        named.max(self.best.as_ref().map_or(0, |best| best.count)) > i64::from(most)
    }

    /// The seats in order, or how they are to be chosen; 422 for more than one reservation may have, and for numbers that no seat
    /// can have.
    pub fn seats(self, most: u32) -> Result<(Vec<i32>, Option<BestSeats>)> {
        if self.is_over(most) {
            let detail = format!("A reservation may have {most} seats at most.");
            return Err(Problem::new(Code::TooManySeats, detail).with("limit", most));
        }
        let best = self.best.map(|BestWanted { count, section, together, accessible }| BestSeats {
            count: i32::try_from(count).unwrap_or(i32::MAX),
            section,
            together,
            accessible,
        });
        Ok((numbers(self.seats.unwrap_or_default())?, best))
    }
}

fn numbers(seats: Vec<i64>) -> Result<Vec<i32>> {
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for number in seats {
        match i32::try_from(number) {
            Ok(number) => known.push(number),
            Err(_) => unknown.push(number),
        }
    }
    if !unknown.is_empty() {
        return Err(Problem::new(Code::SeatUnknown, "There are no such seats.").with("seats", unknown));
    }
    known.sort_unstable();
    Ok(known)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wanted(seats: &[i64]) -> NewReservation {
        let (seats, best, access_code, user_id) = (Some(seats.to_vec()), None, None, None);
        NewReservation { performance_id: Uuid::nil(), seats, best, access_code, pay: false, user_id }
    }

    #[track_caller]
    fn check(wanted: &NewReservation, pointers: &[&str]) {
        let mut faults = Validation::default();
        wanted.check(&mut faults);
        let found = faults.finish().and_then(|()| wanted.check_each(4)).err();
        let found = found.map(|problem| problem.body()["errors"].clone());
        let expected: Vec<_> = pointers.iter().map(|pointer| json!(pointer)).collect();
        let found: Vec<_> = found
            .iter()
            .flat_map(|errors| errors.as_array().unwrap())
            .map(|e| e["pointer"].clone())
            .collect();
        assert_eq!(found, expected, "{wanted:?}");
    }

    #[test]
    fn seats_are_positive_and_named_once() {
        check(&wanted(&[1, 2, 50]), &[]);
        check(&wanted(&[]), &["/seats"]);
        check(&wanted(&[1, 0, -3]), &["/seats/1", "/seats/2"]);
        check(&wanted(&[7, 8, 7]), &["/seats/2"]);
        check(&wanted(&[3_000_000_000]), &[]);
        // One too many: none of them is looked at.
        check(&wanted(&[0, 0, 0, 0, 0]), &[]);
    }

    #[test]
    fn unknown_and_too_many_seats_are_refused() {
        let numbers = |seats: &[i64]| wanted(seats).seats(3).map(|(seats, _)| seats);
        assert_eq!(numbers(&[3, 1, 2]).unwrap(), [1, 2, 3]);
        assert_eq!(numbers(&[3_000_000_000]).unwrap_err().code(), Code::SeatUnknown);
        assert_eq!(numbers(&[1, 2, 3, 4]).unwrap_err().code(), Code::TooManySeats);
    }

    #[test]
    fn seats_are_named_or_chosen() {
        let body = |more: Value| {
            let mut body = json!({ "performance_id": Uuid::nil() });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            serde_json::from_value::<NewReservation>(body).unwrap()
        };
        check(&body(json!({})), &["/seats"]);
        check(&body(json!({ "seats": [1], "best": { "count": 1 } })), &["/best"]);
        check(&body(json!({ "best": { "count": 0, "section": "" } })), &["/best/count", "/best/section"]);
        let two = body(json!({ "best": { "count": 2 } }));
        check(&two, &[]);
        let best = BestSeats { count: 2, section: None, together: true, accessible: false };
        assert_eq!(two.clone().seats(2).unwrap(), (Vec::new(), Some(best)));
        assert_eq!(two.seats(1).unwrap_err().code(), Code::TooManySeats);
    }
}
