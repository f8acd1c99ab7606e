//! The support desk: finding reservations, their story, refunds of all or some seats, goodwill, events again.

use boxoffice::bus::events::EventMessage;
use boxoffice::store::api_keys::Role;
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::asyncapi::assert_event_fits;
use crate::common::app::{add_performance, until};
use crate::common::http::{Caller, Entrance, Reply};
use crate::events::published;

const RESERVATIONS: &str = "/v1/support/reservations";

/// A confirmed reservation of these seats, sold at the counter, and its buyer.
async fn sold(entrance: &Entrance, performance: Uuid, seats: &[i32]) -> (Caller, Value) {
    let (cashier, buyer) = (entrance.key(Role::Cashier).await, entrance.user(1_000).await);
    let order = json!({ "performance_id": performance, "seats": seats, "user_id": buyer.id, "pay": true });
    let reservation = entrance.post("/v1/reservations", &cashier, order).await.good(201).clone();
    (buyer, reservation)
}

fn id_of(reservation: &Value) -> &str {
    reservation["id"].as_str().unwrap()
}

async fn cancel(entrance: &Entrance, support: &Caller, reservation: &Value, body: Value) -> Reply {
    entrance.post(&format!("{RESERVATIONS}/{}/cancellation", id_of(reservation)), support, body).await
}

async fn story(entrance: &Entrance, support: &Caller, reservation: &Value) -> Value {
    entrance.get(&format!("{RESERVATIONS}/{}", id_of(reservation)), support).await.good(200).clone()
}

