//! `PATCH /v1/admin/performances/{id}`.

use boxoffice::store::api_keys::Role;
use chrono::{DateTime, TimeDelta, Utc};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::asyncapi::assert_event_fits;
use crate::common::app::until;
use crate::common::http::{Caller, Entrance, Reply};
use crate::common::program::Program;
use crate::events::published;

async fn patch(entrance: &Entrance, admin: &Caller, body: Value) -> Reply {
    let path = format!("/v1/admin/performances/{}", entrance.test.performance);
    entrance.send(Method::PATCH, &path, admin, Some(body)).await
}

fn time(at: DateTime<Utc>) -> Value {
    json!(at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

fn as_time(value: &Value) -> DateTime<Utc> {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn change_is_seen_everywhere_and_told() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let buyer = entrance.admitted(10_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let own = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    let before = entrance.get(&own, &buyer).await.good(200)["performance"].clone();
    assert_eq!(before["venue"], "The Hall");
    let (seats, dates) = (
        format!("/v1/performances/{}/seats", test.performance),
        format!("/v1/concerts/{}/performances", test.concert),
    );
    entrance.get(&seats, &buyer).await.good(200);

    let starts_at = Utc::now() + TimeDelta::days(60);
    let wanted = json!({
        "starts_at": time(starts_at), "venue": "The Arena", "duration_minutes": 90, "reason": "postponed",
        "seats": [{ "from": 1, "to": 10, "section": "Front", "price": 250 }],
    });
    let changed = patch(&entrance, &admin, wanted.clone()).await.good(200).clone();
    assert_eq!((&changed["seats_changed"], &changed["seats_kept"]), (&9.into(), &1.into()));
    assert_eq!((&changed["version"], &changed["venue"]), (&2.into(), &"The Arena".into()));

    until(2, "the reservation to show the new date", || async {
        entrance.get(&own, &buyer).await.good(200)["performance"]["venue"] == "The Arena"
    })
    .await;
    let shown = entrance.get(&own, &buyer).await.body["performance"].clone();
    assert_eq!(as_time(&shown["starts_at"]), as_time(&time(starts_at)));
    let listed = entrance.get("/v1/reservations", &buyer).await.good(200).clone();
    assert_eq!(listed["items"][0]["performance"], shown);
    until(2, "the list of dates to show the new date", || async {
        entrance.get(&dates, &buyer).await.good(200)["items"][0]["duration_minutes"] == 90
    })
    .await;
    until(2, "the map to show the new price", || async {
        entrance.get(&seats, &buyer).await.good(200)["seats"][1]["price"] == 250
    })
    .await;
    let map = entrance.get(&seats, &buyer).await.body;
    let seat =
        |at: usize| (map["seats"][at]["section"].as_str().unwrap(), map["seats"][at]["price"].as_i64());
    assert_eq!((seat(0), seat(9), seat(10)), (("A", Some(100)), ("Front", Some(250)), ("A", Some(100))));
    assert_eq!(entrance.reserve(&buyer, &[2]).await.good(201)["amount"], 250);
    assert_eq!(entrance.pay(&buyer, &held).await.good(201)["amount"], 100, "what was held keeps its price");

    let same = patch(&entrance, &admin, wanted).await.good(200).clone();
    assert_eq!(same["version"], 3, "seats that became free meanwhile may have changed");
    until(10, "the events", || async {
        published(test).await.iter().filter(|event| event.name == "performance.changed").count() == 2
    })
    .await;
    let events = published(test).await;
    let event = events.iter().find(|event| event.name == "performance.changed").unwrap();
    assert_event_fits(event);
    assert_eq!((event.subject_id, event.sequence), (test.performance, 2));
    assert_eq!(
        (&event.data["before"]["venue"], &event.data["after"]["venue"]),
        (&json!("The Hall"), &json!("The Arena"))
    );
    let acts = entrance.get("/v1/ops/acts", &admin).await.good(200)["items"].clone();
    let act = acts.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&act["act"], &act["reason"], &act["actor"]),
        (&"performance.change".into(), &"postponed".into(), &"admin".into())
    );
    assert_eq!(act["detail"]["after"]["venue"], "The Arena");
    let program = Program::of(&test.env);
    let again = program.json(0, "saga replay-events --dry-run --event performance.changed").await;
    assert_eq!(again["events"]["performance.changed"], 2, "{again}");
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_changes_of_a_version_wins() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let path = format!("/v1/admin/performances/{}", entrance.test.performance);
    let version = entrance.get(&path, &admin).await.good(200)["version"].clone();
    let changes = (0..8).map(|number| {
        let body = json!({ "venue": format!("Hall {number}"), "version": version });
        let (entrance, admin) = (&entrance, &admin);
        async move { patch(entrance, admin, body).await }
    });
    let replies = join_all(changes).await;
    let (won, lost): (Vec<&Reply>, Vec<&Reply>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!((won.len(), lost.len()), (1, 7));
    for reply in lost {
        assert_eq!(reply.is(409, "performance_changed")["version"], 2);
    }
    let shown = entrance.get(&path, &admin).await.body;
    assert_eq!((&shown["venue"], &shown["version"]), (&won[0].body["venue"], &2.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_in_memory_is_not_sold_after_an_earlier_start() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let soon = Utc::now() + TimeDelta::milliseconds(1_500);
    let body = json!({ "starts_at": time(soon), "sale_closes_at": time(soon) });
    patch(&entrance, &admin, body).await.good(200);
    until(10, "the start", || async { Utc::now() > soon }).await;
    entrance.pay(&buyer, &held).await.is(410, "hold_expired");
    assert_eq!(test.balance(buyer.id).await, 1_000);
    entrance.reserve(&buyer, &[2]).await.is(422, "sale_not_open");
    // Moved on again, it is on sale.
    let later = time(Utc::now() + TimeDelta::days(3));
    patch(&entrance, &admin, json!({ "starts_at": later, "sale_closes_at": later })).await.good(200);
    entrance.reserve(&buyer, &[2]).await.good(201);
    test.check_books().await;
}

#[tokio::test]
async fn impossible_changes_are_refused_by_field() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let refused = async |body: Value| {
        let reply = patch(&entrance, &admin, body).await;
        reply.pointers().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let past = time(Utc::now() - TimeDelta::days(1));
    assert_eq!(refused(json!({})).await, [""]);
    assert_eq!(refused(json!({ "colour": "red", "venue": "Hall" })).await, ["/colour"]);
    assert_eq!(refused(json!({ "venue": "" })).await, ["/venue"]);
    assert_eq!(refused(json!({ "duration_minutes": 1_441 })).await, ["/duration_minutes"]);
    assert_eq!(
        refused(json!({ "starts_at": past })).await,
        ["/sale_opens_at", "/sale_closes_at", "/starts_at"]
    );
    let closes = time(Utc::now() + TimeDelta::days(31));
    assert_eq!(refused(json!({ "sale_closes_at": closes })).await, ["/sale_closes_at"]);
    let seats = |from: i32, to: i32, price: i64| json!({ "seats": [{ "from": from, "to": to, "section": "A", "price": price }] });
    assert_eq!(refused(seats(1, 51, 5)).await, ["/seats"], "there are 50 seats");
    assert_eq!(refused(seats(2, 1, 5)).await, ["/seats", "/seats/0/to"]);
    assert_eq!(refused(seats(1, 2, 10_000_001)).await, ["/seats/0/price"]);
    let unknown = format!("/v1/admin/performances/{}", boxoffice::ids::new());
    let body = json!({ "venue": "Hall" });
    entrance.send(Method::PATCH, &unknown, &admin, Some(body.clone())).await.is(404, "not_found");
    let viewer = entrance.key(Role::Operator).await;
    patch(&entrance, &viewer, body.clone()).await.is(403, "forbidden");
    patch(&entrance, &Caller::anonymous(), body).await.is(401, "unauthenticated");
    let acts = entrance.get("/v1/ops/acts", &admin).await.good(200)["items"].clone();
    assert_eq!(acts, json!([]), "nothing was changed");
}
