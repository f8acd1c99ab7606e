//! Ranges of seats as flags name them.

use std::str::FromStr;

use super::Misuse;
use crate::store::catalog::SeatRange;
use crate::text;

/// Seats of one section at one price.
#[derive(Clone, Debug)]
pub(super) struct Seats(pub(super) SeatRange);

impl FromStr for Seats {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let mut parts = given.splitn(3, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (numbers, section, price) = (next(), next(), next());
        let (from, to) = numbers.split_once('-').unwrap_or((numbers, numbers));
        let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number > 0);
        let (Some(from), Some(to)) = (number(from), number(to)) else {
            return Err(format!("{numbers} is not a range of seats such as 1-20"));
        };
        let price = price.parse::<i64>().ok().filter(|price| (0..=10_000_000).contains(price));
        let Some(price) = price else {
            return Err("the price must be between 0 and 10000000 points, as in 1-20:Stalls:12000".to_owned());
        };
        if from > to {
            return Err("seats are given as first-last:section:price".to_owned());
        }
        if let Some(problem) = text::line_problem(section, &(1..=100)) {
            return Err(format!("the section {problem}, as in 1-20:Stalls:12000"));
        }
        Ok(Self(SeatRange { from, to, section: section.to_owned(), price }))
    }
}

/// No seat may be there twice, and a hall has at most 100,000.
pub(super) fn check(ranges: &[SeatRange]) -> Result<(), Misuse> {
    let mut sorted: Vec<&SeatRange> = ranges.iter().collect();
    sorted.sort_by_key(|range| range.from);
    if let Some(pair) = sorted.windows(2).find(|pair| pair[1].from <= pair[0].to) {
        return Err(Misuse(format!("seat {} is there twice", pair[1].from)));
    }
    let seats: i64 = ranges.iter().map(|range| i64::from(range.to) - i64::from(range.from) + 1).sum();
    if seats > 100_000 {
        return Err(Misuse(format!("{seats} seats are too many for one date; 100000 are possible")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_read_or_refused_in_words() {
        let Seats(range) = "1-20:Stalls:12000".parse().unwrap();
        assert_eq!((range.from, range.to, range.section.as_str(), range.price), (1, 20, "Stalls", 12_000));
        let Seats(one) = "7:Box:0".parse().unwrap();
        assert_eq!((one.from, one.to), (7, 7));
        for wrong in ["", "20-1:A:5", "0-3:A:5", "1-2::5", "1-2:A:-1", "1-2:A", "a-b:A:5"] {
            assert!(wrong.parse::<Seats>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_seat_that_is_there_twice_is_named() {
        let range = |from, to| SeatRange { from, to, section: "A".to_owned(), price: 1 };
        assert!(check(&[range(11, 20), range(1, 10)]).is_ok());
        assert!(check(&[range(10, 20), range(1, 10)]).unwrap_err().to_string().contains("seat 10"));
    }
}
