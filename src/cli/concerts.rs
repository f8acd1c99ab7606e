//! `concert`: what is on sale, and adding to it.

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::output::table;
use super::seat_ranges::{Seats, check};
use super::{Context, Ending, Misuse, dates, sales_report};
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
    /// Change a date: where, when, its sale, sections and prices of free seats
    ChangeDate(dates::Change),
    /// Cancel a date: its sale stops, and what was sold is refunded
    CancelDate(dates::Cancel),
    /// Show how a date sells: seats, revenue and refunds, by section and by hour
    Report {
        /// The date
        performance: Uuid,
    },
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
        Command::ChangeDate(change) => dates::change(context, change).await,
        Command::CancelDate(cancel) => dates::cancel(context, cancel).await,
        Command::Report { performance } => sales_report::run(context, performance).await,
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
