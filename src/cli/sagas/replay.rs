//! `saga replay-events`: publishes events again, for those who lost them.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use uuid::Uuid;

use super::super::output::table;
use super::super::{Context, Ending, Misuse};
use crate::booking::{ChargeReplay, DirectReplay};
use crate::bus::Bus;
use crate::bus::events::EventMessage;
use crate::orchestrator::{Pace, Page, Replay, Wanted};
use crate::saga::WorkflowRegistry;
use crate::store;

/// Pages between two lines where there is no terminal.
const PAGES_PER_LINE: u64 = 50;

#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Arguments {
    /// Only what happened at this moment or later (RFC 3339)
    #[arg(long)]
    since: Option<DateTime<Utc>>,
    /// Only what happened before this moment (RFC 3339)
    #[arg(long)]
    until: Option<DateTime<Utc>>,
    /// Only events of this workflow
    #[arg(long)]
    workflow: Option<String>,
    /// Only events about this reservation
    #[arg(long, conflicts_with = "saga")]
    reservation: Option<Uuid>,
    /// Only events of this saga
    #[arg(long)]
    saga: Option<Uuid>,
    /// Only events of this name, for instance `reservation.confirmed`
    #[arg(long)]
    event: Option<String>,
    /// At most so many events per second
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
    /// Publish nothing; only count
    #[arg(long)]
    dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Default, Serialize)]
struct Replayed {
    dry_run: bool,
    /// Sagas that were looked at.
    sagas: usize,
    /// Sagas whose definition is not known here.
    left_out: usize,
    total: usize,
    /// By name.
    events: BTreeMap<String, usize>,
}

pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<Ending> {
    check_times(&arguments)?;
    let (registry, pool) = (WorkflowRegistry::default(), context.database().await?);
    store::definitions::reload(&pool, &registry).await?;
    check_workflow(&arguments, &registry)?;
    if let Some(saga) = arguments.saga
        && store::sagas::get(&pool, saga).await?.is_none()
    {
        anyhow::bail!("there is no saga {saga}");
    }
    // A dry run needs no NATS.
    let bus = if arguments.dry_run { None } else { Some(context.bus().await?) };
    let (event, mut pace) = (arguments.event, Pace::new(arguments.rate));
    let mut replayed = Replayed { dry_run: arguments.dry_run, ..Replayed::default() };
    let wanted = Wanted {
        since: arguments.since,
        until: arguments.until,
        workflow: arguments.workflow,
        saga: arguments.saga,
        subject: arguments.reservation,
    };
    let until = wanted.until.unwrap_or(store::now(&pool).await?);
    let mut progress = Progress::new(context.output.is_json(), wanted.since, until);
    let mut others = BTreeMap::new();
    let mut replay = Replay::begin(&pool, &registry, &wanted).await?;
    let mut charges = ChargeReplay::begin(&pool, &wanted);
    let mut direct = DirectReplay::begin(&pool, &wanted);
    loop {
        let page = match replay.next().await? {
            Some(page) => Some(page),
            None => match charges.next().await? {
                Some(page) => Some(page),
                None => direct.next().await?,
            },
        };
        let Some(mut page) = page else { break };
        page.events.retain(|one| {
            let is_wanted = event.as_ref().is_none_or(|name| *name == one.name);
            *if is_wanted { &mut replayed.events } else { &mut others }
                .entry(one.name.clone())
                .or_default() += 1;
            is_wanted
        });
        replayed.sagas += page.sagas;
        replayed.left_out += page.left_out;
        match &bus {
            Some(bus) => publish(&mut pace, bus, &page.events, &mut progress).await?,
            None => progress.more(page.events.len()),
        }
        replayed.total += page.events.len();
        progress.reached(&page);
    }
    progress.done();
    if let Some(reservation) = wanted.subject.filter(|_| replayed.sagas == 0) {
        anyhow::bail!("there is no saga about reservation {reservation}");
    }
    if let Some(event) = event.filter(|_| replayed.total == 0 && !others.is_empty()) {
        let names: Vec<String> = others.into_keys().collect();
        anyhow::bail!("there is no event {event} among these; there are {}", names.join(", "));
    }
    context.output.answer(&replayed, text)?;
    Ok(Ending::Good)
}

async fn publish(
    pace: &mut Pace,
    bus: &Bus,
    events: &[EventMessage],
    progress: &mut Progress,
) -> anyhow::Result<()> {
    let published = pace.publish(bus, events, |count| progress.more(count)).await;
    published.with_context(|| {
        let count = progress.events;
        format!("JetStream does not take events; {count} were published, and it is safe to begin again")
    })
}

fn check_times(arguments: &Arguments) -> Result<(), Misuse> {
    if let (Some(since), Some(until)) = (arguments.since, arguments.until)
        && since >= until
    {
        return Err(Misuse(format!("--since {since} must be before --until {until}")));
    }
    Ok(())
}

fn check_workflow(arguments: &Arguments, registry: &WorkflowRegistry) -> Result<(), Misuse> {
    if let Some(workflow) = &arguments.workflow
        && registry.latest(workflow).is_none()
    {
        let mut known: Vec<String> =
            registry.all().iter().map(|definition| definition.name.clone()).collect();
        known.dedup();
        return Err(Misuse(format!("there is no workflow {workflow}; there are {}", known.join(", "))));
    }
    Ok(())
}

fn text(replayed: &Replayed) -> String {
    let rows = replayed.events.iter().map(|(name, count)| [name.clone(), count.to_string()]);
    let verb = if replayed.dry_run { "would be published" } else { "were published" };
    let mut text = format!("{}\n{} events {verb}", table(["Event", "Count"], rows), replayed.total);
    text.push_str(&format!("; {} sagas were looked at.", replayed.sagas));
    if replayed.left_out > 0 {
        let words = "sagas were left out: their definition cannot be read (see `boxoffice workflow list`).";
        text.push_str(&format!("\n{} {words}", replayed.left_out));
    }
    text
}

/// How far it is along the time of the sagas: a bar on a terminal, a line now and then elsewhere, nothing for programs.
struct Progress {
    bar: ProgressBar,
    plain: bool,
    from: Option<DateTime<Utc>>,
    until: DateTime<Utc>,
    pages: u64,
    events: usize,
}

impl Progress {
    fn new(quiet: bool, from: Option<DateTime<Utc>>, until: DateTime<Utc>) -> Self {
        let plain = !quiet && !std::io::stderr().is_terminal();
        let bar = if quiet || plain { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {percent} %  {msg}");
        bar.set_style(style.expect("the template is well formed"));
        Self { bar, plain, from, until, pages: 0, events: 0 }
    }

    fn more(&mut self, count: usize) {
        self.events += count;
        self.bar.set_message(format!("{} events", self.events));
    }

    fn reached(&mut self, page: &Page) {
        let Some(reached) = page.reached else {
            return;
        };
        let from = *self.from.get_or_insert(reached);
        let seconds = |to: DateTime<Utc>| u64::try_from((to - from).num_seconds()).unwrap_or(0);
        self.bar.set_length(seconds(self.until));
        // Charges begin anew at the beginning; the bar does not go back.
        self.bar.set_position(self.bar.position().max(seconds(reached)));
        self.pages += 1;
        if self.plain && self.pages.is_multiple_of(PAGES_PER_LINE) {
            let line = format!("{} events, up to {}", self.events, reached.format("%F %T"));
            // The reader of standard error may have gone.
            let _written = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn done(&self) {
        self.bar.finish_and_clear();
    }
}
