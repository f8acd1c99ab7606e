//! What is sold: adding it, and reading it.

use boxoffice::store::api_keys::Role;
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};

use super::common::app::{add_concert, add_performance_at, until};
use super::common::http::{Caller, Entrance};

fn date(seats: &Value) -> Value {
    let now = Utc::now();
    json!({
        "venue": "The Hall", "starts_at": now + TimeDelta::days(30), "duration_minutes": 120,
        "sale_opens_at": now - TimeDelta::hours(1), "sale_closes_at": now + TimeDelta::days(20), "seats": seats,
    })
}

#[tokio::test]
async fn added_concert_can_be_bought() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await.with("idempotency-key", "one");
    let wanted = json!({ "name": "An Evening", "description": "Songs", "queue": { "max_active": 5 } });
    let concert = entrance.post("/v1/admin/concerts", &admin, wanted.clone()).await.good(201).clone();
    let again = entrance.post("/v1/admin/concerts", &admin, wanted).await;
    assert_eq!(again.good(201), &concert);
    assert_eq!(concert["queue"], json!({ "max_active": 5, "admit_per_minute": 6_000 }));
    let id = concert["id"].as_str().unwrap();

    let path = format!("/v1/admin/concerts/{id}/performances");
    let seats = json!([{ "from": 1, "to": 50, "section": "A", "price": 120 }, { "from": 51, "to": 60, "section": "B", "price": 0 }]);
    let added = entrance.post(&path, &admin, date(&seats)).await.good(201).clone();
    assert_eq!((&added["seats_total"], &added["concert_id"]), (&60.into(), &concert["id"]));
    let unknown = format!("/v1/admin/concerts/{}/performances", boxoffice::ids::new());
    entrance.post(&unknown, &admin, date(&seats)).await.is(404, "not_found");
    let overlapping = json!([{ "from": 1, "to": 5, "section": "A", "price": 1 }, { "from": 5, "to": 6, "section": "A", "price": 1 }]);
    assert_eq!(entrance.post(&path, &admin, date(&overlapping)).await.pointers(), ["/seats/1"]);

    let buyer = entrance.admitted_to(id.parse().unwrap(), 500).await;
    let dates = entrance.get(&format!("/v1/concerts/{id}/performances"), &buyer).await.good(200).clone();
    let open = &dates["items"][0];
    assert_eq!(
        (&open["id"], &open["seats_free"], &open["seats_total"]),
        (&added["id"], &60.into(), &60.into())
    );
    let order = json!({ "performance_id": added["id"], "seats": [50, 51] });
    assert_eq!(entrance.post("/v1/reservations", &buyer, order).await.good(201)["amount"], 120);
}

#[tokio::test]
async fn concerts_are_listed_by_name() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    for name in ["Zither", "Aulos", "Mandola", "Aulos"] {
        let wanted = json!({ "name": name, "description": "" });
        entrance.post("/v1/admin/concerts", &admin, wanted).await.good(201);
    }
    let (mut names, mut path) = (Vec::new(), "/v1/concerts?limit=2".to_owned());
    loop {
        let page = entrance.get(&path, &Caller::anonymous()).await.good(200).clone();
        names.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/v1/concerts?limit=2&cursor={cursor}");
    }
    let sold = format!("Concert {}", entrance.test.concert);
    assert_eq!(names, ["Aulos", "Aulos", sold.as_str(), "Mandola", "Zither"]);
    let all = entrance.get("/v1/concerts", &Caller::anonymous()).await.good(200).clone();
    let on_sale: Vec<&Value> = all["items"].as_array().unwrap().iter().map(|item| &item["on_sale"]).collect();
    assert_eq!(on_sale, [false, false, true, false, false]);
    let entries = entrance.get("/v1/points/entries?limit=1", &entrance.user(1).await).await.body;
    assert!(entries["next_cursor"].is_null());
    let nul = entrance
        .get(
            "/v1/concerts?cursor=WyJcdTAwMDAiLCIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDAiXQ",
            &Caller::anonymous(),
        )
        .await;
    assert_eq!(nul.pointers(), ["/cursor"]);
}

