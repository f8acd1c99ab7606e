//! The program of a package, run as people and other programs run it.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use boxoffice::store;

use super::{Env, fresh_database, fresh_dir};

/// The program of the package whose tests these are: the service or the benchmark.
const PATH: &str =
    match (option_env!("CARGO_BIN_EXE_boxoffice"), option_env!("CARGO_BIN_EXE_boxoffice-bench")) {
        (Some(path), _) | (_, Some(path)) => path,
        _ => panic!("this package has no program"),
    };

/// The program with its surroundings: nothing of this machine's settings reaches it.
pub struct Program {
    environment: Vec<(&'static str, String)>,
}

/// What a run left behind.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Program {
    /// On a data directory where nothing runs.
    pub fn alone() -> Self {
        let dir = fresh_dir("cli").to_str().expect("a path of ours is text").to_owned();
        Self { environment: vec![("BOXOFFICE_DATA_DIR", dir)] }
    }

    /// On the servers of a test.
    pub fn of(env: &Env) -> Self {
        Self::alone().with("DATABASE_URL", &env.database_url).with("NATS_URL", &env.nats_url)
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// The same with one setting more.
    pub fn also(&self, name: &'static str, value: &str) -> Self {
        Self { environment: self.environment.clone() }.with(name, value)
    }

    pub async fn run(&self, words: &str) -> Ran {
        self.run_words(&words.split(' ').collect::<Vec<_>>()).await
    }

    /// The same where a word may have spaces in it.
    pub async fn run_words(&self, words: &[&str]) -> Ran {
        let output = Command::new(PATH)
            .args(words)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (*name, value)))
            .kill_on_drop(true)
            .output()
            .await
            .expect("the program runs");
        let ran = Ran::from(output);
        assert!(!ran.err.contains("panicked"), "{words:?}: {}", ran.err);
        ran
    }

    /// Runs it with `--json` and reads the one value it prints.
    pub async fn json(&self, code: i32, words: &str) -> Value {
        let ran = self.run(&format!("{words} --json")).await;
        assert_eq!(ran.code, code, "{words}: {}{}", ran.out, ran.err);
        assert_eq!(ran.out.trim_end().lines().count(), 1, "{words}: {}", ran.out);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{words}: {error}: {}", ran.out))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("the program writes text");
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The program on a fresh database, and the database.
pub async fn with_database() -> (Program, sqlx::PgPool) {
    let url = fresh_database().await;
    let pool = store::open(&url, 2).unwrap();
    (Program::alone().with("DATABASE_URL", &url), pool)
}
