//! `queue`: the lines, and how they are run. A change is in force on every instance within a second.
//!
//! To look at the lines, this program follows the bucket of places for a moment, as every instance does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::background::Tasks;
use crate::clock::Clock;
use crate::operations;
use crate::operations::acts::OperatorAct;
use crate::operations::queues::{By, ChangeError};
use crate::store::queue::{QueueSettings, SettingsChange};
use crate::text;
use crate::waiting_room::{Phase, QueueOverview, Sessions, Signer, WaitingRoom};

/// How long reading the lines may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A lease that is not renewed for this long is free.
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
        /// Why; written down with the act
        #[arg(long, default_value = "", value_parser = reason)]
        reason: String,
    },
    /// Admit the next in line now: beyond the rate, never beyond the cap
    Admit {
        /// The concert
        concert: Uuid,
        /// How many
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
        /// Why; written down with the act
        #[arg(long, default_value = "", value_parser = reason)]
        reason: String,
    },
    /// Stop admissions until the line is resumed
    Pause {
        /// The concert
        concert: Uuid,
        /// Why; written down with the act
        #[arg(long, default_value = "", value_parser = reason)]
        reason: String,
    },
    /// Admit again
    Resume {
        /// The concert
        concert: Uuid,
        /// Why; written down with the act
        #[arg(long, default_value = "", value_parser = reason)]
        reason: String,
    },
    /// List what operators did to lines, newest first: who, when, why, from what to what
    Acts {
        /// Only on the line of this concert
        #[arg(long)]
        concert: Option<Uuid>,
        /// Only acts before this one: the next page
        #[arg(long, value_name = "ID")]
        before: Option<i64>,
        /// At most so many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1000))]
        limit: i64,
    },
}

/// What to change; the rest stays.
#[derive(clap::Args, Debug)]
#[group(required = true, multiple = true)]
pub(super) struct Change {
    /// Most users active at once; lowering it evicts no user
    #[arg(long)]
    max_active: Option<i32>,
    /// Users admitted per minute
    #[arg(long)]
    admit_per_minute: Option<i32>,
    /// The lowest admission rate that the brake sets, per minute; the brake is on with this and --max-rate
    #[arg(long)]
    min_rate: Option<i32>,
    /// The highest admission rate that the brake allows, per minute
    #[arg(long)]
    max_rate: Option<i32>,
    /// Take the brake off
    #[arg(long, conflicts_with_all = ["min_rate", "max_rate"])]
    no_brake: bool,
    /// From when users may join before the opening (RFC 3339), or none
    #[arg(long, value_name = "TIME", value_parser = time_or_none)]
    pre_queue_at: Option<TimeOrNone>,
    /// When the sale opens (RFC 3339), or none: with the first window of its dates
    #[arg(long, value_name = "TIME", value_parser = time_or_none)]
    opens_at: Option<TimeOrNone>,
}

/// A time, or none.
#[derive(Clone, Copy, Debug)]
struct TimeOrNone(Option<DateTime<Utc>>);

fn time_or_none(text: &str) -> Result<TimeOrNone, chrono::ParseError> {
    if text == "none" { Ok(TimeOrNone(None)) } else { text.parse().map(|time| TimeOrNone(Some(time))) }
}

/// Why, in one line; it may be left out.
fn reason(given: &str) -> Result<String, String> {
    text::line_problem(given, &(0..=1_000)).map_or_else(|| Ok(given.to_owned()), Err)
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
            context.output.answer(&line, whole)?;
            Ok(Ending::Good)
        }
        Command::Admit { concert, count, reason } => {
            let (observer, actor) = (Observer::enter(context, &pool).await?, actor());
            let admitted = observer.room.admit(concert, count, By { actor: &actor, reason: &reason }).await?;
            context
                .output
                .answer(&json!({ "admitted": admitted }), |_| format!("{admitted} were admitted."))?;
            Ok(Ending::Good)
        }
        Command::Set { concert, change, reason } => {
            set(context, &pool, concert, &change.into(), &reason).await
        }
        Command::Pause { concert, reason } => set(context, &pool, concert, &paused(true), &reason).await,
        Command::Resume { concert, reason } => set(context, &pool, concert, &paused(false), &reason).await,
        Command::Acts { concert, before, limit } => {
            let found = operations::queues::acts(&pool, concert, before, limit).await?;
            context.output.lines(&found, || listed(&found, limit))?;
            Ok(Ending::Good)
        }
    }
}

/// A read-only waiting room: it only follows the lines, until it is dropped.
struct Observer {
    room: Arc<WaitingRoom>,
    _stop: DropGuard,
}

