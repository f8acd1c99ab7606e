//! `concert`: what is on sale, and adding to it.

use std::str::FromStr;

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::ids;
use crate::store;
use crate::store::catalog::{self, NewConcert, Performance, SeatRange};
use crate::text;

/// Most concerts that are listed.
const LISTED: i64 = 1_000;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List the concerts
    List,
    /// Add a concert; its dates follow with `concert date`
    Add {
        /// What it is called
        #[arg(long)]
        name: String,
        /// What it is
        #[arg(long, default_value = "")]
        description: String,
        /// Most users active at once in its line [default: --queue-max-active]
        #[arg(long)]
        max_active: Option<i32>,
        /// Users admitted per minute [default: --queue-admit-per-minute]
        #[arg(long)]
        admit_per_minute: Option<i32>,
    },
    /// Add a date to a concert
    Date(Date),
}

#[derive(clap::Args, Debug)]
pub(super) struct Date {
    /// The concert
    concert: Uuid,
    /// Where
    #[arg(long)]
    venue: String,
    /// When, for instance 2030-06-01T19:30:00Z
    #[arg(long)]
    starts_at: DateTime<Utc>,
    /// How long, in minutes
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(i32).range(1..=1440))]
    minutes: i32,
    /// When its sale opens [default: now]
    #[arg(long)]
    opens_at: Option<DateTime<Utc>>,
    /// When its sale closes [default: when it starts]
    #[arg(long)]
    closes_at: Option<DateTime<Utc>>,
    /// Seats, section and price in points, for instance 1-20:Stalls:12000; may be given several times
    #[arg(long, required = true)]
    seats: Vec<Seats>,
}

/// Seats of one section at one price.
#[derive(Clone, Debug)]
struct Seats(SeatRange);

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

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::List => list(context).await,
        Command::Add { name, description, max_active, admit_per_minute } => {
            let defaults = &context.settings.queue;
            let concert = NewConcert {
                id: ids::new(),
                name: &name,
                description: &description,
                max_active: max_active.unwrap_or(defaults.queue_max_active),
                admit_per_minute: admit_per_minute.unwrap_or(defaults.queue_admit_per_minute),
            };
            add(context, &concert).await
        }
        Command::Date(date) => add_date(context, date).await,
    }
}

async fn list(context: &Context) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let now = store::now(&pool).await?;
    let concerts = catalog::list_concerts(&pool, None, LISTED, now).await?;
    context.output.answer(&json!({ "items": concerts }), |_| {
        let rows = concerts.iter().map(|concert| {
            let on_sale = if concert.on_sale { "on sale" } else { "not on sale" };
            [concert.id.to_string(), concert.name.clone(), on_sale.to_owned(), concert.description.clone()]
        });
        table(["Id", "Name", "Sale", "Description"], rows)
    })?;
    Ok(Ending::Good)
}

async fn add(context: &Context, concert: &NewConcert<'_>) -> anyhow::Result<Ending> {
    good("--name", text::line_problem(concert.name, &(1..=200)))?;
    good("--description", text::block_problem(concert.description, &(0..=10_000)))?;
    let pool = context.database().await?;
    let mut tx = pool.begin().await?;
    catalog::insert_concert(&mut tx, concert).await?;
    tx.commit().await?;
    let made = json!({ "id": concert.id, "name": concert.name, "description": concert.description });
    context
        .output
        .answer(&made, |_| format!("The concert is {}. Add its dates with `concert date`.", concert.id))?;
    Ok(Ending::Good)
}

fn good(flag: &str, problem: Option<String>) -> Result<(), Misuse> {
    problem.map_or(Ok(()), |problem| Err(Misuse(format!("{flag} {problem}"))))
}

async fn add_date(context: &Context, date: Date) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let now = store::now(&pool).await?;
    let ranges: Vec<SeatRange> = date.seats.into_iter().map(|Seats(range)| range).collect();
    check(&ranges)?;
    good("--venue", text::line_problem(&date.venue, &(1..=200)))?;
    let performance = Performance {
        id: ids::new(),
        concert_id: date.concert,
        venue: date.venue,
        starts_at: date.starts_at,
        duration_minutes: date.minutes,
        sale_opens_at: date.opens_at.unwrap_or(now),
        sale_closes_at: date.closes_at.unwrap_or(date.starts_at),
        seats_total: ranges.iter().map(|range| range.to - range.from + 1).sum(),
    };
    let (opens, closes) = (performance.sale_opens_at, performance.sale_closes_at);
    let mut faults = catalog::window_faults(performance.starts_at, opens, closes);
    faults.extend(catalog::past_faults(performance.starts_at, closes, now));
    if !faults.is_empty() {
        let faults: Vec<String> = faults.iter().map(|(field, reason)| format!("{field} {reason}")).collect();
        return Err(Misuse(faults.join("; ")).into());
    }
    if catalog::concert(&pool, date.concert, now).await?.is_none() {
        bail!("there is no concert {}", date.concert);
    }
    let mut tx = pool.begin().await?;
    catalog::insert_performance(&mut tx, &performance, &ranges).await?;
    tx.commit().await?;
    context
        .output
        .answer(&performance, |made| format!("The date is {}, with {} seats.", made.id, made.seats_total))?;
    Ok(Ending::Good)
}

/// No seat may be there twice, and a hall has at most 100,000.
fn check(ranges: &[SeatRange]) -> Result<(), Misuse> {
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
