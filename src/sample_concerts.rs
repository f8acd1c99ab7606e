//! The concerts that `up` loads, so that there is something to buy: fixed ids, loaded once.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use uuid::Uuid;

use crate::store::catalog::{self, NewConcert, Performance, SeatRange};

/// All ids below are this one plus a small number.
const FIRST_ID: u128 = 0x0198_c0de_0000_7000_8000_0000_0000_0000;
/// Seats of each date.
const SEATS: i32 = 50;

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
    /// Points for a seat in the stalls; the others follow from it.
    price: i64,
}

const PROGRAMME: [Entry; 4] = [
    Entry {
        number: 1,
        name: "Moonlight Sonatas",
        description: "Three late evenings at the piano, played by candlelight.",
        venue: "Harbour Hall",
        minutes: 120,
        dates: &[60, 61, 62],
        opens_in: 0,
        price: 12_000,
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
        let concert =
            NewConcert { id, name: entry.name, description: entry.description, max_active, admit_per_minute };
        catalog::insert_concert(&mut tx, &concert).await?;
        for (index, days) in entry.dates.iter().enumerate() {
            let performance = date(entry, index, now + TimeDelta::days(*days), now);
            catalog::insert_performance(&mut tx, &performance, &sections(entry.price)).await?;
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
        seats_total: SEATS,
    }
}

fn sections(price: i64) -> [SeatRange; 3] {
    let section = |from, to, name: &str, price| SeatRange { from, to, section: name.to_owned(), price };
    [
        section(1, 20, "Stalls", price),
        section(21, 40, "Circle", price * 3 / 4),
        section(41, SEATS, "Balcony", price / 2),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_date_has_seats_1_to_50_and_an_id_of_its_own() {
        let mut ids = std::collections::BTreeSet::new();
        for entry in &PROGRAMME {
            assert!(ids.insert(concert_id(entry.number)));
            let seats: Vec<i32> =
                sections(entry.price).iter().flat_map(|range| range.from..=range.to).collect();
            assert_eq!(seats, (1..=50).collect::<Vec<_>>());
            for index in 0..entry.dates.len() {
                let date = date(entry, index, Utc::now(), Utc::now());
                assert!(ids.insert(date.id), "{} has an id twice", entry.name);
            }
        }
        assert_eq!(ids.len(), 4 + 10);
    }
}
