//! The concerts that `up` loads, so that there is something to buy: fixed ids, loaded once.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::catalog::{self, NewConcert, Performance, SeatRange};

/// All ids below are this one plus a small number.
const FIRST_ID: u128 = 0x0198_c0de_0000_7000_8000_0000_0000_0000;
/// Seats of each date of a small house.
const SMALL_HOUSE: [Section; 3] = [(20, "Stalls", 100), (20, "Circle", 75), (10, "Balcony", 50)];
/// Seats of each date of an arena.
const ARENA: [Section; 5] =
    [(240, "Floor", 100), (180, "Left", 80), (180, "Right", 80), (360, "Circle", 60), (240, "Balcony", 40)];

/// A section: how many seats, its name, and its price in hundredths of the entry's.
type Section = (i32, &'static str, i64);

/// A concert of the programme.
struct Entry {
    number: u8,
    name: &'static str,
    description: &'static str,
    venue: &'static str,
    minutes: i32,
    /// Days from today to each date.
    dates: &'static [i64],
    /// Days until the sale opens.
    opens_in: i64,
    /// Points for the dearest seat; the others follow from it.
    price: i64,
    house: &'static [Section],
    /// Bounds of its line (active at once, admitted per minute), below those of the settings.
    line: (i32, i32),
}

/// A line that is bounded by the settings alone.
const UNBOUNDED: (i32, i32) = (i32::MAX, i32::MAX);

const PROGRAMME: [Entry; 5] = [
    Entry {
        number: 1,
        name: "Moonlight Sonatas",
        description: "Three late evenings at the piano, played by candlelight.",
        venue: "Harbour Hall",
        minutes: 120,
        dates: &[60, 61, 62],
        opens_in: 0,
        price: 12_000,
        house: &SMALL_HOUSE,
        line: UNBOUNDED,
    },
    Entry {
        number: 2,
        name: "The Long Encore",
        description: "The farewell tour that was asked for once more.",
        venue: "Riverside Arena",
        minutes: 150,
        dates: &[65, 66, 68],
        opens_in: 0,
        price: 15_000,
        house: &SMALL_HOUSE,
        line: UNBOUNDED,
    },
    Entry {
        number: 3,
        name: "Brass at Dawn",
        description: "Eleven trumpets, one sunrise. Coffee is included.",
        venue: "Old Quarry Stage",
        minutes: 75,
        dates: &[58, 72],
        opens_in: 0,
        price: 6_000,
        house: &SMALL_HOUSE,
        line: UNBOUNDED,
    },
    Entry {
        number: 4,
        name: "Winter Gala",
        description: "Its sale opens in a month; the line may form later.",
        venue: "City Opera",
        minutes: 180,
        dates: &[120, 121],
        opens_in: 30,
        price: 20_000,
        house: &SMALL_HOUSE,
        line: UNBOUNDED,
    },
    Entry {
        number: 5,
        name: "City Lights Live",
        description: "An arena, two nights, and a line that is worth watching.",
        venue: "North Quay Arena",
        minutes: 140,
        dates: &[75, 76],
        opens_in: 0,
        price: 25_000,
        house: &ARENA,
        // A crowd of some hundred buyers waits a minute or two.
        line: (60, 240),
    },
];

/// Adds the demo concerts that are not there yet. Their dates count from `now`; a second call, also by another
/// process at the same moment, changes nothing. `max_active` and `admit_per_minute` are how their lines start.
pub async fn load(
    pool: &PgPool,
    now: DateTime<Utc>,
    max_active: i32,
    admit_per_minute: i32,
) -> Result<(), sqlx::Error> {
    let mut tx = pool.begin().await?;
    for entry in &PROGRAMME {
        let id = concert_id(entry.number);
        let concert = NewConcert {
            id,
            name: entry.name,
            description: entry.description,
            max_active: max_active.min(entry.line.0),
            admit_per_minute: admit_per_minute.min(entry.line.1),
        };
        catalog::insert_concert(&mut tx, &concert).await?;
        for (index, days) in entry.dates.iter().enumerate() {
            let performance = date(entry, index, now + TimeDelta::days(*days), now);
            catalog::insert_performance(&mut tx, &performance, &sections(entry)).await?;
        }
    }
    tx.commit().await
}

fn concert_id(number: u8) -> Uuid {
    Uuid::from_u128(FIRST_ID + (u128::from(number) << 8))
}

fn date(entry: &Entry, index: usize, starts_at: DateTime<Utc>, now: DateTime<Utc>) -> Performance {
    Performance {
        id: Uuid::from_u128(concert_id(entry.number).as_u128() + 1 + index as u128),
        concert_id: concert_id(entry.number),
        venue: entry.venue.to_owned(),
        starts_at,
        duration_minutes: entry.minutes,
        // A little in the past, so that a clock that is slightly behind agrees that the sale is open.
        sale_opens_at: now + TimeDelta::days(entry.opens_in) - TimeDelta::minutes(5),
        sale_closes_at: starts_at - TimeDelta::hours(1),
        seats_total: entry.house.iter().map(|(seats, _, _)| seats).sum(),
    }
}

fn sections(entry: &Entry) -> Vec<SeatRange> {
    let mut from = 1;
    let section = |(seats, name, hundredths): &Section| {
        let first = from;
        from += seats;
        SeatRange {
            from: first,
            to: from - 1,
            section: (*name).to_owned(),
            price: entry.price * hundredths / 100,
        }
    };
    entry.house.iter().map(section).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_ids_and_seats_from_1_on() {
        let mut ids = std::collections::BTreeSet::new();
        for entry in &PROGRAMME {
            assert!(ids.insert(concert_id(entry.number)));
            let seats: Vec<i32> = sections(entry).iter().flat_map(|range| range.from..=range.to).collect();
            assert_eq!(seats, (1..=if entry.number == 5 { 1_200 } else { 50 }).collect::<Vec<_>>());
            for index in 0..entry.dates.len() {
                let date = date(entry, index, Utc::now(), Utc::now());
                assert!(ids.insert(date.id), "{} has an id twice", entry.name);
            }
        }
        assert_eq!(ids.len(), 5 + 12);
    }
}
