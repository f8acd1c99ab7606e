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

    /// Runs the suite with everything that it can be given.
    async fn test(&self) -> Ran {
        let (psql, restart) = (psql(), format!("sh '{}'", self.restart.display()));
        let sql = "select count(*) from badges where saga = '$SAGA'";
        let count = format!("{psql} '{}' -tAc \"{sql}\"", self.database);
        let mut words = vec!["worker", "test", "--command", "printer.print", "--count", &count];
        words.extend(["--restart", &restart, "--json"]);
        words.extend(CONTEXTS);
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

/// Every case passes, and none is skipped.
async fn assert_passes(program: &[String]) {
    let printer = PrinterProcess::start(program).await;
    let ran = printer.test().await;
    assert_eq!(ran.code, 0, "{}\n{}\n{}", ran.out, ran.err, printer.log());
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    let cases = report["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 16);
    for case in cases {
        assert_eq!(case["verdict"], "passed", "{case:#}\n{}", printer.log());
    }
    assert_eq!(report["undo"], "printer.shred");
    // Whatever the suite did, it has taken back; on the stream of commands nothing of it lies.
    let stream = printer.env.bus.jetstream.get_stream("STEPS").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 0);
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
