//! Whole processes, killed with -9 in the middle of an on-sale over HTTP: `up` with its private servers, and one of
//! two instances that share theirs.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use boxoffice::{audit, ids, store};
use dev_servers::addresses;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::common::app::until;
use crate::common::{Env, fresh_dir};

/// Holds that are short enough to expire during the test, and a line that admits every user at once.
const PACE: [&str; 4] = ["--hold-seconds", "3", "--payment-grace-seconds", "3"];

/// A process of the real program; it is killed when it is dropped.
pub struct Process {
    pub child: Child,
    /// Where buyers are answered; where operators are, without the role api.
    pub url: String,
    /// Where operators and monitoring are answered.
    pub admin_url: String,
}

impl Process {
    pub async fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[]).await
    }

    /// The same with these variables in its environment.
    pub async fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let admin: &[&str] = if arguments[0] == "serve" { &["--admin-listen", "127.0.0.1:0"] } else { &[] };
        let mut child = Command::new(env!("CARGO_BIN_EXE_boxoffice"))
            .args(arguments)
            .args(PACE)
            .args(["--json", "--listen", "127.0.0.1:0"])
            .args(admin)
            .env_remove("BOXOFFICE_ADMIN_LISTEN")
            .env_remove("DATABASE_URL")
            .env_remove("NATS_URL")
            .env("RUST_LOG", "warn")
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = said.next_line().await.unwrap().expect("it says where it is");
        let answer: Value = serde_json::from_str(&line).unwrap();
        let admin_url = answer["admin_url"].as_str().unwrap().to_owned();
        let url = answer["url"].as_str().unwrap_or(&admin_url).to_owned();
        let client = client();
        until(20, "the service to be ready", || async {
            client.get(format!("{admin_url}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self { child, url, admin_url }
    }

    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

pub fn client() -> reqwest::Client {
    // Another test of this process may have chosen it before.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap()
}

/// Buyers who come one after the other, whatever happens to the service, until they are stopped.
pub struct Buyers {
    url: String,
    paid: AtomicUsize,
    stop: CancellationToken,
}

impl Buyers {
    /// One buyer's whole way; any answer but success ends it.
    pub async fn buy(&self, client: &reqwest::Client, number: usize) -> Option<()> {
        let user = self.call(client.post(self.at("/v1/users")).json(&json!({ "name": "Ada" }))).await?;
        let bearer = format!("Bearer {}", user["access_token"].as_str()?);
        let with = |request: reqwest::RequestBuilder| request.header("authorization", &bearer);
        let charge = client.post(self.at("/v1/points/charges")).json(&json!({ "amount": 1_000_000 }));
        self.call(with(charge).header("idempotency-key", "first")).await?;
        let concerts = self.call(client.get(self.at("/v1/concerts"))).await?;
        let on_sale = |concert: &&Value| concert["on_sale"] == true;
        let concert = concerts["items"].as_array()?.iter().find(on_sale)?["id"].as_str()?.to_owned();
        let mut place =
            self.call(with(client.post(self.at(&format!("/v1/concerts/{concert}/queue-tokens"))))).await?;
        while place["status"] == "waiting" {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let look = client.get(self.at("/v1/queue-tokens/current"));
            place = self.call(with(look).header("queue-token", place["token"].as_str()?)).await?;
        }
        let token = place["token"].as_str()?;
        let inside = |request: reqwest::RequestBuilder| with(request).header("queue-token", token);
        let dates =
            self.call(inside(client.get(self.at(&format!("/v1/concerts/{concert}/performances"))))).await?;
        let date = dates["items"].as_array()?.first()?["id"].as_str()?.to_owned();
        let order = json!({ "performance_id": date, "seats": [1 + (number * 7) % 50] });
        let held = self.call(inside(client.post(self.at("/v1/reservations")).json(&order))).await?;
        let payment = format!("/v1/reservations/{}/payment", held["id"].as_str()?);
        if !number.is_multiple_of(3) {
            self.call(inside(client.post(self.at(&payment)))).await?;
            self.paid.fetch_add(1, Ordering::Relaxed);
        }
        Some(())
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Option<Value> {
        let answer = self.stop.run_until_cancelled(request.send()).await?.ok()?;
        let settled = answer.status().is_success() && answer.status() != 202;
        if settled { answer.json().await.ok() } else { None }
    }

    /// Lets buyers come until `count` have paid or the stop.
    pub async fn come(self: Arc<Self>, count: usize) {
        let mut tasks = tokio::task::JoinSet::new();
        for lane in 0..12 {
            let buyers = Arc::clone(&self);
            tasks.spawn(async move {
                let client = client();
                let mut number = lane;
                while !buyers.stop.is_cancelled()
                    && buyers.paid.load(Ordering::Relaxed) < count
                    && number < 3_000
                {
                    if buyers.buy(&client, number).await.is_none() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    number += 12;
                }
            });
        }
        tasks.join_all().await;
    }
}

pub fn buyers(url: &str) -> Arc<Buyers> {
    Arc::new(Buyers { url: url.to_owned(), paid: AtomicUsize::new(0), stop: CancellationToken::new() })
}

/// A sale goes on while `killed` is killed, once a few have paid.
async fn kill_amid_a_sale(killed: Process) {
    let crowd = buyers(&killed.url);
    let sale = tokio::spawn(Arc::clone(&crowd).come(1_000));
    until(30, "a few to have paid", || async { crowd.paid.load(Ordering::Relaxed) >= 5 }).await;
    killed.kill().await;
    crowd.stop.cancel();
    sale.await.unwrap();
}

/// Every saga has ended, and the books are right.
async fn ends_right(pool: &PgPool) {
    until(60, "every saga to end", || async { store::sagas::count_open(pool).await.unwrap().is_empty() })
        .await;
    let report = audit::run(pool).await.unwrap();
    assert!(report.is_good(true), "the audit found: {report:#?}");
}

fn up(dir: &Path) -> [String; 3] {
    ["up".to_owned(), "--data-dir".to_owned(), dir.display().to_string()]
}

async fn start_up(dir: &Path) -> Process {
    let arguments = up(dir);
    Process::start(&arguments.each_ref().map(String::as_str)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_up_resumes_the_sale() {
    let dir: PathBuf = fresh_dir("killed");
    kill_amid_a_sale(start_up(&dir).await).await;
    let again = start_up(&dir).await;
    let running = addresses::find(&dir).expect("it says where its servers are");
    let pool = store::open(&running.database_url, 4).unwrap();
    let crowd = buyers(&again.url);
    Arc::clone(&crowd).come(5).await;
    assert!(crowd.paid.load(Ordering::Relaxed) >= 5, "the sale does not go on");
    ends_right(&pool).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn surviving_instance_finishes_a_killed_ones_work() {
    let env = Env::start().await;
    let data_dir = env.dir.display().to_string();
    let everything = [
        "serve",
        "--role",
        "api,orchestrator,worker,scheduler",
        "--local",
        "--data-dir",
        &data_dir,
        "--database-url",
        &env.database_url,
        "--nats-url",
        &env.nats_url,
    ];
    let first = Process::start(&everything).await;
    boxoffice::sample_concerts::load(&env.pool, chrono::Utc::now(), 1_000, 60_000).await.unwrap();
    let ahead = [&everything[..], &["--clock-skew-ms", "5000"]].concat();
    let second = Process::start(&ahead).await;
    kill_amid_a_sale(first).await;
    let crowd = buyers(&second.url);
    Arc::clone(&crowd).come(5).await;
    assert!(crowd.paid.load(Ordering::Relaxed) >= 5, "the sale does not go on");
    ends_right(&env.pool).await;
    let serving = "boxoffice_command_workers{command=\"points.deduct\"} 1";
    until(20, "the one worker that is left to be counted", || async {
        let answer = client().get(format!("{}/metrics", second.admin_url)).send().await;
        answer.unwrap().text().await.unwrap().lines().any(|line| line == serving)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_answers_while_its_first_sweep_goes_on() {
    let env = Env::start().await;
    let overdue = chrono::Utc::now() - chrono::TimeDelta::minutes(1);
    let sql = "
        with saga as (
            insert into sagas (id, definition, status, step, direction, visit, attempt, resend_count, entered_at, sent_at,
                               due_at, seq, created_at, updated_at)
            select $1, code, saga_status('waiting'), saga_step(code, 'await_payment'), 0, 1, 0, 0, now(), now(), $2, 2,
                   now(), now()
            from workflow_definitions where workflow = 'booking' and version = 1 returning id
        )
        insert into saga_history (saga_id, seq, at, visit, attempt, event, step, direction, detail)
        select id, seq, now(), 1, 0, seq - 1, 0, 0, case seq when 1 then '{}' else json_build_object('expires_at', $2)::text end
        from saga, generate_series(1, 2) as seq";
    sqlx::query(sql).bind(ids::new()).bind(overdue).execute(&env.pool).await.unwrap();
    let data_dir = env.dir.display().to_string();
    let mut child = Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .args(["--local", "--data-dir", &data_dir])
        .args(["--role", "api,orchestrator,worker,scheduler"])
        .env("DATABASE_URL", &env.database_url)
        .env("NATS_URL", &env.nats_url)
        // The sweep of the start never ends.
        .env("BOXOFFICE_HALT_AT", "sweep::committed")
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(60), said.next_line()).await;
    let line = line.expect("the start does not wait for the sweep").unwrap().expect("it says where it is");
    let answer: Value = serde_json::from_str(&line).unwrap();
    let livez = format!("{}/livez", answer["url"].as_str().unwrap());
    let client = client();
    until(20, "an answer", || async {
        client.get(&livez).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
}
