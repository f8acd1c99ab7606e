//! `boxoffice-bench`: measures a scenario, prints its figures, and says whether they are as good as they should be.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use boxoffice::cli::output::{Output, table};
use boxoffice::cli::{self, Ending, Misuse, signals};
use boxoffice::config::LogFormat;
use boxoffice_bench::allocations::{CountingAllocator, count_if_wanted};
use boxoffice_bench::{Goal, Measure, Plan, Report, Scenario, outside_worker};
use clap::Parser;

/// The service runs in this program too, with the allocator that it has in its own, and a counter that some scenarios turn on.
#[global_allocator]
static MEMORY: CountingAllocator = CountingAllocator;

/// Measures the service: how long it takes to book, to undo, to recover, to free what ran out
#[derive(Parser, Debug)]
#[command(name = "boxoffice-bench", version, max_term_width = 110)]
struct Arguments {
    /// What to measure
    scenario: Scenario,
    /// What is begun per second, whatever became of what was begun before
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: Option<u32>,
    /// Callers at once, where a given amount is worked off
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    concurrency: Option<u32>,
    /// How long, in seconds
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// How often, where the same is done again and again (stuck: 40, takeover: 5, growth: 5)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeats: Option<u32>,
    /// Holds that run out together (expiry: 10000, overdue: 20000), or reservations that are refunded (refunds: 50000)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    holds: Option<u32>,
    /// Alarms that wait meanwhile (timers: 100000)
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pending: Option<u32>,
    /// Who waits in line in the end (queue: 1000000)
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    waiting: Option<u32>,
    /// The same seed makes the same choices: which rows are wanted (contention), who asks when at first (queue)
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Finished bookings in the end (growth: 1000000)
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    finished: Option<u64>,
    /// Compare the plans of all statements with their indexes and without, and write them into this page (growth)
    #[arg(long, value_name = "PAGE")]
    plans: Option<PathBuf>,
    /// Fail if a booking takes more than in this earlier report (gate)
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Also write the JSON to this file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Postgres; without it a private one is started
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// NATS; without it a private one is started
    #[arg(long, env = "NATS_URL", hide_env_values = true)]
    nats_url: Option<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The processes that are measured are this program, so that the service is never an older build than its measurement.
    if std::env::args_os().nth(1).is_some_and(|first| first == boxoffice_bench::SERVE) {
        count_if_wanted();
        return cli::main().await;
    }
    if let [_, first, database, nats] = &std::env::args().collect::<Vec<_>>()[..]
        && first == outside_worker::WORK
    {
        let ended = outside_worker::run(database, nats).await;
        return cli::exit_code("boxoffice-bench", ended.map(|()| Ending::Good));
    }
    let arguments = Arguments::parse();
    cli::prepare("error", LogFormat::Lines);
    cli::exit_code("boxoffice-bench", measure(arguments).await)
}

async fn measure(arguments: Arguments) -> anyhow::Result<Ending> {
    if arguments.database_url.is_some() && arguments.scenario == Scenario::Idle {
        let why = "idle measures a Postgres that has no other user; leave out DATABASE_URL";
        return Err(Misuse(why.to_owned()).into());
    }
    let output = Output::new(arguments.json);
    let data_dir = std::env::temp_dir().join(format!("boxoffice-bench-{}", std::process::id()));
    let plan = Plan {
        rate: arguments.rate,
        concurrency: arguments.concurrency,
        seconds: arguments.seconds,
        repeats: arguments.repeats,
        holds: arguments.holds,
        pending: arguments.pending,
        waiting: arguments.waiting,
        seed: arguments.seed,
        finished: arguments.finished,
        plans: arguments.plans,
        against: arguments.against,
        database_url: arguments.database_url,
        nats_url: arguments.nats_url,
        data_dir,
        quiet: arguments.json,
    };
    if cfg!(debug_assertions) {
        output.sentence("This program was built without optimisation; `make bench` measures one that was.");
    }
    let stop = signals::stop_token()?;
    let measured = stop.run_until_cancelled(boxoffice_bench::run(arguments.scenario, &plan)).await;
    if plan.data_dir.exists() && !matches!(measured, Some(Ok(_))) {
        output.sentence(&format!("The logs are left in {}.", plan.data_dir.display()));
    }
    let report = measured.unwrap_or_else(|| Err(anyhow::anyhow!("stopped before the end")))?;
    output.answer(&report, text)?;
    if let Some(file) = &arguments.save {
        let written = std::fs::write(file, format!("{}\n", serde_json::to_string_pretty(&report)?));
        written.with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(if report.good { Ending::Good } else { Ending::Wrong })
}

/// The figures as people read them.
fn text(report: &Report) -> String {
    let shown = |figure: f64| format!("{figure:.1}");
    let row = |measure: &Measure| {
        let figures = match measure.spread {
            Some(s) => {
                [s.count.to_string(), shown(s.p50_ms), shown(s.p95_ms), shown(s.p99_ms), shown(s.max_ms)]
            }
            None => ["-"; 5].map(str::to_owned),
        };
        let [count, p50, p95, p99, max] = figures;
        let goal = measure.goal_ms.map_or("-".to_owned(), |goal| format!("{:?} < {goal}", measure.of));
        let verdict = match measure.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "-",
        };
        [measure.name.to_owned(), count, p50, p95, p99, max, goal, verdict.to_owned()]
    };
    let header = ["Milliseconds from", "count", "p50", "p95", "p99", "max", "goal", "verdict"];
    let mut lines = vec![table(header, report.measures.iter().map(row))];
    lines.push(format!("{} per second, {} errors, audit {}", report.per_second, report.errors, report.audit));
    let verdict = |goal: &Goal| if goal.met { "met" } else { "MISSED" };
    lines.extend(report.goals.iter().map(|goal| {
        let figure = goal.figure.map_or("-".to_owned(), |figure| format!("{figure:.2}"));
        format!("{}: {figure} (goal {}, {})", goal.name, goal.goal, verdict(goal))
    }));
    if let Some(cpu) = report.server_cpu_s_per_1000 {
        lines.push(format!("{cpu} processor seconds of the servers per thousand"));
    }
    if let Some(late) = report.generator_late {
        lines.push(format!("the generator began what was due {} ms late at p99", late.p99_ms));
    }
    if let [header, rows @ ..] = report.table.as_slice() {
        lines.push(table(header, rows));
    }
    // A list that has a table is not shown twice.
    let has_table = |value: &serde_json::Value| value.is_array() && !report.table.is_empty();
    let more = report.more.iter().filter(|(_, value)| !has_table(value));
    lines.extend(more.map(|(name, value)| format!("{name}: {value}")));
    lines.push(format!("on: {}", report.surroundings));
    lines.join("\n")
}
