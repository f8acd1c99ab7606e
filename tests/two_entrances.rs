//! Requests under an `Idempotency-Key` that meet at two instances, or whose instance is killed before their answers are written.

use std::sync::Arc;

use boxoffice::booking::{BookingError, Order};
use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use boxoffice::store::claims::Key;
use boxoffice::store::idempotency::{Asked, Claim};
use futures::future::join_all;
use reqwest::{Method, Url};
use serde_json::{Value, json};

use super::common::app::{TestApp, add_performance, until};
use super::common::http::{Caller, Entrance, Reply, reply};
use super::laws::process::Process;

const KEYS: usize = 40;
const PATIENT: [&str; 2] = ["--settle-ms", "30000"];

/// A request to another instance than that of the entrance.
fn request_to(url: &str, entrance: &Entrance, act: &Act) -> reqwest::RequestBuilder {
    let built = entrance.request(Method::POST, &act.path, &act.caller).json(&act.body).build();
    let mut request = built.unwrap();
    let mut other = Url::parse(url).unwrap();
    other.set_path(&act.path);
    *request.url_mut() = other;
    reqwest::RequestBuilder::from_parts(reqwest::Client::new(), request)
}

struct Act {
    path: String,
    caller: Caller,
    body: Value,
}

impl Act {
    fn on(reservation: &Value, act: &str, caller: &Caller) -> Self {
        let path = format!("/v1/reservations/{}/{act}", reservation["id"].as_str().unwrap());
        Self { path, caller: caller.with("idempotency-key", act), body: json!({}) }
    }

    async fn send(&self, entrance: &Entrance) -> Reply {
        entrance.post(&self.path, &self.caller, self.body.clone()).await
    }
}

/// The body without what goes by the time of its making.
fn timeless(reply: &Reply) -> Value {
    let mut body = reply.body.clone();
    if let Some(fields) = body.as_object_mut() {
        fields.remove("expires_in_seconds");
    }
    body
}

