//! `POST /v1/admin/performances/{id}/cancellation`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use boxoffice::store::api_keys::Role;
use boxoffice::store::reservations::ReservationStatus;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{cancel, entries, until_ended};
use crate::asyncapi::assert_event_fits;
use crate::common::app::{add_performance, until};
use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;
use crate::events::published;

fn path(entrance: &Entrance) -> String {
    format!("/v1/admin/performances/{}/cancellation", entrance.test.performance)
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_date_ends_holds_and_refunds_all() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let (holder, payer) = (entrance.admitted(1_000).await, entrance.admitted(1_000).await);
    let held = entrance.reserve(&holder, &[1]).await.good(201).clone();
    let (one, two) =
        (entrance.reserve(&payer, &[2, 3]).await.body, entrance.reserve(&payer, &[4]).await.body);
    entrance.pay(&payer, &one).await.good(201);
    entrance.pay(&payer, &two).await.good(201);

    let dry = json!({ "reason": "ill", "dry_run": true });
    let looked = entrance.post(&path(&entrance), &admin, dry).await.good(200).clone();
    let found =
        ["held", "confirmed", "seats", "points_to_refund"].map(|field| looked[field].as_i64().unwrap());
    assert_eq!(found, [1, 2, 4, 300]);
    entrance.get(&path(&entrance), &admin).await.is(404, "not_found");
    assert_eq!(
        test.find(one["id"].as_str().unwrap().parse().unwrap()).await.status,
        ReservationStatus::Confirmed
    );

    let job = cancel(&entrance, &admin, test.performance, 1_000).await;
    assert_eq!(cancel(&entrance, &admin, test.performance, 5).await, job, "again it is the same job");
    let ended = until_ended(&entrance, &admin, &job).await;
    assert_eq!(
        (&ended["status"], &ended["total"], &ended["done"], &ended["failed"]),
        (&"completed".into(), &3.into(), &3.into(), &0.into()),
        "{ended}"
    );
    for (caller, reservation) in [(&holder, &held), (&payer, &one), (&payer, &two)] {
        let own = format!("/v1/reservations/{}", reservation["id"].as_str().unwrap());
        let shown = entrance.get(&own, caller).await.good(200).clone();
        assert_eq!(
            (&shown["status"], &shown["reason"]),
            (&"cancelled".into(), &"performance_cancelled".into()),
            "{shown}"
        );
        assert!(shown["performance"]["cancelled_at"].is_string(), "{shown}");
        entrance.cancel(caller, reservation).await.good(200);
    }
    assert_eq!(test.balance(payer.id).await, 1_000);
    assert_eq!(
        (entries(&entrance, payer.id, "use").await, entries(&entrance, payer.id, "refund").await),
        (2, 2)
    );
    entrance.pay(&holder, &held).await.is(409, "reservation_not_payable");
    let refused = entrance.reserve(&holder, &[9]).await;
    assert!(refused.is(422, "sale_not_open")["cancelled_at"].is_string(), "{refused:?}");
    let dates = format!("/v1/concerts/{}/performances", test.concert);
    until(5, "the date to leave the list", || async {
        entrance.get(&dates, &holder).await.good(200)["items"] == json!([])
    })
    .await;
    let change = json!({ "venue": "Elsewhere" });
    let change_path = format!("/v1/admin/performances/{}", test.performance);
    let refused = entrance.send(reqwest::Method::PATCH, &change_path, &admin, Some(change)).await;
    refused.is(409, "performance_cancelled");
    until(10, "the event", || async {
        published(test).await.iter().any(|event| event.name == "performance.cancelled")
    })
    .await;
    let events = published(test).await;
    let told: Vec<_> = events.iter().filter(|event| event.name == "performance.cancelled").collect();
    assert_eq!(told.len(), 1);
    assert_event_fits(told[0]);
    assert_eq!(
        (&told[0].data["reason"], &told[0].data["confirmed"]),
        (&json!("the singer is ill"), &json!(2))
    );
    test.check_books().await;
}