fn numbers(seats: &Value) -> Vec<i64> {
    seats.as_array().unwrap().iter().map(|line| line["number"].as_i64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reservations_are_found_by_each_condition() {
    let entrance = Entrance::start().await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let other = add_performance(&test.app, test.concert, 10, 100).await;
    let (ada, first) = sold(&entrance, test.performance, &[1, 2]).await;
    let (_, second) = sold(&entrance, test.performance, &[3]).await;
    let (_, third) = sold(&entrance, other, &[1]).await;
    cancel(&entrance, &support, &second, json!({ "reason": "asked for" })).await.good(200);
    let found = async |query: String| -> Vec<String> {
        let page = entrance.get(&format!("{RESERVATIONS}?{query}"), &support).await.good(200).clone();
        page["items"].as_array().unwrap().iter().map(|item| id_of(item).to_owned()).collect()
    };
    let of = |reservations: &[&Value]| -> Vec<String> {
        reservations.iter().map(|reservation| id_of(reservation).to_owned()).collect()
    };
    assert_eq!(found(format!("user_id={}", ada.id)).await, of(&[&first]));
    assert_eq!(found(format!("performance_id={}", test.performance)).await, of(&[&second, &first]));
    assert_eq!(found(format!("performance_id={}&status=cancelled", test.performance)).await, of(&[&second]));
    assert_eq!(found(format!("performance_id={other}")).await, of(&[&third]));
    assert_eq!(found(format!("user_id={}&performance_id={other}", ada.id)).await, of(&[]));
    for ticket in first["tickets"].as_array().unwrap() {
        assert_eq!(found(format!("ticket_id={}", ticket["id"].as_str().unwrap())).await, of(&[&first]));
        assert_eq!(found(format!("code={}", ticket["code"].as_str().unwrap())).await, of(&[&first]));
    }
    assert_eq!(found("code=nonsense".to_owned()).await, of(&[]));
    let page =
        entrance.get(&format!("{RESERVATIONS}?performance_id={}&limit=1", test.performance), &support).await;
    let page = page.good(200);
    assert_eq!(id_of(&page["items"][0]), id_of(&second));
    let cursor = page["next_cursor"].as_str().unwrap();
    let next = format!("performance_id={}&limit=1&cursor={cursor}", test.performance);
    assert_eq!(found(next).await, of(&[&first]));
    let shown = entrance.get(&format!("{RESERVATIONS}?user_id={}", ada.id), &support).await.body.to_string();
    let code = first["tickets"][0]["code"].as_str().unwrap();
    assert!(!shown.contains(code), "staff do not see the codes");
    for (query, pointer) in [
        ("", ""),
        ("status=confirmed", ""),
        ("ticket_id=00000000-0000-7000-8000-000000000001&colour=red", "/colour"),
        ("user_id=1", "/user_id"),
    ] {
        let reply = entrance.get(&format!("{RESERVATIONS}?{query}"), &support).await;
        assert_eq!(reply.pointers(), [pointer], "{query}");
    }
}

/// The refund of seats lies between the confirmation and the cancellation of the rest.
fn check_order(events: &[EventMessage], reservation: &str) {
    let mut own: Vec<&EventMessage> =
        events.iter().filter(|event| event.subject_id.to_string() == reservation).collect();
    own.iter().for_each(|event| assert_event_fits(event));
    own.sort_by_key(|event| event.sequence);
    let names: Vec<&str> = own.iter().map(|event| event.name.as_str()).collect();
    let of_seats = names.iter().position(|name| *name == "reservation.seats_cancelled").unwrap();
    assert!(names[..of_seats].contains(&"reservation.confirmed"), "{names:?}");
    assert_eq!(names.last(), Some(&"reservation.cancelled"), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn some_seats_are_refunded_once_each() {
    let entrance = Entrance::start().await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let (buyer, reservation) = sold(&entrance, test.performance, &[1, 2, 3]).await;
    assert_eq!(test.balance(buyer.id).await, 700);
    let body = json!({ "reason": "a broken seat", "seats": [2] });
    let all = join_all((0..8).map(|_| cancel(&entrance, &support, &reservation, body.clone()))).await;
    for reply in &all {
        let body = reply.good(200);
        assert_eq!(
            (numbers(&body["seats"]), &body["amount"], &body["status"]),
            (vec![1, 3], &200.into(), &"confirmed".into())
        );
        assert_eq!(
            (&body["seat_refunds"][0]["seat"], &body["seat_refunds"][0]["amount"]),
            (&2.into(), &100.into())
        );
    }
    assert_eq!(test.balance(buyer.id).await, 800, "refunded once");
    let own = format!("/v1/reservations/{}", id_of(&reservation));
    let shown = entrance.get(&own, &buyer).await.good(200).clone();
    assert_eq!((numbers(&shown["seats"]), &shown["payment"]["refunded"]), (vec![1, 3], &100.into()));
    let states: Vec<&str> = shown["tickets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|ticket| ticket["status"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["valid", "void", "valid"]);
    // The seat is free, and sold again.
    sold(&entrance, test.performance, &[2]).await;
    test.check_books().await;

    // More seats, one of which is refunded already.
    cancel(&entrance, &support, &reservation, json!({ "reason": "another", "seats": [2, 3] }))
        .await
        .good(200);
    assert_eq!(test.balance(buyer.id).await, 900);
    let told = story(&entrance, &support, &reservation).await;
    let acts: Vec<&Value> = told["acts"].as_array().unwrap().iter().map(|act| &act["act"]).collect();
    assert_eq!(acts, [&json!("support.refund_seats"), &json!("support.refund_seats")]);
    assert_eq!(
        (&told["acts"][1]["reason"], &told["acts"][1]["actor"]),
        (&"a broken seat".into(), &"support".into())
    );
    assert_eq!(told["seat_refunds"].as_array().unwrap().len(), 2);
    let kinds: Vec<&str> =
        told["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["use", "refund", "refund"]);

    // The buyer takes the rest back: only what is left of the payment comes.
    entrance.cancel(&buyer, &reservation).await.good(200);
    assert_eq!(test.balance(buyer.id).await, 1_000);
    let told = story(&entrance, &support, &reservation).await;
    assert_eq!(
        (&told["reservation"]["status"], &told["reservation"]["payment"]["status"]),
        (&"cancelled".into(), &"refunded".into())
    );
    assert_eq!(told["sagas"].as_array().unwrap().len(), 2);
    assert!(told["sagas"][0]["history"].as_array().unwrap().len() > 3, "{told}");
    cancel(&entrance, &support, &reservation, json!({ "reason": "late", "seats": [1] }))
        .await
        .is(409, "reservation_not_cancellable");
    until(10, "the events", || async {
        published(test).await.iter().filter(|event| event.name == "reservation.seats_cancelled").count() == 2
    })
    .await;
    check_order(&published(test).await, id_of(&reservation));
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_seats_that_are_left_are_the_whole_reservation() {
    let entrance = Entrance::start().await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let (buyer, again) = sold(&entrance, test.performance, &[1, 2]).await;
    cancel(&entrance, &support, &again, json!({ "reason": "one", "seats": [1] })).await.good(200);
    cancel(&entrance, &support, &again, json!({ "reason": "all of it", "seats": [2] })).await.good(200);
    assert_eq!(story(&entrance, &support, &again).await["reservation"]["status"], "cancelled");
    assert_eq!(test.balance(buyer.id).await, 1_000);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_of_seats_and_of_all_race_without_loss() {
    let entrance = Entrance::start().await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let mut sales = Vec::new();
    for at in 0..6 {
        let first = 1 + at * 4;
        sales.push((
            first,
            sold(&entrance, test.performance, &[first, first + 1, first + 2, first + 3]).await,
        ));
    }
    let (entrance, support) = (&entrance, &support);
    let races = sales.iter().map(|(first, (buyer, reservation))| async move {
        let seats =
            |seats: Value| cancel(entrance, support, reservation, json!({ "reason": "x", "seats": seats }));
        let (one, two, all) = tokio::join!(
            seats(json!([first, first + 1])),
            seats(json!([first + 1, first + 2])),
            entrance.cancel(buyer, reservation),
        );
        for reply in [&one, &two] {
            assert!([200, 409].contains(&reply.status), "{reply:?}");
        }
        assert!([200, 202].contains(&all.status), "{all:?}");
    });
    join_all(races).await;
    test.check_books().await;
    for (_, (buyer, _)) in &sales {
        assert_eq!(test.balance(buyer.id).await, 1_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_and_started_dates_are_cancelled_by_support() {
    let entrance = Entrance::start().await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let holder = entrance.admitted(1_000).await;
    let held = entrance.reserve(&holder, &[9]).await.good(201).clone();
    let refused = cancel(&entrance, &support, &held, json!({ "reason": "x", "seats": [9] })).await;
    assert_eq!(refused.is(409, "reservation_not_cancellable")["reservation_status"], "held");
    cancel(&entrance, &support, &held, json!({ "reason": "he called" })).await.good(200);
    let told = story(&entrance, &support, &held).await;
    assert_eq!(
        (&told["reservation"]["status"], &told["acts"][0]["reason"]),
        (&"cancelled".into(), &"he called".into())
    );
    let (buyer, reservation) = sold(&entrance, test.performance, &[1, 2]).await;
    sqlx::query("update performances set starts_at = clock_timestamp() where id = $1")
        .bind(test.performance)
        .execute(&entrance.pool)
        .await
        .unwrap();
    entrance.cancel(&buyer, &reservation).await.is(409, "reservation_not_cancellable");
    cancel(&entrance, &support, &reservation, json!({ "reason": "ill", "seats": [1] })).await.good(200);
    let body = json!({ "reason": "no view" });
    let all = join_all((0..4).map(|_| cancel(&entrance, &support, &reservation, body.clone()))).await;
    all.iter().for_each(|reply| assert!([200, 202].contains(&reply.status), "{reply:?}"));
    until(20, "the refund", || async { test.balance(buyer.id).await == 1_000 }).await;
    let told = story(&entrance, &support, &reservation).await;
    assert_eq!(told["acts"][0]["act"], "support.cancel");
    assert_eq!(told["acts"].as_array().unwrap().len(), 2, "{told}");
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goodwill_is_bound_per_key_and_given_once() {
    let entrance = Entrance::with(&["--goodwill-per-day", "500"]).await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let user = entrance.user(0).await;
    let path = format!("/v1/support/users/{}/points", user.id);
    let give = async |key: &Caller, name: &str, amount: i64| {
        let body = json!({ "amount": amount, "reason": "the queue was slow" });
        entrance.post(&path, &key.with("idempotency-key", name), body).await
    };
    let first = give(&support, "one", 300).await.good(201).clone();
    assert_eq!((&first["amount"], &first["balance"]), (&300.into(), &300.into()));
    assert_eq!(give(&support, "one", 300).await.good(201), &first);
    let refused = give(&support, "two", 201).await;
    let body = refused.is(422, "goodwill_limit");
    assert_eq!((&body["limit"], &body["left"]), (&500.into(), &200.into()));
    let many = join_all((0..6).map(|at| {
        let (give, support) = (&give, &support);
        async move { give(support, &format!("n{at}"), 100).await.status }
    }))
    .await;
    assert_eq!(many.iter().filter(|status| **status == 201).count(), 2, "{many:?}");
    let other = entrance.key(Role::Support).await;
    give(&other, "three", 500).await.good(201);
    assert_eq!(test.balance(user.id).await, 1_000);
    let entries = entrance.get("/v1/points/entries", &user).await.good(200)["items"].clone();
    assert!(entries.as_array().unwrap().iter().all(|entry| entry["kind"] == "goodwill"), "{entries}");
    let unkeyed = entrance.post(&path, &support, json!({ "amount": 1, "reason": "x" })).await;
    unkeyed.is(422, "idempotency_key_required");
    for (amount, reason, pointer) in [(0, "x", "/amount"), (10_000_001, "x", "/amount"), (1, "", "/reason")] {
        let key = support.with("idempotency-key", "bad");
        let reply = entrance.post(&path, &key, json!({ "amount": amount, "reason": reason })).await;
        assert_eq!(reply.pointers(), [pointer]);
    }
    until(10, "the events", || async {
        published(test).await.iter().filter(|event| event.data["kind"] == "goodwill").count() == 4
    })
    .await;
    published(test).await.iter().for_each(assert_event_fits);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_sent_again_with_their_ids() {
    let entrance = Entrance::start().await;
    let (test, support) = (&entrance.test, entrance.key(Role::Support).await);
    let (_, reservation) = sold(&entrance, test.performance, &[1, 2]).await;
    cancel(&entrance, &support, &reservation, json!({ "reason": "x", "seats": [1] })).await.good(200);
    let own = async || {
        let mut events = published(test).await;
        events.retain(|event| event.subject_id.to_string() == id_of(&reservation));
        events.iter().map(|event| event.id.clone()).collect::<Vec<_>>()
    };
    until(10, "all events", || async { own().await.len() == 5 }).await;
    let mut before = own().await;
    let path = format!("{RESERVATIONS}/{}/events", id_of(&reservation));
    let sent =
        entrance.post(&path, &support, json!({ "reason": "the mailer lost them" })).await.good(200).clone();
    assert_eq!(sent["events"], 5);
    let mut after = own().await.split_off(5);
    before.sort();
    after.sort();
    assert_eq!(after, before);
}

#[tokio::test]
async fn only_support_keys_use_the_desk() {
    let entrance = Entrance::start().await;
    let id = boxoffice::ids::new();
    let routes = [
        (Method::GET, format!("{RESERVATIONS}?user_id={id}")),
        (Method::GET, format!("{RESERVATIONS}/{id}")),
        (Method::POST, format!("{RESERVATIONS}/{id}/cancellation")),
        (Method::POST, format!("{RESERVATIONS}/{id}/events")),
        (Method::POST, format!("/v1/support/users/{id}/points")),
    ];
    let user = entrance.user(0).await;
    for (method, path) in &routes {
        let body = (*method == Method::POST).then(|| json!({ "reason": "x", "amount": 1 }));
        let send = async |caller: &Caller| entrance.send(method.clone(), path, caller, body.clone()).await;
        send(&user).await.is(401, "unauthenticated");
        for role in [Role::Viewer, Role::Operator, Role::Admin, Role::Cashier, Role::Gate] {
            send(&entrance.key(role).await).await.is(403, "forbidden");
        }
        let reply = send(&entrance.key(Role::Support).await).await;
        assert!(![401, 403].contains(&reply.status), "{method} {path}: {reply:?}");
    }
    let support = entrance.key(Role::Support).await;
    entrance.get(&format!("{RESERVATIONS}/{id}"), &support).await.is(404, "not_found");
    let body = json!({ "reason": "x" });
    for act in ["cancellation", "events"] {
        entrance
            .post(&format!("{RESERVATIONS}/{id}/{act}"), &support, body.clone())
            .await
            .is(404, "not_found");
    }
    let (_, reservation) = sold(&entrance, entrance.test.performance, &[1, 2]).await;
    for (body, pointer) in [
        (json!({ "reason": "" }), "/reason"),
        (json!({ "reason": "x", "seats": [] }), "/seats"),
        (json!({ "reason": "x", "seats": [1, 7] }), "/seats"),
        (json!({ "reason": "x", "colour": 1 }), "/colour"),
    ] {
        assert_eq!(cancel(&entrance, &support, &reservation, body).await.pointers(), [pointer]);
    }
    entrance.test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redeemed_seats_are_refunded_with_their_scans() {
    let entrance = Entrance::start().await;
    let (test, support, gate) =
        (&entrance.test, entrance.key(Role::Support).await, entrance.key(Role::Gate).await);
    let (buyer, reservation) = sold(&entrance, test.performance, &[1, 2]).await;
    sqlx::query("update performances set starts_at = clock_timestamp() + interval '1 hour' where id = $1")
        .bind(test.performance)
        .execute(&entrance.pool)
        .await
        .unwrap();
    for ticket in reservation["tickets"].as_array().unwrap() {
        let scan = json!({ "code": ticket["code"], "gate": "north" });
        entrance.post("/v1/tickets/redemptions", &gate, scan).await.good(201);
    }
    entrance.cancel(&buyer, &reservation).await.is(409, "reservation_not_cancellable");
    cancel(&entrance, &support, &reservation, json!({ "reason": "no seat there", "seats": [1] }))
        .await
        .good(200);
    test.check_books().await;
    cancel(&entrance, &support, &reservation, json!({ "reason": "the hall is full" })).await;
    until(20, "the refund", || async { test.balance(buyer.id).await == 1_000 }).await;
    test.check_books().await;
    let undone = "select count(*) from redemptions where status = 'undone' and undone_by = 'support'";
    assert_eq!(sqlx::query_scalar::<_, i64>(undone).fetch_one(&entrance.pool).await.unwrap(), 2);
}
