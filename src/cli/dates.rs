//! `concert change-date` and `concert cancel-date`: dates that are on sale already.

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::seat_ranges::{Seats, check};
use super::{Context, Ending, Misuse, actor};
use crate::operations::batch_jobs::BatchJob;
use crate::operations::dates::{self, CancelOrder, DateChange, DateError, REFUND_RATE_DEFAULT};
use crate::operations::repair::reason_problem;
use crate::text;

#[derive(clap::Args, Debug)]
pub(super) struct Change {
    /// The date
    performance: Uuid,
    /// Where
    #[arg(long)]
    venue: Option<String>,
    /// When, for instance 2030-06-01T19:30:00Z
    #[arg(long)]
    starts_at: Option<DateTime<Utc>>,
    /// How long, in minutes
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1440))]
    minutes: Option<i32>,
    /// When its sale opens
    #[arg(long)]
    opens_at: Option<DateTime<Utc>>,
    /// When its sale closes
    #[arg(long)]
    closes_at: Option<DateTime<Utc>>,
    /// Section and price of seats that are free, for instance 1-20:Stalls:12000; may be given several times
    #[arg(long)]
    seats: Vec<Seats>,
    /// Only if the date is at this version
    #[arg(long)]
    version: Option<i64>,
    /// Why
    #[arg(long)]
    reason: String,
}

#[derive(clap::Args, Debug)]
pub(super) struct Cancel {
    /// The date
    performance: Uuid,
    /// Why
    #[arg(long)]
    reason: String,
    /// Only look what it would do
    #[arg(long)]
    dry_run: bool,
    /// Refunds per second
    #[arg(long, default_value_t = REFUND_RATE_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
}

pub(super) async fn change(context: &Context, wanted: Change) -> anyhow::Result<Ending> {
    check_reason(&wanted.reason)?;
    if let Some(problem) = wanted.venue.as_deref().and_then(|venue| text::line_problem(venue, &(1..=200))) {
        return Err(Misuse(format!("--venue {problem}")).into());
    }
    let change = DateChange {
        venue: wanted.venue,
        starts_at: wanted.starts_at,
        duration_minutes: wanted.minutes,
        sale_opens_at: wanted.opens_at,
        sale_closes_at: wanted.closes_at,
        seats: wanted.seats.into_iter().map(|Seats(range)| range).collect(),
        version: wanted.version,
    };
    check(&change.seats)?;
    let pool = context.database().await?;
    let changed = dates::change(&pool, wanted.performance, &change, &actor(), &wanted.reason).await;
    let changed = changed.map_err(misused)?;
    context.output.answer(&changed, |changed| {
        let (version, seats) = (changed.date.version, changed.seats_changed);
        format!(
            "The date is at version {version}; {seats} seats have changed, {} keep theirs.",
            changed.seats_kept
        )
    })?;
    Ok(Ending::Good)
}

pub(super) async fn cancel(context: &Context, wanted: Cancel) -> anyhow::Result<Ending> {
    check_reason(&wanted.reason)?;
    let pool = context.database().await?;
    if wanted.dry_run {
        let (_, sales) = dates::preview(&pool, wanted.performance).await?;
        context.output.answer(&sales, |sales| {
            format!(
                "{} reservations are held and {} confirmed, with {} seats; {} points would be refunded.",
                sales.held, sales.confirmed, sales.seats, sales.points_to_refund
            )
        })?;
        return Ok(Ending::Good);
    }
    let actor = actor();
    let order = CancelOrder { actor: &actor, reason: &wanted.reason, rate_per_second: wanted.rate };
    let job: BatchJob = dates::cancel(&pool, wanted.performance, order).await?.into();
    context.output.answer(&json!(job), |_| {
        format!(
            "The date is cancelled. The job {} ends {} reservations; a process with the role scheduler takes it up within 15 \
             seconds.",
            job.id,
            job.total.unwrap_or(0)
        )
    })?;
    Ok(Ending::Good)
}

fn check_reason(reason: &str) -> Result<(), Misuse> {
    reason_problem(reason).map_or(Ok(()), |problem| Err(Misuse(format!("--reason {problem}"))))
}

/// Times that contradict each other, and seats that are not there, are mistakes of the caller.
fn misused(error: DateError) -> anyhow::Error {
    match error {
        DateError::Times(faults) => {
            let faults: Vec<String> =
                faults.iter().map(|(field, reason)| format!("{field} {reason}")).collect();
            Misuse(faults.join("; ")).into()
        }
        DateError::NoSuchSeats { .. } => Misuse(error.to_string()).into(),
        other => other.into(),
    }
}
