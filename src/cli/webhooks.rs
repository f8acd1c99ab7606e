//! `webhook`: endpoints that events are posted to, their secrets, and the log of deliveries.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse, actor};
use crate::ids;
use crate::text;
use crate::webhooks::UrlRules;
use crate::webhooks::endpoints::{self, NewEndpoint, WebhookDelivery, WebhookEndpoint};

/// Most deliveries that are listed.
const LISTED: i64 = 100;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List the endpoints
    List,
    /// Add an endpoint and print its secret, once
    Add {
        /// Where events are posted to
        url: String,
        /// Name of an event, or the beginning of names with * behind it; may be given several times [default: all events]
        #[arg(long = "event", value_name = "NAME")]
        events: Vec<String>,
        /// What the endpoint is
        #[arg(long, default_value = "")]
        description: String,
    },
    /// Delete an endpoint and its log
    Delete { id: Uuid },
    /// Let a disabled endpoint have deliveries again
    Enable { id: Uuid },
    /// Give an endpoint a new secret and print it, once; both sign for a while
    Rotate {
        id: Uuid,
        /// How long the secret before the new one signs too, in seconds
        #[arg(long, default_value_t = endpoints::OVERLAP_SECONDS,
              value_parser = clap::value_parser!(u32).range(0..=i64::from(endpoints::OVERLAP_SECONDS_MAX)))]
        overlap_seconds: u32,
    },
    /// Show the latest deliveries of an endpoint
    Log {
        id: Uuid,
        /// Only deliveries that are pending, delivered or failed
        #[arg(long, value_parser = endpoints::STATUSES)]
        status: Option<String>,
    },
    /// Attempt a delivery anew
    Replay { id: Uuid, delivery: Uuid },
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    if let Command::Add { url, events, description } = &command {
        check(context, url, events, description)?;
    }
    let pool = context.database().await?;
    let (output, actor) = (context.output, actor());
    match command {
        Command::List => {
            let all = endpoints::list(&pool, None, endpoints::ENDPOINTS_MAX).await?;
            output.answer(&json!({ "items": all }), |_| table_of(&all))?;
        }
        Command::Add { url, events, description } => {
            let new = NewEndpoint { id: ids::new(), url: &url, events: &events, description: &description };
            let added = endpoints::add(&pool, new, &actor).await?;
            output.answer(&added, |added| secret(&added.endpoint, &added.secret))?;
        }
        Command::Delete { id } => {
            endpoints::delete(&pool, id, &actor).await?;
            output
                .answer(&json!({ "id": id, "deleted": true }), |_| "The endpoint is deleted.".to_owned())?;
        }
        Command::Enable { id } => {
            let enabled = endpoints::enable(&pool, id, &actor).await?;
            output.answer(&enabled, |enabled| format!("The endpoint is {}.", enabled.status))?;
        }
        Command::Rotate { id, overlap_seconds } => {
            let mut tx = pool.begin().await?;
            let overlap = Duration::from_secs(overlap_seconds.into());
            let rotated = endpoints::rotate(&mut tx, id, overlap, &actor).await?;
            tx.commit().await?;
            output.answer(&rotated, |rotated| secret(&rotated.endpoint, &rotated.secret))?;
        }
        Command::Log { id, status } => {
            let log = endpoints::log(&pool, id, status.as_deref(), None, LISTED).await?;
            output.answer(&json!({ "items": log }), |_| log_of(&log))?;
        }
        Command::Replay { id, delivery } => {
            let replayed = endpoints::replay(&pool, id, delivery, &actor).await?;
            output.answer(&replayed, |_| "The delivery is due now.".to_owned())?;
        }
    }
    Ok(Ending::Good)
}

fn check(context: &Context, url: &str, events: &[String], description: &str) -> Result<(), Misuse> {
    let rules = UrlRules { allows_private: context.settings.webhooks.webhooks_private };
    let problem = rules
        .problem(url)
        .map(|problem| format!("the address {problem}"))
        .or_else(|| {
            endpoints::filters_problem(events).map(|(at, problem)| format!("event {} {problem}", at + 1))
        })
        .or_else(|| {
            text::line_problem(description, &(0..=200)).map(|problem| format!("--description {problem}"))
        });
    problem.map_or(Ok(()), |problem| Err(Misuse(problem)))
}

fn secret(endpoint: &WebhookEndpoint, secret: &str) -> String {
    format!("{secret}\nThis is the only time the secret is shown. The endpoint is {}.", endpoint.id)
}

fn table_of(all: &[WebhookEndpoint]) -> String {
    let rows = all.iter().map(|one| {
        let events = if one.events.is_empty() { "all".to_owned() } else { one.events.join(", ") };
        let reason = one.disabled_reason.clone().unwrap_or_default();
        [one.id.to_string(), one.url.clone(), events, one.status.to_owned(), reason, one.description.clone()]
    });
    table(["Id", "Address", "Events", "Status", "Why", "Description"], rows)
}

fn log_of(log: &[WebhookDelivery]) -> String {
    let time = |at: Option<DateTime<Utc>>| at.map(|at| at.format("%F %T").to_string()).unwrap_or_default();
    let rows = log.iter().map(|one| {
        [
            one.id.to_string(),
            one.event.clone(),
            one.subject_id.to_string(),
            one.status.clone(),
            one.attempts.to_string(),
            time(one.ended_at.or(one.next_attempt_at)),
            one.error.clone().unwrap_or_default(),
        ]
    });
    table(["Id", "Event", "About", "Status", "Attempts", "Ended or next", "Error"], rows)
}
