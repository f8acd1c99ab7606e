//! `boxoffice worker test`: the workers of all SDKs pass it, and workers with a fault do not.

mod faults;
mod faulty_worker;
mod printer;
pub mod toolchains;

use std::path::PathBuf;

use boxoffice::bus::topology;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::badge_printer::nats_py;
use crate::common::program::{Program, Ran};
use crate::common::{Env, fresh_database};

/// The contexts by which a printer of badges shows all that it can.
const CONTEXTS: [&str; 12] = [
    "--input",
    r#"{"how":"","seats":[1,2]}"#,
    "--rejected",
    r#"{"how":"refuse"}"#,
    "--failed",
    r#"{"how":"fail"}"#,
    "--unknown",
    r#"{"how":"doubt"}"#,
    "--slow",
    r#"{"how":"slow"}"#,
    "--poison",
    r#"{"how":"throw"}"#,
];

/// Counts the badges of the example without an SDK: it names them by the end of the saga's id.
const COUNT_BADGES: &str = r#"
import os, sqlite3, sys
sql = "select count(*) from badges where badge like ?"
print(sqlite3.connect(sys.argv[1]).execute(sql, (os.environ["SAGA"][-8:] + "-%",)).fetchone()[0])"#;

/// A printer of badges that runs as a process of its own, on a database of its own.
pub struct PrinterProcess {
    env: Env,
    database: String,
    restart: PathBuf,
}

impl PrinterProcess {
    /// Starts it with the script that also restarts it.
    async fn start(program: &[String]) -> Self {
        let (env, database) = (Env::start().await, fresh_database().await);
        // A worker does not start without the streams; the suite or an engine makes them.
        topology::ensure(&env.bus).await.unwrap();
        let words: Vec<String> = program.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "cd '{dir}'\n[ ! -f worker.pid ] || kill -9 \"$(cat worker.pid)\"\n\
             NATS_URL='{nats}' DATABASE_URL='{database}' {words} >>worker.log 2>&1 </dev/null &\necho $! >worker.pid\n",
            dir = env.dir.display(),
            nats = env.nats_url,
            words = words.join(" "),
        );
        let restart = env.dir.join("restart.sh");
        std::fs::write(&restart, script).unwrap();
        let started = std::process::Command::new("sh").arg(&restart).status().unwrap();
        assert!(started.success());
        Self { env, database, restart }
    }

    /// Runs the suite with these contexts, a way to count effects, and the way to restart.
    async fn test(&self, command: &str, contexts: &[&str], count: &str) -> Ran {
        let restart = format!("sh '{}'", self.restart.display());
        let mut words = vec!["worker", "test", "--command", command, "--count", count];
        words.extend(["--restart", &restart, "--json"]);
        words.extend(contexts);
        let path = std::env::var("PATH").unwrap();
        Program::of(&self.env).with("PATH", &path).run_words(&words).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.env.dir.join("worker.log")).unwrap_or_default()
    }
}

impl Drop for PrinterProcess {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.env.dir.join("worker.pid")).unwrap_or_default();
        if let Ok(pid) = pid.trim().parse() {
            // It may have ended.
            let _killed = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The program of Postgres that counts badges, wherever the packages put it.
fn psql() -> String {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = folders.map(|folder| folder.path().join("bin/psql")).find(|program| program.is_file());
    found.map_or("psql".to_owned(), |program| program.display().to_string())
}

/// The suite finds nothing wrong, skips these cases and no other, and leaves no command on the stream.
async fn assert_good(printer: &PrinterProcess, ran: &Ran, skipped: &[&str]) {
    assert_eq!(ran.code, 0, "{}\n{}\n{}", ran.out, ran.err, printer.log());
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 16);
    for case in cases {
        let is_skipped = skipped.contains(&case["name"].as_str().unwrap());
        let expected = if is_skipped { "skipped" } else { "passed" };
        assert_eq!(case["verdict"], expected, "{case:#}\n{}", printer.log());
    }
    let stream = printer.env.bus.jetstream.get_stream("STEPS").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 0);
}

/// A printer by an SDK passes every case.
async fn assert_passes(program: &[String]) {
    let printer = PrinterProcess::start(program).await;
    let sql = "select count(*) from badges where saga = '$SAGA'";
    let count = format!("{} '{}' -tAc \"{sql}\"", psql(), printer.database);
    let ran = printer.test("printer.print", &CONTEXTS, &count).await;
    assert_good(&printer, &ran, &[]).await;
}

/// The page about workers shows this one. It has no SDK, and cannot be slow or in doubt.
#[tokio::test(flavor = "multi_thread")]
async fn example_without_an_sdk_passes() {
    let Some(nats_py) = nats_py().await else { return eprintln!("there is no python3 here") };
    let worker = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/badge_printer/worker.py");
    let start = format!("PYTHONPATH=\"{nats_py}\" exec python3 \"{worker}\" \"$NATS_URL\" printer.db");
    let printer = PrinterProcess::start(&["sh", "-c", &start].map(str::to_owned)).await;
    let contexts = [
        "--input",
        r#"{"seats":[1,2],"reservation_id":"r"}"#,
        "--rejected",
        r#"{"seats":[],"reservation_id":"r"}"#,
        "--poison",
        r#"{"seats":7,"reservation_id":"r"}"#,
    ];
    let database = printer.env.dir.join("printer.db").display().to_string();
    let count = format!("python3 -c '{COUNT_BADGES}' '{database}'");
    let ran = printer.test("badges.print", &contexts, &count).await;
    assert_good(&printer, &ran, &["failure is tried again", "unknown outcome", "slow answer"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_sdk_passes() {
    // The program below is this test, with addresses in its environment.
    if printer::serve().await {
        return;
    }
    let this = std::env::current_exe().unwrap().display().to_string();
    let program =
        ["env", "BOXOFFICE_TEST_PRINTER=1", &this, "--exact", "worker_conformance::rust_sdk_passes"];
    assert_passes(&program.map(str::to_owned)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn python_sdk_passes() {
    if let Some(program) = toolchains::printer("python").await {
        assert_passes(&program).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_sdk_passes() {
    if let Some(program) = toolchains::printer("typescript").await {
        assert_passes(&program).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn go_sdk_passes() {
    if let Some(program) = toolchains::printer("go").await {
        assert_passes(&program).await;
    }
}
