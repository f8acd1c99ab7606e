//! `saga parked`: messages that the service could not handle.

use serde_json::json;

use super::super::output::table;
use super::super::{Context, Ending};
use super::acting::{Acting, Why};
use crate::operations::AskError;
use crate::operations::parked::{self, Fate, ParkedError, ParkedFilter, ParkedMessage};
use crate::text::escape_line;

#[derive(clap::Subcommand, Debug)]
pub(in crate::cli) enum Command {
    /// List parked messages, newest first
    List(Wanted),
    /// Show one with its headers and payload
    Show {
        /// Its number
        id: i64,
    },
    /// Publish one again, where it came from
    Release(Taken),
    /// Throw one away
    Drop(Taken),
}

/// A message to be taken out of the list, and why.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Taken {
    /// Its number
    id: i64,
    #[command(flatten)]
    why: Why,
}

/// Which messages to list.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Wanted {
    #[command(flatten)]
    filter: ParkedFilter,
    /// Only messages before this one: the next page
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// At most so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::List(wanted) => {
            let pool = context.database().await?;
            let found = parked::list(&pool, &wanted.filter, wanted.before, wanted.limit).await?;
            let next = found.last().map(|message| message.id).filter(|_| found.len() as i64 == wanted.limit);
            context.output.answer(&json!({ "items": found, "next_cursor": next }), |_| {
                let listed = table(["Id", "Parked", "Subject", "Error"], found.iter().map(row));
                next.map_or(listed.clone(), |id| format!("{listed}\nThere are more: --before {id}"))
            })?;
        }
        Command::Show { id } => {
            let found =
                parked::show(&context.database().await?, id).await.map_err(|error| about(id, error))?;
            context.output.answer(&found, draw)?;
        }
        Command::Release(taken) => take_out(context, &taken, Fate::Released).await?,
        Command::Drop(taken) => take_out(context, &taken, Fate::Dropped).await?,
    }
    Ok(Ending::Good)
}

async fn take_out(context: &Context, taken: &Taken, fate: Fate) -> anyhow::Result<()> {
    taken.why.check()?;
    let (id, reason) = (taken.id, taken.why.reason.as_str());
    let acting = Acting::begin(context).await?;
    let done = parked::take_out(&acting.engine, id, fate, &acting.actor, reason).await;
    acting.end().await;
    done.map_err(|error| match error {
        ParkedError::Unknown => about(id, AskError::Unknown),
        error => error.into(),
    })?;
    let answer = json!({ "id": id, "outcome": fate });
    context.output.answer(&answer, |_| format!("Message {id} is {}.", fate.name()))
}

fn about(id: i64, error: AskError) -> anyhow::Error {
    match error {
        AskError::Unknown => anyhow::anyhow!("there is no parked message {id}"),
        error => error.into(),
    }
}

fn row(message: &ParkedMessage) -> [String; 4] {
    [
        message.id.to_string(),
        message.parked_at.format("%F %T").to_string(),
        message.subject.clone(),
        message.error.clone(),
    ]
}

fn draw(message: &ParkedMessage) -> String {
    let mut lines = vec![
        format!("message {} on {} ({})", message.id, message.subject, message.stream),
        format!("parked {}: {}", message.parked_at.format("%F %T%.3f"), message.error),
    ];
    for (name, value) in message.headers.as_object().into_iter().flatten() {
        lines.push(format!("{name}: {}", value.as_str().unwrap_or_default()));
    }
    for line in &mut lines {
        *line = escape_line(line).into_owned();
    }
    lines.push(String::new());
    lines.push(match (&message.payload, &message.payload_base64) {
        (Some(text), _) => text.clone(),
        (None, bytes) => format!("no text; in base64: {}", bytes.as_deref().unwrap_or_default()),
    });
    lines.join("\n")
}