/// Holds that the cancelled date has ended do not count against their buyers.
#[tokio::test(flavor = "multi_thread")]
async fn ended_holds_do_not_limit_their_buyers() {
    let entrance = Entrance::with(&["--max-expired-holds", "1"]).await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let other = add_performance(&test.app, test.concert, 10, 100).await;
    let buyer = entrance.admitted(1_000).await;
    entrance.reserve(&buyer, &[1]).await.good(201);
    let job = cancel(&entrance, &admin, test.performance, 1_000).await;
    until_ended(&entrance, &admin, &job).await;
    let order = json!({ "performance_id": other, "seats": [1] });
    entrance.post("/v1/reservations", &buyer, order).await.good(201);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn date_cancelled_amid_its_sale_keeps_nothing() {
    let entrance = Arc::new(Entrance::start().await);
    let (admin, pool) = (entrance.key(Role::Admin).await, entrance.pool.clone());
    let (performance, concert) = (entrance.test.performance, entrance.test.concert);
    let other = add_performance(&entrance.test.app, concert, 50, 100).await;
    let cashier = entrance.key(Role::Cashier).await;
    let users: Vec<_> = join_all((0..50).map(|_| entrance.user(1_000))).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let buyers = users.iter().enumerate().map(|(at, user)| {
        let (entrance, cashier, is_over) = (Arc::clone(&entrance), cashier.clone(), Arc::clone(&is_over));
        let user = user.id;
        tokio::spawn(async move {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                // Some pay at once, some hold, some give back what they paid.
                let date = if number % 5 == 4 { other } else { performance };
                let (seat, pays) = ((at * 7 + number) % 50 + 1, number % 3 != 2);
                let order = json!({ "performance_id": date, "seats": [seat], "user_id": user, "pay": pays });
                let reply = entrance.post("/v1/reservations", &cashier, order).await;
                assert!([201, 202, 402, 409, 410, 422, 429, 503].contains(&reply.status), "{reply:?}");
                number += 1;
            }
        })
    });
    let buyers: Vec<_> = buyers.collect();
    let count = async |sql: &'static str| -> i64 {
        sqlx::query_scalar(sql).bind(performance).fetch_one(&pool).await.unwrap()
    };
    let confirmed = "select count(*) from reservations where performance_id = $1 and status = 'confirmed'";
    until(60, "a few to have paid", || async { count(confirmed).await >= 8 }).await;
    let job = cancel(&entrance, &admin, performance, 1_000).await;
    // No ticket is issued from the answer on.
    let issued = "select count(*) from tickets where performance_id = $1";
    let at_once = count(issued).await;
    let ended = until_ended(&entrance, &admin, &job).await;
    assert_eq!((&ended["status"], &ended["failed"]), (&"completed".into(), &0.into()), "{ended}");
    assert_eq!(ended["done"], ended["total"], "{ended}");
    is_over.store(true, Ordering::Relaxed);
    join_all(buyers).await.into_iter().for_each(|ended| ended.unwrap());
    assert_eq!(count(issued).await, at_once);
    assert_eq!(count(confirmed).await, 0);
    assert_eq!(count("select count(*) from seats where performance_id = $1 and status <> 'free'").await, 0);
    let paid = "select count(*) from ledger_entries e join reservations r on r.id = e.reservation_id
                where r.performance_id = $1 and e.kind = 'use'";
    let refunded = "select count(*) from ledger_entries e join reservations r on r.id = e.reservation_id
                    where r.performance_id = $1 and e.kind = 'refund'";
    entrance.test.check_books().await;
    assert_eq!(count(paid).await, count(refunded).await);
    assert!(count(paid).await >= 8);
}

/// A payment whose points are taken when the date is cancelled gets no tickets.
#[tokio::test(flavor = "multi_thread")]
async fn payment_under_way_is_given_back() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let buyer = entrance.admitted(1_000).await;
    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let program = Program::of(&test.env);
    program.json(0, "saga pause --step tickets.issue --reason slow").await;
    entrance.pay(&buyer, &held).await.good(202);
    until(20, "the points to be taken", || async { test.balance(buyer.id).await == 900 }).await;
    let job = cancel(&entrance, &admin, test.performance, 1_000).await;
    program.json(0, "saga resume --step tickets.issue --reason quick").await;
    let ended = until_ended(&entrance, &admin, &job).await;
    assert_eq!((&ended["status"], &ended["done"]), (&"completed".into(), &1.into()), "{ended}");
    let own = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    let shown = entrance.get(&own, &buyer).await.good(200).clone();
    assert_eq!((&shown["status"], &shown["reason"]), (&"failed".into(), &"performance_cancelled".into()));
    let refused = entrance.pay(&buyer, &held).await;
    assert!(refused.is(409, "reservation_not_payable")["detail"].as_str().unwrap().contains("was cancelled"));
    assert_eq!(test.balance(buyer.id).await, 1_000);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_stop_and_go_on_and_name_what_fails() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let cashier = entrance.key(Role::Cashier).await;
    let mut sold = Vec::new();
    for seat in 1..=8 {
        let user = test.user(100).await;
        let order =
            json!({ "performance_id": test.performance, "seats": [seat], "user_id": user, "pay": true });
        sold.push((user, entrance.post("/v1/reservations", &cashier, order).await.good(201).clone()));
    }
    let job = cancel(&entrance, &admin, test.performance, 1).await;
    let refunds = "select count(*) from ledger_entries where kind = 'refund'";
    let count = async || -> i64 { sqlx::query_scalar(refunds).fetch_one(&entrance.pool).await.unwrap() };
    until(30, "the first refund", || async { count().await > 0 }).await;
    let act = async |name: &str| {
        let path = format!("/v1/ops/batches/{job}/{name}");
        entrance.post(&path, &admin, json!({ "reason": "lunch" })).await.good(200).clone()
    };
    act("stop").await;
    let stopped = until_ended(&entrance, &admin, &job).await;
    assert_eq!(stopped["status"], "stopped", "{stopped}");
    assert!(count().await < 8);
    // A refund that its buyer begins meanwhile is none of the job's work.
    let (user, last) = sold.last().unwrap();
    let token = crate::common::http::access_token(&json!({ "sub": user }));
    entrance.cancel(&Caller::new(*user, &token), last).await.good(200);
    // Another one cannot be ended by its saga.
    let stuck = sold[6].1["id"].as_str().unwrap();
    let broken = "update sagas set status = saga_status('stuck'), finished_at = null, stuck_since = now(), due_at = null,
                      reason = 'broken on purpose' where id = $1::text::uuid";
    sqlx::query(broken).bind(stuck).execute(&entrance.pool).await.unwrap();
    assert_eq!(act("resume").await["status"], "running");
    let ended = until_ended(&entrance, &admin, &job).await;
    assert_eq!(
        (&ended["status"], &ended["done"], &ended["failed"], &ended["more"]),
        (&"completed".into(), &7.into(), &1.into(), &true.into()),
        "{ended}"
    );
    let shown = entrance.get(&path(&entrance), &admin).await.good(200).clone();
    assert_eq!(
        (&shown["id"], &shown["failed_reservations"][0]["reservation_id"]),
        (&job.clone().into(), &stuck.into()),
        "{shown}"
    );
    // Mended, the job goes on with it.
    let mended = "update sagas set status = saga_status('completed'), finished_at = now(), stuck_since = null, reason = null
                  where id = $1::text::uuid";
    sqlx::query(mended).bind(stuck).execute(&entrance.pool).await.unwrap();
    act("resume").await;
    let ended = until_ended(&entrance, &admin, &job).await;
    assert_eq!((&ended["done"], &ended["failed"]), (&8.into(), &0.into()), "{ended}");
    for (user, _) in &sold {
        assert_eq!((test.balance(*user).await, entries(&entrance, *user, "refund").await), (100, 1));
    }
    test.check_books().await;
}

