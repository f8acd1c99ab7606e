//! `queue`: the lines, and how they are run. A change is in force on every instance within a second.
//!
//! To look at the lines, this program follows the bucket of places for a moment, as every instance does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::clock::Clock;
use crate::store::queue::{self, QueueSettings, SettingsChange};
use crate::waiting_room::{Phase, QueueOverview, Sessions, Signer, WaitingRoom};

/// How long reading the lines may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this long a lease that nobody renews is nobody's.
const LEASE: Duration = Duration::from_secs(4);

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// List the lines of all concerts: how many wait, how many are admitted, how the line moves
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
    /// Admit the next in line now: beyond the rate, never beyond the cap
    Admit {
        /// The concert
        concert: Uuid,
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
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
    let paused = |paused| SettingsChange { paused: Some(paused), ..SettingsChange::default() };
    match command {
        Command::List => {
            let all = Observer::enter(context, &pool).await?.room.overview_now().await?;
            context.output.answer(&json!({ "items": all }), |_| lines(&all))?;
            Ok(Ending::Good)
        }
        Command::Show { concert } => {
            let line = Observer::enter(context, &pool).await?.room.overview_of(concert).await?;
            context.output.answer(&line, |line| lines(std::slice::from_ref(line)))?;
            Ok(Ending::Good)
        }
        Command::Admit { concert, count } => {
            let admitted = Observer::enter(context, &pool).await?.room.admit(concert, count).await?;
            context
                .output
                .answer(&json!({ "admitted": admitted }), |_| format!("{admitted} were admitted."))?;
            Ok(Ending::Good)
        }
        Command::Set { concert, change } => set(context, &pool, concert, &change.into()).await,
        Command::Pause { concert } => set(context, &pool, concert, &paused(true)).await,
        Command::Resume { concert } => set(context, &pool, concert, &paused(false)).await,
    }
}

/// A waiting room that takes no part: it only follows the lines, until it is dropped.
struct Observer {
    room: Arc<WaitingRoom>,
    _stop: DropGuard,
}

impl Observer {
    async fn enter(context: &Context, pool: &PgPool) -> anyhow::Result<Self> {
        let bus = context.bus().await?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        // Nobody is given a token here, so the lives of sessions and the secret do not matter.
        let sessions = Sessions {
            session: Duration::ZERO,
            claim: Duration::ZERO,
            silence: Duration::ZERO,
            grace: Duration::ZERO,
        };
        let room = WaitingRoom::start(
            bus,
            pool.clone(),
            Clock::default(),
            sessions,
            Signer::new(b""),
            &tasks,
            stop.clone(),
        );
        let patience = Instant::now() + PATIENCE;
        while !room.ready() {
            if Instant::now() > patience {
                bail!("the lines cannot be read from NATS; `boxoffice doctor` says what is missing");
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { room, _stop: stop.drop_guard() })
    }
}

/// Lines in which people wait while places are free and nobody admits. Where there may be one, this takes as long as a lease
/// that nobody renews is respected.
pub(super) async fn neglected(context: &Context, pool: &PgPool) -> anyhow::Result<Vec<String>> {
    let observer = Observer::enter(context, pool).await?;
    let should_move = |line: &QueueOverview| {
        line.phase == Phase::Open && line.length > line.silent && line.free > 0 && line.admission_rate > 0
    };
    let lines = observer.room.overview_now().await?;
    if !lines.iter().any(should_move) {
        return Ok(Vec::new());
    }
    sleep(LEASE).await;
    if observer.room.is_led() {
        return Ok(Vec::new());
    }
    let lines = observer.room.overview_now().await?;
    Ok(lines.iter().filter(|line| should_move(line)).map(|line| line.concert_id.to_string()).collect())
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
    context.output.answer(&settings, |now| {
        let state = if now.paused { "nobody is admitted" } else { "the line moves" };
        format!("At most {} active, {} admitted per minute; {state}.", now.max_active, now.admit_per_minute)
    })?;
    Ok(Ending::Good)
}

fn lines(all: &[QueueOverview]) -> String {
    let rows = all.iter().map(|line| {
        let waits = line.oldest_waiter_seconds.map_or(String::new(), |seconds| format!("{seconds} s"));
        [
            line.concert_id.to_string(),
            word(line.phase),
            word(line.inventory),
            line.length.to_string(),
            waits,
            format!("{} of {}", line.active, line.settings.max_active),
            line.settings.admit_per_minute.to_string(),
        ]
    });
    table(["Concert", "Phase", "Seats", "Waiting", "Longest", "Active", "Per minute"], rows)
}

/// A state as it is called on the wire.
fn word(state: impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

impl From<Change> for SettingsChange {
    fn from(change: Change) -> Self {
        Self {
            max_active: change.max_active,
            admit_per_minute: change.admit_per_minute,
            min_rate: change.min_rate.map(Some),
            max_rate: change.max_rate.map(Some),
            ..Self::default()
        }
    }
}
