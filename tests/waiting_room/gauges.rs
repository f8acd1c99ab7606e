//! The metrics of the lines, as docs/operations.md and docs/waiting-room.md describe them.

use std::time::Duration;

use boxoffice::ids;
use tokio::time::Instant;
use uuid::Uuid;

use super::journal::{lose_the_bucket, until_restored};
use super::kills::process;
use super::surroundings::{Instance, LONG, concert, env};
use crate::common::app::until;
use crate::process::Process;

/// The value of a metric, for one concert if it has that label; `None` while it is missing.
async fn metric(process: &Process, name: &str, concert: Option<Uuid>) -> Option<f64> {
    let text = reqwest::get(format!("{}/metrics", process.admin_url)).await.unwrap().text().await.unwrap();
    let start = concert.map_or(format!("{name} "), |concert| format!("{name}{{concert=\"{concert}\"}} "));
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok())
}

#[tokio::test]
async fn stall_metric_follows_the_line() {
    let env = env().await;
    let concert = concert(&env.pool, 10, 6_000_000).await;
    let api = process(&env, "api").await;
    let here = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let begun = Instant::now();
    here.join_many(concert, 2).await;
    let says = async |name: &str| metric(&api, &format!("boxoffice_queue_{name}"), Some(concert)).await;
    until(10, "the line to be measured", || async { says("waiting").await == Some(2.0) }).await;
    assert_eq!((says("stalled").await, says("free").await), (Some(0.0), Some(10.0)), "nothing is wrong yet");
    until(25, "the alarm", || async { says("stalled").await == Some(1.0) }).await;
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());

    let scheduler = Instance::start(&env.nats_url, &env.pool, LONG, true).await;
    until(10, "the alarm to end", || async { says("stalled").await == Some(0.0) }).await;
    let admitted = async || (says("active").await, says("admitted_last_minute").await);
    until(10, "both to be admitted", || async { admitted().await == (Some(2.0), Some(2.0)) }).await;
    scheduler.stop().await;
    let rules = include_str!("../../deploy/prometheus/rules.yml");
    assert!(rules.contains("max by (concert) (boxoffice_queue_stalled) > 0"));
}

#[tokio::test]
async fn journal_metrics_show_lag_and_restorations() {
    let env = env().await;
    let concert = concert(&env.pool, 0, 6_000_000).await;
    let leader = process(&env, "api,scheduler").await;
    let here = Instance::start(&env.nats_url, &env.pool, LONG, false).await;
    let places = here.join_many(concert, 2).await;
    let (lag, restorations) = ("boxoffice_queue_journal_lag", "boxoffice_queue_restorations_total");
    let says = async |name: &str| metric(&leader, name, None).await;
    until(30, "a first start to count", || async { says(restorations).await == Some(1.0) }).await;
    let waiting = async || metric(&leader, "boxoffice_queue_waiting", Some(concert)).await;
    until(10, "the line to be measured", || async { waiting().await == Some(2.0) }).await;
    until(10, "the journal to be whole", || async { says(lag).await == Some(0.0) }).await;

    let mut lock = env.pool.begin().await.unwrap();
    sqlx::query("lock table queue_journal in access exclusive mode").execute(&mut *lock).await.unwrap();
    here.join_many(concert, 3).await;
    until(10, "three to be missing", || async { says(lag).await == Some(3.0) }).await;
    lock.rollback().await.unwrap();
    until(10, "the journal to catch up", || async { says(lag).await == Some(0.0) }).await;

    lose_the_bucket(&env.bus).await;
    until_restored(&env.bus).await;
    until(10, "the metric of the restoration", || async { says(restorations).await == Some(2.0) }).await;
    assert_eq!(here.join(places[0].user, concert).await.token.position, Some(1));
    assert!(here.join(ids::new(), concert).await.created);
    let page = include_str!("../../docs/operations.md");
    let rules = include_str!("../../deploy/prometheus/rules.yml");
    for name in [lag, restorations] {
        assert!(page.contains(&format!("| `{name}` |")), "{name} has no row");
        assert!(rules.contains(name), "{name} has no rule");
    }
}
