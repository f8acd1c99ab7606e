//! What everybody reads, from memory: true soon after each change, on every instance, and cheap for the database.

use std::time::Duration;

use boxoffice::background::Tasks;
use boxoffice::catalog::Catalog;
use boxoffice::store::api_keys::Role;
use boxoffice::store::catalog::SeatStatus;
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::common::app::{TestApp, until};
use super::common::http::Entrance;

/// Well below the age at which a copy is read anew without a word.
const SOON: Duration = Duration::from_millis(500);

/// The memory of an instance beside the test's own.
async fn another(test: &TestApp, keeps: bool) -> Catalog {
    let (pool, bus, clock) = (test.app.pool.clone(), test.env.bus.clone(), test.app.clock.clone());
    let stop = CancellationToken::new();
    Catalog::open(pool, bus, clock, keeps, &Tasks::new(&stop), &stop).await.unwrap()
}

/// The status of the first seat, as an instance shows it now.
async fn shown(catalog: &Catalog, performance: Uuid) -> String {
    let map = catalog.seats(performance).await.unwrap();
    let body: Value = serde_json::from_slice(&map.document(None).json).unwrap();
    body["seats"][0]["status"].as_str().unwrap().to_owned()
}

/// How long it takes from `since` until an instance shows the first seat like this.
async fn seen(catalog: &Catalog, performance: Uuid, status: &str, since: Instant) -> Duration {
    while shown(catalog, performance).await != status {
        assert!(since.elapsed() < Duration::from_secs(5), "{status} is not shown");
        sleep(Duration::from_millis(2)).await;
    }
    since.elapsed()
}

/// Sells the first seat behind everybody's back.
async fn sell_silently(test: &TestApp) {
    let sql = "update seats set status = 'sold', holder = $1 where performance_id = $1 and number = 1";
    sqlx::query(sql).bind(test.performance).execute(&test.app.pool).await.unwrap();
}

#[tokio::test]
async fn a_hold_a_sale_and_a_refund_are_seen_on_every_instance_at_once() {
    let test = TestApp::start().await;
    let instances = [another(&test, true).await, another(&test, true).await];
    let user = test.user(1_000).await;
    let look = async |status: &str| {
        let since = Instant::now();
        for instance in &instances {
            let took = seen(instance, test.performance, status, since).await;
            assert!(took < SOON, "{status} was seen after {took:?}");
        }
    };
    look("free").await;
    let held = test.reserve(user, &[1]).await;
    look("held").await;
    test.pay(held.id).await;
    look("sold").await;
    test.cancel(held.id).await;
    look("free").await;
    for instance in &instances {
        let dates = instance.performances(test.concert).await.unwrap();
        assert_eq!(dates[0].seats_free, 50);
    }
}

#[tokio::test]
async fn a_change_that_nobody_tells_of_is_seen_within_a_second() {
    let test = TestApp::start().await;
    let (watched, idle) = (another(&test, true).await, another(&test, true).await);
    assert_eq!(shown(&watched, test.performance).await, "free");
    assert_eq!(shown(&idle, test.performance).await, "free");
    let dates = watched.performances(test.concert).await.unwrap();
    assert_eq!(dates[0].seats_free, 50);
    sell_silently(&test).await;
    let since = Instant::now();
    let took = seen(&watched, test.performance, "sold", since).await;
    assert!(took < Duration::from_secs(1), "seen after {took:?}");
    sleep(Duration::from_secs(1).saturating_sub(since.elapsed())).await;
    assert_eq!(shown(&idle, test.performance).await, "sold", "a copy older than a second was given out");
    assert_eq!(watched.performances(test.concert).await.unwrap()[0].seats_free, 49);
}

#[tokio::test]
async fn two_hundred_who_ask_at_once_cost_one_query() {
    let test = TestApp::start().await;
    let catalog = another(&test, true).await;
    shown(&catalog, test.performance).await;
    sleep(Duration::from_secs(1)).await;
    let mut door = test.app.pool.begin().await.unwrap();
    sqlx::query("lock table seats in access exclusive mode").execute(&mut *door).await.unwrap();
    let readers = (0..200).map(|_| {
        let catalog = catalog.clone();
        let performance = test.performance;
        tokio::spawn(async move { catalog.seats(performance).await.unwrap() })
    });
    let readers: Vec<_> = readers.collect();
    let waiting = async || {
        let sql = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock' and query like '%from seats%'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&test.env.pool).await.unwrap()
    };
    until(5, "the query to wait", || async { waiting().await > 0 }).await;
    sleep(Duration::from_millis(100)).await;
    assert_eq!(waiting().await, 1);
    door.commit().await.unwrap();
    let maps = join_all(readers).await;
    let tag = |map: &boxoffice::catalog::SeatMap| map.document(Some(SeatStatus::Free)).etag.clone();
    let tags: std::collections::BTreeSet<String> =
        maps.iter().map(|map| tag(map.as_ref().unwrap())).collect();
    assert_eq!(tags.len(), 1);
}

#[tokio::test]
async fn a_new_concert_and_a_new_date_are_seen_on_every_instance_at_once() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let other = another(test, true).await;
    assert_eq!(other.concerts(None, 10).await.unwrap().len(), 1);
    let wanted = json!({ "name": "Another", "description": "" });
    entrance.post("/v1/admin/concerts", &admin, wanted).await.good(201);
    let since = Instant::now();
    until(5, "the concert", || async { other.concerts(None, 10).await.unwrap().len() == 2 }).await;
    assert!(since.elapsed() < SOON, "seen after {:?}", since.elapsed());

    assert_eq!(other.performances(test.concert).await.unwrap().len(), 1);
    let now = chrono::Utc::now();
    let date = json!({
        "venue": "Here", "starts_at": now + chrono::TimeDelta::days(2), "duration_minutes": 60,
        "sale_opens_at": now - chrono::TimeDelta::hours(1), "sale_closes_at": now + chrono::TimeDelta::days(1),
        "seats": [{ "from": 1, "to": 5, "section": "A", "price": 1 }],
    });
    let path = format!("/v1/admin/concerts/{}/performances", test.concert);
    entrance.post(&path, &admin, date).await.good(201);
    let since = Instant::now();
    until(5, "the date", || async { other.performances(test.concert).await.unwrap().len() == 2 }).await;
    assert!(since.elapsed() < SOON, "seen after {:?}", since.elapsed());
}

#[tokio::test]
async fn without_the_cache_every_read_asks_the_database() {
    let test = TestApp::start().await;
    let catalog = another(&test, false).await;
    assert_eq!(shown(&catalog, test.performance).await, "free");
    assert_eq!(catalog.performances(test.concert).await.unwrap()[0].seats_free, 50);
    sell_silently(&test).await;
    assert_eq!(shown(&catalog, test.performance).await, "sold");
    assert_eq!(catalog.performances(test.concert).await.unwrap()[0].seats_free, 49);
}
