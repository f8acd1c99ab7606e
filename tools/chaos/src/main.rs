//! Breaks a running Box Office on purpose while buyers buy, and checks that nothing is lost.
//!
//! Two instances of the real program run on a Postgres and a nats-server of their own. A steady crowd buys, cancels and
//! lets holds run out, and writes down every answer. Meanwhile one fault after the other strikes. After each ten faults the
//! audit and the crowd's books are compared; at the end every saga must have ended.

mod books;
mod cluster;
mod crowd;
mod disk;
mod faults;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};

use books::Books;
use cluster::Cluster;
use crowd::Crowd;
use faults::Fault;
use report::Report;

/// How long the service may take to be ready again once the last fault is over.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long all sagas may take to end once no buyer comes any more.
const ENDED_WITHIN: Duration = Duration::from_secs(120);

#[derive(Parser)]
#[command(version, about = "Break a running Box Office on purpose, and check that nothing is lost")]
struct Arguments {
    /// The program `boxoffice` to run
    #[arg(long, default_value = "target/release/boxoffice")]
    program: PathBuf,
    /// How many faults strike
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    faults: u32,
    /// Buyers who arrive per second
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    buyers_per_second: u32,
    /// The seed of all that is left to chance; the same seed gives the same sequence of faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only these faults, separated by commas; all without it
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Fault>,
    /// Save the report here as JSON
    #[arg(long)]
    save: Option<PathBuf>,
    /// Keep the logs and data of the run in this folder instead of a temporary one
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<std::process::ExitCode> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        bail!("the TLS provider is installed twice");
    }
    let arguments = Arguments::parse();
    let temporary = tempfile::Builder::new().prefix("boxoffice-chaos-").tempdir()?;
    let folder = arguments.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    let mut cluster =
        Cluster::start(&folder, &arguments.program).await.context("the service does not start")?;
    let result = run(&arguments, &mut cluster).await;
    cluster.stop().await;
    let report = result?;
    report.print();
    if let Some(path) = &arguments.save {
        std::fs::write(path, report.json()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.is_good() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::from(1) })
}

async fn run(arguments: &Arguments, cluster: &mut Cluster) -> anyhow::Result<Report> {
    let books = Arc::new(Books::default());
    let crowd = Crowd::start(cluster, Arc::clone(&books), arguments.buyers_per_second).await?;
    let mut rng = StdRng::seed_from_u64(arguments.seed);
    let mut choice = Fault::choice(&arguments.only, cluster.has_small_disks());
    let mut report = Report::new(arguments.seed, arguments.buyers_per_second);
    for number in 1..=arguments.faults {
        let fault = choice.next(&mut rng);
        let began = Instant::now();
        eprintln!("fault {number}: {fault}");
        fault.strike(cluster, &mut rng).await.with_context(|| format!("fault {number} ({fault})"))?;
        report.note(fault, began.elapsed());
        sleep(Duration::from_millis(rng.random_range(200..1_200))).await;
        report.restarts += cluster.restart_ended_instances().await?;
        if number % 10 == 0 || number == arguments.faults {
            let ready = cluster.wait_until_ready(READY_WITHIN).await;
            report.check(number, ready, cluster.audit().await?, &books.verify(cluster, false).await);
        }
    }
    eprintln!("the crowd goes home");
    crowd.stop().await;
    let ready = cluster.wait_until_ready(READY_WITHIN).await;
    let ended = cluster.wait_until_all_ended(ENDED_WITHIN).await?;
    let violations = books.verify(cluster, true).await;
    report.check(arguments.faults, ready, ended, &violations);
    report.finish(&books, violations);
    Ok(report)
}
