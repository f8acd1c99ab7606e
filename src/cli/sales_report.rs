//! `concert report`: how a date sells.

use uuid::Uuid;

use super::output::table;
use super::{Context, Ending};
use crate::operations::sales_report::{COMMAND_TIMEOUT, SalesReport, report};
use crate::text::escape_line;

/// Hours that people are shown, the latest; JSON has all.
const HOURS_SHOWN: usize = 48;

pub(super) async fn run(context: &Context, performance: Uuid) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let report = report(&pool, performance, COMMAND_TIMEOUT).await?;
    context.output.answer(&report, text)?;
    Ok(Ending::Good)
}

fn text(report: &SalesReport) -> String {
    let date = &report.performance;
    let title = format!("{}, {}, {}", date.concert, date.venue, date.starts_at.format("%F %H:%M UTC"));
    let mut parts = vec![escape_line(&title).into_owned(), sections(report)];
    if report.hours.is_empty() {
        parts.push("Nothing was sold yet.".to_owned());
    } else {
        parts.push(hours(report));
    }
    let left_out = report.hours.len().saturating_sub(HOURS_SHOWN);
    if left_out > 0 || report.hours_left_out {
        parts.push(format!("Only the latest {HOURS_SHOWN} hours are shown; --json has more."));
    }
    parts.join("\n")
}

fn sections(report: &SalesReport) -> String {
    let rows = report.sections.iter().map(|section| {
        let name = section.section.clone();
        let numbers = [section.sold, section.held, section.blocked, section.free, section.total];
        (name, numbers, section.revenue, section.refunds)
    });
    let seats = &report.seats;
    let all = [seats.sold, seats.held, seats.blocked, seats.free, seats.total];
    let sum = ("All".to_owned(), all, report.revenue, report.refunds);
    let rows = rows.chain([sum]).map(|(name, numbers, revenue, refunds)| {
        let points = [revenue, refunds, revenue - refunds];
        let cells = numbers.iter().chain(&points).map(ToString::to_string);
        std::iter::once(name).chain(cells).collect::<Vec<String>>()
    });
    let head = ["Section", "Sold", "Held", "Blocked", "Free", "Seats", "Revenue", "Refunds", "Net"];
    table(head, rows)
}

fn hours(report: &SalesReport) -> String {
    let from = report.hours.len().saturating_sub(HOURS_SHOWN);
    let rows = report.hours[from..].iter().map(|hour| {
        [
            hour.hour.format("%F %H:%M").to_string(),
            hour.seats_sold.to_string(),
            hour.seats_returned.to_string(),
            hour.revenue.to_string(),
            hour.refunds.to_string(),
        ]
    });
    table(["Hour (UTC)", "Seats sold", "Seats returned", "Revenue", "Refunds"], rows)
}
