//! `user`: what is kept about one user, and removing what can be removed.

use uuid::Uuid;

use super::{Context, Ending, Misuse, actor};
use crate::operations::personal_data;
use crate::operations::queues::By;
use crate::operations::repair::reason_problem;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Print all that is kept about a user, as JSON; written down as an act
    Export {
        /// The user
        id: Uuid,
        /// Why; written down with the act
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Remove the user's name and the free texts about the user; ledger, tickets and reservations stay, by id
    Forget {
        /// The user
        id: Uuid,
        /// Why; written down with the act
        #[arg(long)]
        reason: String,
    },
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Export { id, reason } => export(context, id, &reason).await,
        Command::Forget { id, reason } => forget(context, id, &reason).await,
    }
}

async fn export(context: &Context, user: Uuid, reason: &str) -> anyhow::Result<Ending> {
    if !reason.is_empty() {
        check(reason)?;
    }
    let pool = context.database().await?;
    let data = personal_data::export(&pool, user, By { actor: &actor(), reason }).await?;
    context.output.answer(&data, |data| serde_json::to_string_pretty(data).unwrap_or_default())?;
    Ok(Ending::Good)
}

async fn forget(context: &Context, user: Uuid, reason: &str) -> anyhow::Result<Ending> {
    check(reason)?;
    let pool = context.database().await?;
    let forgotten = personal_data::forget(&pool, user, By { actor: &actor(), reason }).await?;
    context.output.answer(&forgotten, |done| {
        let name = if done.name_removed { "The name was removed" } else { "There was no name" };
        let reasons = done.act_reasons_removed + done.batch_reasons_removed;
        format!(
            "{name}, {reasons} reasons of acts and {} attributes of sagas were removed.",
            done.attributes_removed
        )
    })?;
    Ok(Ending::Good)
}

fn check(reason: &str) -> Result<(), Misuse> {
    reason_problem(reason).map_or(Ok(()), |problem| Err(Misuse(format!("--reason {problem}"))))
}