async fn count(entrance: &Entrance, what: &'static str) -> i64 {
    sqlx::query_scalar(what).fetch_one(&entrance.pool).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_at_two_instances_has_one_effect() {
    let entrance = Entrance::with(&PATIENT).await;
    let other = entrance.test.another(&PATIENT).await;
    let url = format!("http://{}", other.address.unwrap());
    let cashier = entrance.key(Role::Cashier).await;
    let performance = add_performance(&entrance.test.app, entrance.test.concert, KEYS as i32, 100).await;
    let sales: Vec<Act> = (0..KEYS)
        .map(|at| Act {
            path: "/v1/reservations".to_owned(),
            caller: cashier.with("idempotency-key", &format!("sale-{at}")),
            body: json!({ "performance_id": performance, "seats": [at + 1], "user_id": ids::new() }),
        })
        .collect();
    let (entrance, url) = (&entrance, &url);
    let both = |act| async move {
        let (one, two) = tokio::join!(Act::send(act, entrance), reply(request_to(url, entrance, act)));
        [one, two]
    };
    for replies in join_all(sales.iter().map(both)).await {
        let sold: Vec<&Reply> = replies.iter().filter(|reply| reply.status != 409).collect();
        let bodies: Vec<Value> = sold.iter().map(|reply| (reply.good(201), timeless(reply)).1).collect();
        assert!(!bodies.is_empty() && bodies.iter().all(|body| *body == bodies[0]), "{replies:#?}");
        for refused in replies.iter().filter(|reply| reply.status == 409) {
            refused.is(409, "request_in_progress");
        }
    }
    assert_eq!(count(entrance, "select count(*) from reservations").await, KEYS as i64);
    until(20, "all answers to be written", || async {
        count(entrance, "select count(*) from idempotency_keys where status = 201").await == KEYS as i64
    })
    .await;
    for act in &sales {
        let [one, two] = both(act).await;
        assert_eq!(
            (one.good(201), &one.headers["idempotent-replayed"]),
            (two.good(201), &two.headers["idempotent-replayed"])
        );
    }
    let changed = Act {
        body: json!({ "performance_id": performance, "seats": [1], "user_id": ids::new() }),
        path: sales[0].path.clone(),
        caller: sales[0].caller.clone(),
    };
    for refused in both(&changed).await {
        refused.is(422, "idempotency_key_reused");
    }
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn known_key_is_answered_without_the_gate() {
    let entrance = Entrance::with(&PATIENT).await;
    let other = entrance.test.another(&PATIENT).await;
    let url = format!("http://{}", other.address.unwrap());
    let buyer = entrance.admitted(1_000).await;
    let hold = |caller: &Caller, seat: i64| Act {
        path: "/v1/reservations".to_owned(),
        caller: caller.clone(),
        body: json!({ "performance_id": entrance.test.performance, "seats": [seat] }),
    };
    let keyed = hold(&buyer.with("idempotency-key", "hold"), 1);
    let held = keyed.send(&entrance).await.good(201).clone();
    // The payment ends the session.
    entrance.pay(&buyer, &held).await.good(201);
    until(10, "the session to be over at both instances", || async {
        let new = hold(&buyer, 2);
        reply(request_to(&url, &entrance, &new)).await.status == 403
            && new.send(&entrance).await.status == 403
    })
    .await;
    for again in [keyed.send(&entrance).await, reply(request_to(&url, &entrance, &keyed)).await] {
        assert_eq!(
            (again.good(201)["id"].clone(), &again.headers["idempotent-replayed"]),
            (held["id"].clone(), &"true".parse().unwrap())
        );
    }
    let reused = hold(&keyed.caller, 2);
    for refused in [reused.send(&entrance).await, reply(request_to(&url, &entrance, &reused)).await] {
        refused.is(422, "idempotency_key_reused");
    }

    // What begins nothing is known by its key as well; a refusal is not.
    let path = format!("/v1/reservations/{}/payment", held["id"].as_str().unwrap());
    let late = Act { path, caller: buyer.with("idempotency-key", "late"), body: json!({}) };
    let paid = late.send(&entrance).await.good(200).clone();
    let again = reply(request_to(&url, &entrance, &late)).await;
    assert_eq!((again.good(200), &again.headers["idempotent-replayed"]), (&paid, &"true".parse().unwrap()));
    hold(&buyer.with("idempotency-key", "refused"), 3).send(&entrance).await.is(403, "queue_token_expired");
    assert_eq!(count(&entrance, "select count(*) from idempotency_keys where key = 'refused'").await, 0);
    other.stop().await;
}

/// A hold by a cashier, a payment, a cancellation of a hold, and one of a sale, each under a key.
async fn acts(entrance: &Entrance) -> Vec<(&'static str, Act, u16)> {
    let cashier = entrance.key(Role::Cashier).await.with("idempotency-key", "hold");
    let (buyer, owner) = (entrance.admitted(1_000).await, entrance.admitted(1_000).await);
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let unwanted = entrance.reserve(&buyer, &[2]).await.good(201).clone();
    let sold = entrance.reserve(&owner, &[3]).await.good(201).clone();
    entrance.pay(&owner, &sold).await.good(201);
    let body = json!({ "performance_id": entrance.test.performance, "seats": [4], "user_id": ids::new() });
    let hold = Act { path: "/v1/reservations".to_owned(), caller: cashier, body };
    vec![
        ("hold", hold, 201),
        ("payment", Act::on(&held, "payment", &buyer), 201),
        ("cancellation of a hold", Act::on(&unwanted, "cancellation", &buyer), 200),
        ("cancellation of a sale", Act::on(&sold, "cancellation", &owner), 200),
    ]
}

/// Sends all of it to an instance that halts at these points and is killed there, and then again to one that lives.
async fn killed_at(points: &[&str], halts: usize, is_answered: bool) {
    let entrance = Entrance::with(&PATIENT).await;
    let acts = acts(&entrance).await;
    let names: Vec<String> = points.iter().map(ToString::to_string).collect();
    let flags: Vec<String> = PATIENT.iter().map(ToString::to_string).collect();
    let mut process = Process::start(&entrance.test.env, &flags, "api", &names);
    let url = process.url().await;
    let client = reqwest::Client::new();
    until(20, "the instance to be ready", || async {
        client.get(format!("{url}/readyz")).send().await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let sent = join_all(acts.iter().map(|(_, act, _)| {
        let request = request_to(&url, &entrance, act);
        async move {
            if is_answered {
                return Some(reply(request).await);
            }
            drop(tokio::spawn(request.send()));
            None
        }
    }));
    let answers = sent.await;
    for point in points {
        process.until_halted(point, halts).await;
    }
    process.kill().await;

    let changed = Act {
        path: acts[0].1.path.clone(),
        caller: acts[0].1.caller.clone(),
        body: json!({ "performance_id": entrance.test.performance, "seats": [5], "user_id": ids::new() }),
    };
    changed.send(&entrance).await.is(422, "idempotency_key_reused");
    for ((name, act, status), answer) in acts.iter().zip(&answers) {
        let again = match answer {
            Some(answer) => {
                answer.good(*status);
                let again = act.send(&entrance).await;
                assert_eq!((again.status, timeless(&again)), (*status, timeless(answer)), "{name}");
                assert_eq!(again.headers["idempotent-replayed"], "true", "{name}");
                again
            }
            None => comes_to(&entrance, name, act, *status).await,
        };
        let replayed = act.send(&entrance).await;
        assert_eq!((replayed.status, &replayed.body), (*status, &again.body), "{name}");
        assert_eq!(replayed.headers["idempotent-replayed"], "true", "{name}");
    }
    assert_eq!(count(&entrance, "select count(*) from reservations").await, 4, "each order once");
    assert_eq!(count(&entrance, "select count(*) from ledger_entries where kind = 'use'").await, 2);
    entrance.test.check_books().await;
}

/// The request sent again until it has its answer; until then it is refused for the moment.
async fn comes_to(entrance: &Entrance, name: &str, act: &Act, status: u16) -> Reply {
    let end = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        let again = act.send(entrance).await;
        if again.status == status {
            return again;
        }
        assert!(tokio::time::Instant::now() < end, "{name}: {again:#?}");
        if again.status != 202 {
            again.is(409, "request_in_progress");
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_survive_a_kill_after_each_commit() {
    tokio::join!(
        killed_at(&["start::committed", "signals::committed"], 1, false),
        killed_at(&["answers::gathered"], 1, true),
        killed_at(&["answers::written"], 1, true),
    );
}

fn key(name: &str) -> Key {
    let (caller, route) = ("user".to_owned(), "POST /v1/reservations".to_owned());
    let claim = Claim { caller, route, key: name.to_owned(), fingerprint: vec![1] };
    Key::new(Asked { claim: Arc::new(claim), fresh: ids::new() })
}

#[tokio::test]
async fn orders_with_taken_keys_start_nothing() {
    let test = TestApp::start().await;
    let order = |seat: i32, key: Option<Key>| {
        let order = test.order(ids::new(), &[seat]);
        let order = Order { id: key.as_ref().map_or(order.id, |key: &Key| key.asked.fresh), ..order };
        let booking = &test.app.booking;
        async move { (booking.reserve_under(order, key.as_ref()).await, key) }
    };
    let (first, taken) = order(1, Some(key("taken"))).await;
    assert!(first.is_ok() && taken.unwrap().is_claimed() == Some(true));
    let mut orders = vec![order(2, None), order(3, Some(key("taken")))];
    orders.extend((10..30).map(|seat| order(seat, Some(key(&format!("twice-{}", seat / 2))))));
    let mut begun = 0;
    for (at, (result, key)) in join_all(orders).await.into_iter().enumerate() {
        let is_claimed = key.as_ref().and_then(Key::is_claimed);
        match result {
            Ok(_) => assert_eq!(is_claimed, key.as_ref().map(|_| true), "{at}"),
            Err(BookingError::KeyTaken) => assert_eq!(is_claimed, Some(false), "{at}"),
            Err(error) => panic!("{at}: {error}"),
        }
        begun += usize::from(is_claimed != Some(false));
        assert!(at != 1 || is_claimed == Some(false), "it was taken before");
    }
    assert_eq!(begun, 1 + 10, "the order without a key, and one of each pair");
    let reservations: i64 =
        sqlx::query_scalar("select count(*) from reservations").fetch_one(&test.app.pool).await.unwrap();
    assert_eq!(reservations, 12);
    let lost = "select count(*) from idempotency_keys where effect_id not in (select id from reservations)";
    let lost: i64 = sqlx::query_scalar(lost).fetch_one(&test.app.pool).await.unwrap();
    assert_eq!(lost, 0, "each claim has its reservation");
}
