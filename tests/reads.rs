//! Public reads from the cache: correct soon after each change, on every instance, and cheap for the database.

use std::time::Duration;

use boxoffice::background::Tasks;
use boxoffice::catalog::Catalog;
use boxoffice::store::api_keys::Role;
use boxoffice::store::catalog::SeatStatus;
use futures::future::join_all;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::common::app::{TestApp, add_performance, until};
use super::common::http::{Caller, Entrance};

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
    let body: Value = serde_json::from_slice(&map.document(None).await.json).unwrap();
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

/// Sells the first seat directly in the database.
async fn sell_silently(test: &TestApp) {
    let sql = "update seats set status = 'sold', holder = $1 where performance_id = $1 and number = 1";
    sqlx::query(sql).bind(test.performance).execute(&test.app.pool).await.unwrap();
}

#[tokio::test]
async fn seat_changes_appear_on_every_instance() {
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
async fn unannounced_change_is_seen_within_a_second() {
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
async fn two_hundred_concurrent_reads_cost_one_query() {
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
    let mut tags = std::collections::BTreeSet::new();
    for map in &maps {
        tags.insert(map.as_ref().unwrap().document(Some(SeatStatus::Free)).await.etag);
    }
    assert_eq!(tags.len(), 1);
}

#[tokio::test]
async fn new_concerts_and_dates_appear_on_every_instance() {
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

#[tokio::test]
async fn long_map_is_compressed_on_request() {
    let entrance = Entrance::start().await;
    let performance = add_performance(&entrance.test.app, entrance.test.concert, 3_000, 100).await;
    let caller = entrance.admitted(0).await;
    let path = format!("/v1/performances/{performance}/seats");
    let fetch = async |headers: &[(&str, &str)]| {
        let mut request = entrance.request(Method::GET, &path, &caller);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.bytes().await.unwrap())
    };
    let (status, plain, json) = fetch(&[]).await;
    assert_eq!((status, plain.get("content-encoding")), (200, None));
    let (status, head, compressed) = fetch(&[("accept-encoding", "br, gzip;q=0.9")]).await;
    assert_eq!((status, head["content-encoding"].as_bytes()), (200, &b"gzip"[..]));
    assert!(compressed.len() * 8 < json.len(), "{} of {}", compressed.len(), json.len());
    assert_eq!(
        (&head["vary"], &plain["vary"]),
        (&"accept-encoding".parse().unwrap(), &"accept-encoding".parse().unwrap())
    );
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, json);
    assert_ne!(head["etag"], plain["etag"], "a strong tag names one encoding");
    for tag in [&head["etag"], &plain["etag"]] {
        let known = ("if-none-match", tag.to_str().unwrap());
        assert_eq!(fetch(&[known]).await.0, 304);
        let (status, again, _) = fetch(&[known, ("accept-encoding", "gzip")]).await;
        assert_eq!((status, &again["etag"]), (304, &head["etag"]));
    }
    let (_, other, page) = fetch_page(&entrance, "/openapi.json").await;
    assert_eq!(other["content-encoding"], "gzip");
    assert!(page.len() < 60_000, "{}", page.len());
}

async fn fetch_page(entrance: &Entrance, path: &str) -> (u16, HeaderMap, bytes::Bytes) {
    let request = entrance.request(Method::GET, path, &Caller::anonymous()).header("accept-encoding", "gzip");
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.headers().clone(), answer.bytes().await.unwrap())
}

#[tokio::test]
async fn only_seats_changed_since_are_sent() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let path = format!("/v1/performances/{}/seats", entrance.test.performance);
    let whole = entrance.get(&path, &buyer).await.good(200).clone();
    let version = whole["version"].as_str().unwrap().to_owned();
    assert_eq!(whole["since"], Value::Null);
    let since = format!("{path}?since={version}");
    let nothing = entrance.get(&since, &buyer).await.good(200).clone();
    assert_eq!((nothing["seats"].as_array().map(Vec::len), &nothing["since"]), (Some(0), &json!(version)));
    entrance.reserve(&buyer, &[4, 7]).await.good(201);
    until(5, "the change", || async {
        entrance.get(&since, &buyer).await.good(200)["version"] != json!(version)
    })
    .await;
    let changes = entrance.get(&since, &buyer).await.good(200).clone();
    let numbers: Vec<i64> =
        changes["seats"].as_array().unwrap().iter().map(|seat| seat["number"].as_i64().unwrap()).collect();
    assert_eq!((numbers, &changes["since"]), (vec![4, 7], &json!(version)));
    assert!(changes["seats"].as_array().unwrap().iter().all(|seat| seat["status"] == "held"), "{changes}");
    // Applied to the map there was, they make the map there is.
    let mut seats = whole["seats"].as_array().unwrap().clone();
    for seat in changes["seats"].as_array().unwrap() {
        let at = seats.iter().position(|one| one["number"] == seat["number"]).unwrap();
        seats[at] = seat.clone();
    }
    let now = entrance.get(&path, &buyer).await.good(200).clone();
    assert_eq!((&json!(seats), &now["version"]), (&now["seats"], &changes["version"]));
    let unknown = entrance.get(&format!("{path}?since=0123"), &buyer).await.good(200).clone();
    assert_eq!(unknown, now, "the whole map where the version is not known");
    let both = entrance.get(&format!("{path}?since={version}&status=free"), &buyer).await;
    assert_eq!(both.pointers(), ["/since"]);
}