impl Observer {
    async fn enter(context: &Context, pool: &PgPool) -> anyhow::Result<Self> {
        let bus = context.bus().await?;
        let stop = CancellationToken::new();
        let tasks = Tasks::new(&stop);
        // This process issues no tokens, so the durations and the secret do not matter.
        let sessions = Sessions {
            session: Duration::ZERO,
            session_max: Duration::ZERO,
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

/// Lines in which users wait and places are free, but no instance admits. If there may be such a line, this function waits
/// until an unrenewed lease would have run out.
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
    reason: &str,
) -> anyhow::Result<Ending> {
    match operations::queues::change(pool, concert, change, By { actor: &actor(), reason }).await {
        Ok(settings) => answer(context, &settings),
        Err(ChangeError::Unknown) => bail!("there is no concert {concert}"),
        Err(ChangeError::Invalid(problems)) => {
            let told =
                problems.iter().map(|(field, problem)| format!("--{} {problem}", field.replace('_', "-")));
            Err(Misuse(told.collect::<Vec<_>>().join("; ")).into())
        }
        Err(ChangeError::Database(error)) => Err(error.into()),
    }
}

/// Who acts here: the user of the command line.
fn actor() -> String {
    format!("cli:{}", std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned()))
}

fn answer(context: &Context, settings: &QueueSettings) -> anyhow::Result<Ending> {
    context.output.answer(settings, |now| {
        let state = if now.paused { "admission is paused" } else { "the line moves" };
        let brake = match now.min_rate.zip(now.max_rate) {
            Some((min, max)) => format!(", braked between {min} and {max}"),
            None => String::new(),
        };
        let (active, rate) = (now.max_active, now.admit_per_minute);
        format!("At most {active} active, {rate} admitted per minute{brake}; {state}.")
    })?;
    Ok(Ending::Good)
}

/// One line in full.
fn whole(line: &QueueOverview) -> String {
    let time = |at: Option<DateTime<Utc>>| {
        at.map_or("not known".to_owned(), |at| at.format("%F %T UTC").to_string())
    };
    let mut told = vec![lines(std::slice::from_ref(line))];
    told.push(format!("Opens: {}", time(line.opens_at)));
    if let Some(draw) = &line.draw {
        let seed = draw.seed.as_deref().unwrap_or("secret until it opens");
        told.push(format!("Draw: seed {seed}, SHA-256 {}", draw.seed_hash));
    }
    let minute = (line.joined_last_minute, line.admitted_last_minute);
    told.push(format!("Last minute: {} joined, {} admitted", minute.0, minute.1));
    told.push(format!("Not heard of: {} in line now", line.silent));
    if let Some(brake) = &line.brake {
        told.push(format!("Brake: {}", brake.reason));
    }
    told.push(format!(
        "Admitted by: {}",
        line.leader.map_or("no instance".to_owned(), |leader| leader.to_string())
    ));
    if let Some(since) = line.stalled_since {
        told.push(format!(
            "NO ADMISSIONS since {}, though users wait and places are free",
            time(Some(since))
        ));
    }
    told.join("\n")
}

fn listed(found: &[OperatorAct], limit: i64) -> String {
    let rows = found.iter().map(|act| {
        let at = act.at.format("%F %T").to_string();
        let changed = format!("{} → {}", act.from_status, act.to_status);
        [
            at,
            act.actor.clone(),
            act.act.clone(),
            act.target.clone().unwrap_or_default(),
            changed,
            act.reason.clone(),
        ]
    });
    let listed = table(["At", "Who", "Act", "Concert", "From, to", "Why"], rows);
    let next = found.last().filter(|_| found.len() as i64 == limit);
    next.map_or(listed.clone(), |act| format!("{listed}\nThere are more: --before {}", act.id))
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
            line.admission_rate.to_string(),
            line.admitted_last_minute.to_string(),
        ]
    });
    table(["Concert", "Phase", "Seats", "Waiting", "Longest", "Active", "Per minute", "Last minute"], rows)
}

/// A state as it is called on the wire.
fn word(state: impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

impl From<Change> for SettingsChange {
    fn from(change: Change) -> Self {
        let bound = |rate: Option<i32>| if change.no_brake { Some(None) } else { rate.map(Some) };
        Self {
            max_active: change.max_active,
            admit_per_minute: change.admit_per_minute,
            min_rate: bound(change.min_rate),
            max_rate: bound(change.max_rate),
            pre_queue_at: change.pre_queue_at.map(|time| time.0),
            opens_at: change.opens_at.map(|time| time.0),
            paused: None,
        }
    }
}
