//! The gauges for monitoring, in the metrics of a running program.

use std::process::Stdio;

use crate::common::Env;
use crate::common::app::{QUEUE_SECRET, until};
use crate::common::fresh_dir;

const GOOD: &str = include_str!("../data/audit_good.sql");

#[tokio::test]
async fn gauges_show_stuck_parked_and_absent_at_once() {
    // Another test of this process may have installed it before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let env = Env::start().await;
    let dir = fresh_dir("gauges");
    std::fs::create_dir_all(&dir).unwrap();
    // The measurement is of one process: it has to be the program itself.
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_boxoffice"))
        .args(["serve", "--role", "api,worker,scheduler,orchestrator", "--json", "--local"])
        .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
        .env_clear()
        .env("DATABASE_URL", &env.database_url)
        .env("NATS_URL", &env.nats_url)
        .env("BOXOFFICE_DATA_DIR", &dir)
        .env("BOXOFFICE_ACCESS_SECRET", "a secret of the tests, long enough for anybody")
        .env("BOXOFFICE_QUEUE_SECRET", QUEUE_SECRET)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(stdout));
    let line = lines.next_line().await.unwrap().expect("it says where it listens");
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = format!("{}/metrics", answer["admin_url"].as_str().unwrap());
    let metrics = async || reqwest::get(&address).await.unwrap().text().await.unwrap();
    until(10, "the first measurement", || async {
        metrics().await.contains("boxoffice_stuck_sagas{workflow=\"booking\"} 0")
    })
    .await;

    sqlx::raw_sql(GOOD).execute(&env.pool).await.unwrap();
    sqlx::raw_sql(
        "update sagas set status = saga_status('stuck'), stuck_since = now(), due_at = null where status = saga_status('waiting');
         insert into parked_messages (stream, subject, headers, payload, error) values ('SAGAS', 's', '{}', '', 'x')",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    let changed = tokio::time::Instant::now();
    until(5, "the gauge", || async {
        metrics().await.contains("boxoffice_stuck_sagas{workflow=\"booking\"} 1")
    })
    .await;
    assert!(changed.elapsed() < std::time::Duration::from_secs(3), "{:?}", changed.elapsed());
    let text = metrics().await;
    assert!(text.contains("boxoffice_parked_messages 1"), "{text}");
    assert!(text.contains("boxoffice_command_workers{command=\"seats.hold\"} 1"), "{text}");
    let page = include_str!("../../docs/operations.md");
    let rules = include_str!("../../deploy/prometheus/rules.yml");
    let (of_all, of_one) =
        page.split_once("\nEach instance has its own value of these:\n").expect("there are two tables");
    let rows = of_all.lines().filter_map(|line| line.strip_prefix("| `boxoffice_")?.split(['`', '{']).next());
    // The gauges of a line exist once it has had a user.
    let named: Vec<&str> = rows.filter(|name| !name.starts_with("queue_")).collect();
    assert_eq!(named.len(), 4, "{named:?}");
    for name in named {
        assert!(text.contains(&format!("boxoffice_{name}")), "{name} is not in {text}");
        assert!(rules.contains(&format!("boxoffice_{name}")), "{name} has no rule");
    }
    assert!(of_one.contains("boxoffice_jetstream_works") && of_one.contains("boxoffice_job_last_success"));
    assert!(of_one.contains("boxoffice_audit_findings"));
    until(10, "the probe and the sweeper to say how they did", || async {
        let text = metrics().await;
        text.contains("boxoffice_jetstream_works 1")
            && text.contains("boxoffice_job_last_success_timestamp_seconds{job=\"sweep\"}")
    })
    .await;
    assert!(text.contains("boxoffice_commands_waiting{command=\"seats.hold\"} 0"), "{text}");
}