#[tokio::test]
async fn bad_orders_and_other_roles_cancel_nothing() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let refused = async |body: Value| {
        let reply = entrance.post(&path(&entrance), &admin, body).await;
        reply.pointers().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(refused(json!({})).await, [""]);
    assert_eq!(refused(json!({ "reason": "" })).await, ["/reason"]);
    assert_eq!(refused(json!({ "reason": "x", "rate_per_second": 0 })).await, ["/rate_per_second"]);
    assert_eq!(refused(json!({ "reason": "x", "rate_per_second": 1_001 })).await, ["/rate_per_second"]);
    let order = json!({ "reason": "x" });
    let unknown = format!("/v1/admin/performances/{}/cancellation", boxoffice::ids::new());
    entrance.post(&unknown, &admin, order.clone()).await.is(404, "not_found");
    entrance.post(&path(&entrance), &Caller::anonymous(), order.clone()).await.is(401, "unauthenticated");
    for role in [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate] {
        let key = entrance.key(role).await;
        entrance.post(&path(&entrance), &key, order.clone()).await.is(403, "forbidden");
        entrance.get(&path(&entrance), &key).await.is(403, "forbidden");
    }
    let buyer = entrance.admitted(0).await;
    entrance.reserve(&buyer, &[1]).await.good(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_changes_and_cancels_dates() {
    let entrance = Entrance::start().await;
    let (test, admin) = (&entrance.test, entrance.key(Role::Admin).await);
    let buyer = entrance.admitted(1_000).await;
    let sold = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    entrance.pay(&buyer, &sold).await.good(201);
    let (program, date) = (Program::of(&test.env), test.performance);
    let change = format!("concert change-date {date} --venue Arena --seats 1-3:Front:250 --reason moved");
    let changed = program.json(0, &change).await;
    assert_eq!((&changed["venue"], &changed["seats_changed"]), (&json!("Arena"), &json!(2)));
    for (wrong, told) in [
        (format!("concert change-date {date} --venue Hall --version 1 --reason x"), "at version 2"),
        (format!("concert change-date {date} --seats 50-51:A:1 --reason x"), "only 1 of the 2 seats"),
        (
            format!("concert change-date {date} --starts-at 2020-01-01T00:00:00Z --reason x"),
            "starts_at must be in the future",
        ),
    ] {
        let ran = program.run(&wrong).await;
        assert!(ran.code != 0 && ran.err.contains(told), "{wrong}: {}", ran.err);
    }
    let looked = program.json(0, &format!("concert cancel-date {date} --reason ill --dry-run")).await;
    assert_eq!((&looked["confirmed"], &looked["points_to_refund"]), (&json!(1), &json!(100)));
    let job = program.json(0, &format!("concert cancel-date {date} --reason ill")).await;
    // A process with the role scheduler takes it up.
    let ended = until_ended(&entrance, &admin, job["id"].as_str().unwrap()).await;
    assert_eq!((&ended["status"], &ended["done"]), (&"completed".into(), &1.into()), "{ended}");
    assert_eq!(test.balance(buyer.id).await, 1_000);
    test.check_books().await;
}
