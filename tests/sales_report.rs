//! The sales report of a date: numbers that agree with the sale, over HTTP and on the command line.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;

/// Adds a date with two sections, of 10 seats for 500 and 5 seats for 300 points.
async fn add_date(entrance: &Entrance, admin: &Caller) -> String {
    let path = format!("/v1/admin/concerts/{}/performances", entrance.test.concert);
    let date = json!({
        "venue": "=The Hall", "starts_at": "2090-01-01T19:00:00Z", "duration_minutes": 120,
        "sale_opens_at": "2020-01-01T00:00:00Z", "sale_closes_at": "2089-12-31T00:00:00Z",
        "seats": [{ "from": 1, "to": 10, "section": "Stalls", "price": 500 }, { "from": 11, "to": 15, "section": "Balcony", "price": 300 }],
    });
    entrance.post(&path, admin, date).await.good(201)["id"].as_str().unwrap().to_owned()
}

async fn hold(entrance: &Entrance, buyer: &Caller, date: &str, seats: &[i32]) -> Value {
    let order = json!({ "performance_id": date, "seats": seats });
    entrance.post("/v1/reservations", buyer, order).await.good(201).clone()
}

fn counts(row: &Value) -> [i64; 7] {
    ["sold", "held", "blocked", "free", "total", "revenue", "refunds"].map(|name| row[name].as_i64().unwrap())
}

#[tokio::test]
async fn report_agrees_with_the_sale() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let date = add_date(&entrance, &admin).await;
    let path = format!("/v1/admin/performances/{date}/report");
    let empty = entrance.get(&path, &admin).await.good(200).clone();
    assert_eq!(empty["seats"], json!({ "total": 15, "sold": 0, "held": 0, "blocked": 0, "free": 15 }));
    assert_eq!((&empty["revenue"], &empty["hours"]), (&json!(0), &json!([])));

    let (ada, ben) = (entrance.admitted(10_000).await, entrance.admitted(10_000).await);
    let both = hold(&entrance, &ada, &date, &[1, 2, 11]).await;
    entrance.pay(&ada, &both).await.good(201);
    let returned = hold(&entrance, &ben, &date, &[3, 12]).await;
    entrance.pay(&ben, &returned).await.good(201);
    entrance.cancel(&ben, &returned).await.good(200);
    // A payment ends the session of its buyer.
    let (cleo, dan) = (entrance.admitted(10_000).await, entrance.admitted(10_000).await);
    hold(&entrance, &cleo, &date, &[4]).await;
    // A hold that has run out counts as free, tidied up or not.
    let forgotten = hold(&entrance, &cleo, &date, &[5]).await;
    sqlx::query("update seats set claimable_at = now() - interval '1 second' where holder = $1::uuid")
        .bind(forgotten["id"].as_str().unwrap())
        .execute(&entrance.pool)
        .await
        .unwrap();
    // Another date of the concert does not count.
    let other = entrance.reserve(&dan, &[1]).await.good(201).clone();
    entrance.pay(&dan, &other).await.good(201);

    let report = entrance.get(&path, &admin).await.good(200).clone();
    assert_eq!(report["seats"], json!({ "total": 15, "sold": 3, "held": 1, "blocked": 0, "free": 11 }));
    assert_eq!(
        (&report["revenue"], &report["refunds"], &report["net"]),
        (&json!(2_100), &json!(800), &json!(1_300))
    );
    let sections = report["sections"].as_array().unwrap();
    let names: Vec<&str> = sections.iter().map(|row| row["section"].as_str().unwrap()).collect();
    assert_eq!(names, ["Stalls", "Balcony"], "in the order of their seats");
    assert_eq!(counts(&sections[0]), [2, 1, 0, 7, 10, 1_500, 500]);
    assert_eq!(counts(&sections[1]), [1, 0, 0, 4, 5, 600, 300]);
    let hours = report["hours"].as_array().unwrap();
    let sum = |name: &str| hours.iter().map(|hour| hour[name].as_i64().unwrap()).sum::<i64>();
    assert_eq!(["seats_sold", "seats_returned", "revenue", "refunds"].map(sum), [5, 2, 2_100, 800]);
    assert_eq!(report["hours_left_out"], false);
    assert_eq!(report["performance"]["venue"], "=The Hall");

    let program = Program::of(&entrance.test.env);
    let shown = program.json(0, &format!("concert report {date}")).await;
    for part in ["seats", "revenue", "refunds", "sections", "hours"] {
        assert_eq!(shown[part], report[part], "{part}");
    }
    let table = program.run(&format!("concert report {date}")).await.out;
    let balcony = table.lines().find(|line| line.contains("Balcony")).unwrap();
    let cells: Vec<&str> =
        balcony.split(|sign: char| !sign.is_alphanumeric()).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells, ["Balcony", "1", "0", "0", "4", "5", "600", "300", "300"]);
    let unknown = program.run(&format!("concert report {}", ids::new())).await;
    assert_eq!((unknown.code, unknown.err.contains("no such performance")), (1, true), "{}", unknown.err);
}

#[tokio::test]
async fn dates_are_listed_page_by_page() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let late = add_date(&entrance, &admin).await;
    let first = entrance.get("/v1/admin/performances?limit=1", &admin).await.good(200).clone();
    assert_eq!(first["items"][0]["id"], late.as_str());
    let next = first["next_cursor"].as_str().unwrap();
    let second = entrance
        .get(&format!("/v1/admin/performances?limit=1&cursor={next}"), &admin)
        .await
        .good(200)
        .clone();
    assert_eq!(second["items"][0]["id"], entrance.test.performance.to_string());
    assert_eq!(second["next_cursor"], Value::Null);
    let none = format!("/v1/admin/performances?concert_id={}", ids::new());
    assert_eq!(entrance.get(&none, &admin).await.good(200)["items"], json!([]));
    let own = format!("/v1/admin/performances?concert_id={}", entrance.test.concert);
    assert_eq!(entrance.get(&own, &admin).await.good(200)["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn reports_take_an_admin() {
    let entrance = Entrance::start().await;
    let report = format!("/v1/admin/performances/{}/report", entrance.test.performance);
    for path in [report.as_str(), "/v1/admin/performances"] {
        entrance.get(path, &Caller::anonymous()).await.is(401, "unauthenticated");
        entrance.get(path, &entrance.user(0).await).await.is(401, "unauthenticated");
        entrance.get(path, &entrance.client_key(&["booking"]).await).await.is(403, "forbidden");
        for role in [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate] {
            entrance.get(path, &entrance.key(role).await).await.is(403, "forbidden");
        }
        entrance.get(path, &entrance.key(Role::Admin).await).await.good(200);
    }
    let admin = entrance.key(Role::Admin).await;
    for id in [ids::new().to_string(), "nothing".to_owned()] {
        entrance.get(&format!("/v1/admin/performances/{id}/report"), &admin).await.is(404, "not_found");
    }
    assert_eq!(entrance.get("/v1/admin/performances?concert_id=x", &admin).await.pointers(), ["/concert_id"]);
}
