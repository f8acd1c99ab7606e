//! `queue`: how each concert's line is run. A change is in force on every instance within a second.

use anyhow::bail;
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::store::queue::{self, QueueSettings, SettingsChange};

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List the lines of all concerts with their settings
    List,
    /// Show one line
    Show {
        /// The concert
        concert: Uuid,
    },
    /// Change how a line moves
    Set {
        /// The concert
        concert: Uuid,
        #[command(flatten)]
        change: Change,
    },
    /// Admit nobody until it is resumed
    Pause {
        /// The concert
        concert: Uuid,
    },
    /// Admit again
    Resume {
        /// The concert
        concert: Uuid,
    },
}

/// What to change; the rest stays.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct Change {
    /// Most users active at once; lowering it evicts nobody
    #[arg(long)]
    max_active: Option<i32>,
    /// Users admitted per minute
    #[arg(long)]
    admit_per_minute: Option<i32>,
    /// The slowest that a brake may make the admission, per minute
    #[arg(long)]
    min_rate: Option<i32>,
    /// The fastest that the admission may become, per minute
    #[arg(long)]
    max_rate: Option<i32>,
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    let pool = context.database().await?;
    let paused = |paused| SettingsChange {
        paused: Some(paused),
        ..SettingsChange::default()
    };
    match command {
        Command::List => {
            let all = queue::all(&pool).await?;
            context.output.answer(&json!({ "items": all }), |_| lines(&all))?;
            Ok(Ending::Good)
        }
        Command::Show { concert } => answer(context, concert, queue::get(&pool, concert).await?),
        Command::Set { concert, change } => set(context, &pool, concert, &change.into()).await,
        Command::Pause { concert } => set(context, &pool, concert, &paused(true)).await,
        Command::Resume { concert } => set(context, &pool, concert, &paused(false)).await,
    }
}

async fn set(
    context: &Context,
    pool: &PgPool,
    concert: Uuid,
    change: &SettingsChange,
) -> anyhow::Result<Ending> {
    if let Some((field, problem)) = change.problems().first() {
        return Err(Misuse(format!("--{} {problem}", field.replace('_', "-"))).into());
    }
    answer(context, concert, queue::change(pool, concert, change).await?)
}

fn answer(context: &Context, concert: Uuid, settings: Option<QueueSettings>) -> anyhow::Result<Ending> {
    let Some(settings) = settings else {
        bail!("there is no concert {concert}");
    };
    context
        .output
        .answer(&settings, |settings| lines(std::slice::from_ref(settings)))?;
    Ok(Ending::Good)
}

fn lines(all: &[QueueSettings]) -> String {
    let rows = all.iter().map(|line| {
        let opens = line
            .opens_at
            .map_or("at once".to_owned(), |at| at.format("%F %T").to_string());
        [
            line.concert_id.to_string(),
            line.max_active.to_string(),
            line.admit_per_minute.to_string(),
            format!("{}..{}", line.min_rate, line.max_rate),
            opens,
            if line.paused { "paused" } else { "moving" }.to_owned(),
        ]
    });
    table(
        [
            "Concert",
            "Most active",
            "Per minute",
            "Rate bounds",
            "Opens",
            "State",
        ],
        rows,
    )
}

impl From<Change> for SettingsChange {
    fn from(change: Change) -> Self {
        Self {
            max_active: change.max_active,
            admit_per_minute: change.admit_per_minute,
            min_rate: change.min_rate,
            max_rate: change.max_rate,
            ..Self::default()
        }
    }
}