#[tokio::test]
async fn listed_dates_are_on_sale_and_have_seats() {
    let entrance = Entrance::start().await;
    let app = &entrance.test.app;
    let now = Utc::now();
    let (soon, later, past) = (now + TimeDelta::days(2), now + TimeDelta::days(9), now - TimeDelta::hours(1));
    let concert = add_concert(app).await;
    let second = add_performance_at(app, concert, 5, 0, later, past).await;
    let first = add_performance_at(app, concert, 1, 0, soon, past).await;
    add_performance_at(app, concert, 5, 0, later, now + TimeDelta::hours(1)).await;
    let buyer = entrance.admitted_to(concert, 0).await;
    let path = format!("/v1/concerts/{concert}/performances");
    let listed = async || {
        let body = entrance.get(&path, &buyer).await.good(200).clone();
        body["items"].as_array().unwrap().iter().map(|date| date["id"].clone()).collect::<Vec<Value>>()
    };
    assert_eq!(listed().await, [json!(first), json!(second)]);
    let page = entrance.get(&format!("{path}?limit=1"), &buyer).await.good(200).clone();
    assert_eq!(page["items"][0]["id"], json!(first));
    let next = format!("{path}?limit=1&cursor={}", page["next_cursor"].as_str().unwrap());
    assert_eq!(entrance.get(&next, &buyer).await.good(200)["items"][0]["id"], json!(second));

    let order = json!({ "performance_id": first, "seats": [1] });
    entrance.post("/v1/reservations", &buyer, order).await.good(201);
    until(2, "the full date to leave the list", || async { listed().await == [json!(second)] }).await;
}

#[tokio::test]
async fn seat_map_is_at_most_a_second_old() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let path = format!("/v1/performances/{}/seats", entrance.test.performance);
    let first = entrance.get(&path, &buyer).await;
    let seats = first.good(200)["seats"].as_array().unwrap();
    assert_eq!(seats.len(), 50);
    assert_eq!(seats[0], json!({ "number": 1, "section": "A", "price": 100, "status": "free" }));
    let etag = first.headers["etag"].to_str().unwrap().to_owned();
    let known = buyer.with("if-none-match", &etag);
    assert_eq!(entrance.get(&path, &known).await.status, 304);

    let held = entrance.reserve(&buyer, &[1]).await.good(201).clone();
    let status = async |wanted: &str| {
        let body = entrance.get(&path, &buyer).await.good(200).clone();
        body["seats"][0]["status"] == wanted
    };
    until(1, "the seat to be shown as held", || async { status("held").await }).await;
    let changed = entrance.get(&path, &known).await;
    assert_ne!(changed.good(200)["seats"], first.body["seats"]);
    assert_ne!(changed.headers["etag"].to_str().unwrap(), etag);
    entrance.cancel(&buyer, &held).await.good(200);
    until(1, "the seat to be shown as free", || async { status("free").await }).await;

    let held = entrance.reserve(&buyer, &[2]).await.good(201).clone();
    until(2, "the seat to leave the free ones", || async {
        let free = entrance.get(&format!("{path}?status=free"), &buyer).await.good(200).clone();
        free["seats"].as_array().unwrap().len() == 49
    })
    .await;
    assert_eq!(held["status"], "held");
    assert_eq!(entrance.get(&format!("{path}?status=gone"), &buyer).await.pointers(), ["/status"]);
}

#[tokio::test]
async fn lists_have_etags_that_change_with_content() {
    let entrance = Entrance::start().await;
    let (admin, buyer) = (entrance.key(Role::Admin).await, entrance.admitted(1_000).await);
    let dates = format!("/v1/concerts/{}/performances", entrance.test.concert);
    for (path, caller) in [("/v1/concerts", &Caller::anonymous()), (dates.as_str(), &buyer)] {
        let first = entrance.get(path, caller).await;
        first.good(200);
        let known = caller.with("if-none-match", first.headers["etag"].to_str().unwrap());
        let again = entrance.get(path, &known).await;
        assert_eq!((again.status, &again.headers["etag"]), (304, &first.headers["etag"]));
        let wanted = json!({ "name": "Another", "description": "" });
        entrance.post("/v1/admin/concerts", &admin, wanted).await.good(201);
        let more = date(&json!([{ "from": 1, "to": 2, "section": "A", "price": 1 }]));
        entrance.post(&dates.replace("/v1", "/v1/admin"), &admin, more).await.good(201);
        let changed = entrance.get(path, &known).await;
        assert_ne!(changed.good(200), &first.body);
        assert_ne!(changed.headers["etag"], first.headers["etag"]);
    }
}

#[tokio::test]
async fn the_service_describes_itself() {
    let entrance = Entrance::start().await;
    let anonymous = Caller::anonymous();
    let api = entrance.get("/openapi.json", &anonymous).await.good(200).clone();
    assert!(
        api["paths"]["/v1/reservations"]["post"]["responses"]["409"]["description"]
            .as_str()
            .is_some_and(|text| text.contains("seat_taken"))
    );
    let page = entrance.get("/docs/", &anonymous).await;
    assert!(page.good(200).as_str().unwrap().contains("swagger"));
    entrance.get("/livez", &anonymous).await.good(200);
    entrance.get("/readyz", &anonymous).await.good(200);
    assert_eq!(entrance.get("/metrics", &anonymous).await.status, 200);
    let traced = anonymous
        .with("x-request-id", "mine")
        .with("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    assert_eq!(entrance.get("/livez", &traced).await.headers["x-request-id"], "mine");
}
