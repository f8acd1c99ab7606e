//! Seats that the service chooses: the best that are free, together or not, and never refused while there are some.

use std::collections::BTreeSet;

use boxoffice::booking::{Answer, Order};
use boxoffice::store;
use boxoffice::store::api_keys::Role;
use boxoffice::store::reservations::{BestSeats, Reservation, ReservationStatus};
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::app::{TestApp, add_performance};
use crate::common::http::{Caller, Entrance, Reply};

async fn best(entrance: &Entrance, caller: &Caller, best: Value) -> Reply {
    let body = json!({ "performance_id": entrance.test.performance, "best": best });
    entrance.post("/v1/reservations", caller, body).await
}

fn numbers(reservation: &Value) -> Vec<i64> {
    let seats = reservation["seats"].as_array().unwrap();
    seats.iter().map(|seat| seat["number"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn best_seats_are_held_paid_and_refunded() {
    let entrance = Entrance::start().await;
    let (first, second) = (entrance.admitted(1_000).await, entrance.admitted(0).await);
    entrance.reserve(&second, &[2]).await.good(201);
    let held = best(&entrance, &first, json!({ "count": 2 })).await.good(201).clone();
    assert_eq!((numbers(&held), &held["amount"]), (vec![3, 4], &json!(200)));
    assert_eq!(held["seats"][0], json!({ "number": 3, "section": "A", "price": 100 }));
    let apart = json!({ "count": 2, "together": false });
    assert_eq!(numbers(best(&entrance, &second, apart).await.good(201)), [1, 5]);

    let paid = entrance.pay(&first, &held).await.good(201).clone();
    let tickets: Vec<&Value> =
        paid["tickets"].as_array().unwrap().iter().map(|ticket| &ticket["seat"]).collect();
    assert_eq!(tickets, [3, 4]);
    entrance.cancel(&first, &held).await.good(200);
    assert_eq!(entrance.test.balance(first.id).await, 1_000);
    entrance.test.check_books().await;
    // The seats are free again, and are the best ones.
    let again = best(&entrance, &entrance.admitted(0).await, json!({ "count": 2 })).await;
    assert_eq!(numbers(again.good(201)), [3, 4]);
}

#[tokio::test]
async fn paid_at_once_and_repeated_by_key() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let keyed = buyer.with("idempotency-key", "two-of-the-best");
    let order = json!({ "performance_id": entrance.test.performance, "best": { "count": 2 }, "pay": true });
    let sold = entrance.post("/v1/reservations", &keyed, order.clone()).await.good(201).clone();
    assert_eq!((&sold["status"], numbers(&sold)), (&json!("confirmed"), vec![1, 2]));
    let again = entrance.post("/v1/reservations", &keyed, order).await;
    assert_eq!(again.good(201)["id"], sold["id"]);
    // Without a key it is another wish, also where the same was held before.
    let other = entrance.admitted(0).await;
    for expected in [[3, 4], [5, 6]] {
        assert_eq!(numbers(best(&entrance, &other, json!({ "count": 2 })).await.good(201)), expected);
    }
    entrance.test.check_books().await;
}

#[tokio::test]
async fn what_is_not_there_is_refused_with_what_is() {
    let entrance = Entrance::start().await;
    let (buyer, other) = (entrance.admitted(0).await, entrance.admitted(0).await);
    let small = add_performance(&entrance.test.app, entrance.test.concert, 5, 100).await;
    let order = |best: Value| json!({ "performance_id": small, "best": best });
    let ask =
        async |caller: &Caller, best: Value| entrance.post("/v1/reservations", caller, order(best)).await;
    let named = json!({ "performance_id": small, "seats": [3] });
    entrance.post("/v1/reservations", &other, named).await.good(201);
    let refused = ask(&buyer, json!({ "count": 3 })).await;
    assert_eq!(refused.is(409, "no_seats_together")["largest_group"], 2);
    assert!(refused.body["detail"].as_str().unwrap().contains("for 2 would succeed"), "{refused:?}");
    let apart = ask(&buyer, json!({ "count": 5, "together": false })).await;
    assert_eq!(apart.is(409, "no_seats_together")["largest_group"], 4);
    ask(&buyer, json!({ "count": 4, "together": false })).await.good(201);
    assert_eq!(ask(&other, json!({ "count": 1 })).await.is(409, "no_seats_together")["largest_group"], 0);

    let nowhere = best(&entrance, &buyer, json!({ "count": 1, "section": "Z" })).await;
    assert_eq!(nowhere.is(422, "seat_unknown")["section"], "Z");
    assert_eq!(best(&entrance, &buyer, json!({ "count": 7 })).await.is(422, "too_many_seats")["limit"], 6);
    for _ in 0..2 {
        best(&entrance, &buyer, json!({ "count": 6 })).await.good(201);
    }
    best(&entrance, &buyer, json!({ "count": 1 })).await.is(422, "too_many_seats");
    for (bad, pointer) in [
        (json!({ "count": 0 }), "/best/count"),
        (json!({ "count": 1, "section": "" }), "/best/section"),
        (json!({ "count": 1, "row": "A" }), "/best/row"),
        (json!({}), "/best"),
    ] {
        assert_eq!(best(&entrance, &buyer, bad).await.pointers(), [pointer]);
    }
    let both = json!({ "performance_id": small, "seats": [1], "best": { "count": 1 } });
    assert_eq!(entrance.post("/v1/reservations", &buyer, both).await.pointers(), ["/best"]);
    entrance.test.check_books().await;
}

/// A date with a plan: the front row is the best one, its ends are accessible.
fn planned() -> Value {
    let now = Utc::now();
    let (opens, closes) = (now - TimeDelta::hours(1), now + TimeDelta::days(20));
    json!({
        "venue": "Planned Hall", "starts_at": now + TimeDelta::days(30), "duration_minutes": 90,
        "sale_opens_at": opens, "sale_closes_at": closes,
        "seats": [
            { "from": 101, "to": 104, "section": "Back", "price": 10, "row": "B", "y": 1, "rank": 5 },
            { "from": 1, "to": 1, "section": "Front", "price": 20, "row": "A", "x": 0, "rank": 1, "accessible": true },
            { "from": 2, "to": 2, "section": "Front", "price": 20, "row": "A", "x": 1, "rank": 1, "companion": true },
            { "from": 3, "to": 5, "section": "Front", "price": 20, "row": "A", "x": 2, "first_label": 30, "rank": 1 },
        ],
    })
}

#[tokio::test]
async fn plan_defines_order_rows_and_access() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let path = format!("/v1/admin/concerts/{}/performances", entrance.test.concert);
    let date = entrance.post(&path, &admin, planned()).await.good(201)["id"].clone();
    let ask = async |best: Value| {
        let buyer = entrance.admitted(0).await;
        entrance.post("/v1/reservations", &buyer, json!({ "performance_id": date, "best": best })).await
    };
    assert_eq!(numbers(ask(json!({ "count": 2 })).await.good(201)), [3, 4], "front, not accessible");
    assert_eq!(
        numbers(ask(json!({ "count": 2 })).await.good(201)),
        [101, 102],
        "5 has no ordinary neighbour"
    );
    let wheelchair = json!({ "count": 2, "accessible": true });
    assert_eq!(numbers(ask(wheelchair.clone()).await.good(201)), [1, 2]);
    assert_eq!(ask(wheelchair).await.is(409, "no_seats_together")["largest_group"], 0);
    let front = json!({ "count": 2, "section": "Front" });
    assert_eq!(ask(front).await.is(409, "no_seats_together")["largest_group"], 1);

    let buyer = entrance.admitted(0).await;
    let path = format!("/v1/performances/{}/seats", date.as_str().unwrap());
    let map = entrance.get(&path, &buyer).await.good(200)["seats"].clone();
    let front = json!({ "number": 1, "section": "Front", "price": 20, "row": "A", "x": 0, "accessible": true,
                        "status": "held" });
    assert_eq!(map[0], front);
    assert_eq!((&map[3]["label"], &map[3]["x"]), (&json!("31"), &json!(3)));
    entrance.test.check_books().await;
}

/// An order at once of one of two processes: some seats by their numbers, or the best ones.
fn order(test: &TestApp, user: Uuid, number: i32) -> Order {
    let wish = |count, together| BestSeats { count, section: None, together, accessible: false };
    let named = test.order(user, &[1 + number * 7 % 50, 1 + (number * 7 + 1) % 50]);
    match number % 5 {
        0 => named,
        1 => Order { seats: Vec::new(), best: Some(wish(3, true)), ..named },
        2 => Order { seats: Vec::new(), best: Some(wish(4, false)), ..named },
        other => Order { seats: Vec::new(), best: Some(wish(other - 2, true)), ..named },
    }
}

/// The largest group of the free seats.
fn largest_group(free: &BTreeSet<i32>) -> i32 {
    let length =
        |from: &i32| (0..).take_while(|more| free.contains(&(from + more))).last().map_or(0, |more| more + 1);
    free.iter().map(length).max().unwrap_or(0)
}

/// Seats only get taken here, so what fits in the end fitted at each moment before: it must not have been refused.
fn check_answers(orders: &[Order], answers: &[Reservation]) {
    let (mut free, mut refused): (BTreeSet<i32>, Vec<(&BestSeats, &Reservation)>) =
        ((1..=50).collect(), Vec::new());
    for (order, answer) in orders.iter().zip(answers) {
        match (&order.best, answer.status) {
            (best, ReservationStatus::Held) => {
                let seats = &answer.seats;
                assert!(seats.iter().all(|seat| free.remove(seat)), "a seat is sold twice: {answer:#?}");
                let Some(best) = best else {
                    assert_eq!(seats, &order.seats);
                    continue;
                };
                assert_eq!(seats.len() as i32, best.count, "{answer:#?}");
                let is_group = seats.windows(2).all(|two| two[0] + 1 == two[1]);
                assert!(is_group || !best.together, "{answer:#?}");
            }
            (Some(best), ReservationStatus::Failed) => refused.push((best, answer)),
            (None, ReservationStatus::Failed) => assert_eq!(answer.reason.as_deref(), Some("seat_taken")),
            _ => panic!("neither held nor refused: {answer:#?}"),
        }
    }
    for (best, answer) in refused {
        assert_eq!(answer.reason.as_deref(), Some("no_seats_together"), "{answer:#?}");
        let left = if best.together { largest_group(&free) } else { free.len() as i32 };
        let said = answer.detail.as_ref().unwrap()["largest_group"].as_i64().unwrap();
        assert!(
            left < best.count && i64::from(left) <= said && said < i64::from(best.count),
            "{answer:#?}\n{free:?}"
        );
    }
}

/// What an answer has become, however busy the machine is.
async fn decided(test: &TestApp, answer: Answer) -> Reservation {
    let (Answer::Settled(seen) | Answer::Pending(seen)) = answer;
    test.until(60, "an order to be decided", || async {
        test.find(seen.id).await.status != ReservationStatus::Pending
    })
    .await;
    test.find(seen.id).await
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_two_processes_fit_a_model() {
    let test = TestApp::with(&["--max-seats-per-user", "100"]).await;
    let other = test.another(&["--max-seats-per-user", "100"]).await;
    let users = join_all((0..60).map(|_| test.user(0))).await;
    let orders: Vec<Order> =
        users.iter().zip(0..).map(|(user, number)| order(&test, *user, number)).collect();
    let asked = orders.iter().enumerate().map(async |(at, order)| {
        let booking = if at % 2 == 0 { &test.app.booking } else { &other.booking };
        decided(&test, booking.reserve(order.clone()).await.unwrap()).await
    });
    let answers = join_all(asked).await;
    check_answers(&orders, &answers);
    test.check_books().await;
    let held = answers.iter().filter(|answer| answer.status == ReservationStatus::Held).count();
    assert!((10..=50).contains(&held), "{held} of 60 are held");
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chosen_seats_survive_their_expiry_and_a_repeat() {
    let test = TestApp::with(&["--hold-seconds", "1", "--payment-grace-seconds", "1"]).await;
    let user = test.user(0).await;
    let named = test.order(user, &[]);
    let wish = BestSeats { count: 2, section: None, together: true, accessible: false };
    let ordered = test.app.booking.reserve(Order { best: Some(wish.clone()), ..named }).await.unwrap();
    let held = decided(&test, ordered).await;
    assert_eq!(held.seats, [1, 2]);
    let saga = store::sagas::get(&test.app.pool, held.id).await.unwrap().unwrap();
    let input = store::reservations::BookingInput::of(&saga).unwrap();
    assert_eq!((input.seats, input.best), (vec![1, 2], Some(wish)), "the saga knows the seats");
    test.until(20, "the hold to run out", || async {
        test.find(held.id).await.status == ReservationStatus::Expired
    })
    .await;
    let next = test.app.booking.reserve(test.order(test.user(0).await, &[1, 2])).await.unwrap();
    assert!(decided(&test, next).await.expires_at.is_some(), "the release has freed the chosen seats");
    test.check_books().await;
}
