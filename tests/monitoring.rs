//! Metrics, alerts and dashboards: the table of metrics is what the source counts, every alert fires in promtool's tests and has
//! its section in the operators' page, and a real Prometheus finds data for every alert and every panel.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use boxoffice::store::api_keys::Role;
use boxoffice::telemetry::METRICS;
use regex::Regex;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::common::app::until;
use crate::common::program::Program;
use crate::common::{Env, fresh_dir};
use crate::process::{Process, buyers, client};
use crate::tidy::{files_below, root};

const ROLES: [&str; 4] = ["api", "orchestrator", "worker", "scheduler"];
const DASHBOARDS: [&str; 3] = ["sale", "engine", "http"];

fn file(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Where `scripts/deps.sh tests` unpacks it, else on the path.
fn program(name: &str) -> PathBuf {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = data.unwrap_or_else(|| home.join(".local/share")).join("boxoffice/bin/prometheus").join(name);
    if own.exists() { own } else { PathBuf::from(name) }
}

fn promtool(arguments: &[&str]) {
    let output = std::process::Command::new(program("promtool"))
        .args(arguments)
        .current_dir(root().join("deploy/prometheus"))
        .output()
        .expect("promtool is there; scripts/deps.sh tests fetches it");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn every_metric_in_the_source_is_described() {
    let named = Regex::new(r#""((?:boxoffice|process)_[a-z0-9_]+)""#).unwrap();
    let mut used = BTreeSet::new();
    let paths = ["src", "crates/saga-engine/src"].into_iter().flat_map(files_below);
    for path in paths.filter(|path| !path.ends_with("metric_table.rs")) {
        let text = file(&path);
        used.extend(named.captures_iter(&text).map(|found| found[1].to_owned()));
        for kind in ["counter", "gauge", "histogram"] {
            let counted = Regex::new(&format!(r#"metrics::{kind}!\(\s*"([a-z0-9_]+)""#)).unwrap();
            for name in counted.captures_iter(&text).map(|found| found[1].to_owned()) {
                let described = METRICS.iter().find(|metric| metric.name == name);
                assert_eq!(described.map(|metric| metric.kind.name()), Some(kind), "{path}: {name}");
            }
        }
    }
    let described: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(described, used);
}

#[test]
fn the_page_of_metrics_is_the_table() {
    let head = "# Metrics\n\nThe metrics at `/metrics` of each process (Prometheus text format). \
        [operations.md](operations.md#alerts) has the alerts on them.\n\n| metric | kind | unit | what it says |\n|---|---|---|---|\n";
    let rows = METRICS.iter().map(|metric| {
        let unit = format!("{:?}", metric.unit).to_lowercase();
        format!("| `{}` | {} | {unit} | {} |\n", metric.name, metric.kind.name(), metric.help)
    });
    let expected = head.to_owned() + &rows.collect::<String>();
    assert!(file("docs/metrics.md") == expected, "docs/metrics.md should be:\n{expected}");
}

#[test]
fn every_alert_fires_and_names_its_section() {
    promtool(&["check", "rules", "rules.yml"]);
    promtool(&["test", "rules", "rules_test.yml"]);
    let page = file("docs/operations.md");
    let tests = yaml("deploy/prometheus/rules_test.yml");
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let runbook = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(runbook.ends_with(&format!("/docs/operations.md#{}", name.to_lowercase())), "{runbook}");
        assert!(page.contains(&format!("\n### {name}\n")), "{name} has no section");
        let asks =
            |check: &Value| check["alertname"] == name && check["exp_alerts"].as_array().unwrap().len() == 1;
        let test = tests["tests"].as_array().unwrap().iter().find(|test| test["name"] == name);
        let checks = test.map(|test| test["alert_rule_test"].as_array().unwrap().iter().any(asks));
        assert_eq!(checks, Some(true), "{name} is not seen firing");
    }
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn rules() -> Vec<Value> {
    let rules = yaml("deploy/prometheus/rules.yml")["groups"][0]["rules"].as_array().unwrap().clone();
    assert!(rules.len() > 20);
    rules
}

/// The queries of all panels, with every concert chosen.
fn panel_queries() -> Vec<String> {
    let mut queries = Vec::new();
    for name in DASHBOARDS {
        let board: Value = serde_json::from_str(&file(&format!("deploy/grafana/{name}.json"))).unwrap();
        let panels = board["panels"].as_array().unwrap();
        let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
        queries.extend(targets.map(|target| target["expr"].as_str().unwrap().replace("$concert", ".*")));
    }
    queries
}

/// Every series that alerts look at, with its labels.
fn alert_series() -> Vec<String> {
    let series = Regex::new(r"\b(?:boxoffice|process)_[a-z0-9_]+(?:\{[^}]*\})?").unwrap();
    let of = |rule: Value| {
        let expr = rule["expr"].as_str().unwrap().to_owned();
        series.find_iter(&expr).map(|found| found.as_str().to_owned()).collect::<Vec<_>>()
    };
    rules().into_iter().flat_map(of).collect()
}

/// A Prometheus with the rules and the scrape configuration of the repository; it is killed when it is dropped.
struct Prometheus {
    url: String,
    _child: Child,
}

impl Prometheus {
    fn start(targets: &[&str]) -> Self {
        let dir = fresh_dir("prometheus");
        std::fs::create_dir_all(&dir).unwrap();
        let config = file("deploy/prometheus/prometheus.yml");
        let wanted = "[api:8081, orchestrator:8081, worker:8081, scheduler:8081]";
        assert!(config.contains(wanted) && config.contains("15s"));
        let config = config.replace(wanted, &format!("[{}]", targets.join(", "))).replace("15s", "1s");
        std::fs::write(dir.join("prometheus.yml"), config).unwrap();
        std::fs::write(dir.join("rules.yml"), file("deploy/prometheus/rules.yml")).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(program("prometheus"))
            .arg(format!("--web.listen-address={free}"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data", "--log.level=error"])
            .current_dir(Path::new(&dir))
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is there; scripts/deps.sh tests fetches it");
        Self { url: format!("http://{free}"), _child: child }
    }

    async fn ask(&self, path: &str, query: &[(&str, &str)]) -> Option<Value> {
        let url = url::Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), query).unwrap();
        let answer = client().get(url).send().await.ok()?;
        let answer: Value = answer.json().await.ok()?;
        assert_eq!(answer["status"], "success", "{query:?}: {answer}");
        Some(answer["data"].clone())
    }

    /// Whether a query finds anything.
    async fn finds(&self, query: &str) -> bool {
        let data = self.ask("query", &[("query", query)]).await;
        data.is_some_and(|data| data["result"].as_array().is_some_and(|found| !found.is_empty()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_finds_every_alert_and_panel() {
    let env = Env::start().await;
    let data_dir = env.dir.display().to_string();
    let mut processes = Vec::new();
    for role in ROLES {
        let servers = ["--database-url", &env.database_url, "--nats-url", &env.nats_url];
        let arguments =
            [&["serve", "--role", role, "--local", "--data-dir", &data_dir], &servers[..]].concat();
        processes.push(Process::start(&arguments).await);
    }
    boxoffice::sample_concerts::load(&env.pool, chrono::Utc::now(), 1_000, 60_000).await.unwrap();
    let targets: Vec<&str> =
        processes.iter().map(|process| process.admin_url.strip_prefix("http://").unwrap()).collect();
    let prometheus = Prometheus::start(&targets);
    // Some pay, and some let their holds run out.
    buyers(&processes[0].url).come(5).await;
    let key =
        Program::of(&env).json(0, &format!("keys create --role {} --name me", Role::Viewer.as_str())).await;
    let lines = client().get(format!("{}/v1/ops/queues", processes[2].admin_url));
    let answer = lines.bearer_auth(key["key"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(answer.status(), 503, "a worker does not know the lines, and an answer 5xx is to be seen");

    let mut missing: BTreeSet<String> = panel_queries().into_iter().chain(alert_series()).collect();
    assert!(missing.len() > 80);
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(120);
    while !missing.is_empty() && tokio::time::Instant::now() < end {
        for query in missing.clone() {
            if prometheus.finds(&query).await {
                missing.remove(&query);
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(missing.is_empty(), "Prometheus finds nothing for {missing:#?}");

    until(20, "every rule to be evaluated", || async {
        let Some(data) = prometheus.ask("rules", &[]).await else { return false };
        let rules = data["groups"][0]["rules"].as_array().cloned().unwrap_or_default();
        rules.len() == self::rules().len() && rules.iter().all(|rule| rule["health"] == "ok")
    })
    .await;
    for process in &processes {
        let text = client()
            .get(format!("{}/metrics", process.admin_url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            let described = METRICS.iter().find(|metric| metric.name == name);
            assert_eq!(described.map(|metric| metric.kind.name()), Some(kind), "{name}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
        }
    }
}
