//! Access codes: before the sale of a date opens, its seats are held for buyers who have a code.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::app::until;
use crate::common::http::{Caller, Entrance, Reply};

/// An entrance to a concert with a date whose presale has begun, and its sale has not.
struct Presale {
    entrance: Entrance,
    admin: Caller,
    date: String,
}

impl Presale {
    async fn with(flags: &[&str]) -> Self {
        let entrance = Entrance::with(flags).await;
        let admin = entrance.key(Role::Admin).await;
        let now = Utc::now();
        let body = json!({
            "venue": "Presale Hall", "starts_at": now + TimeDelta::days(30), "duration_minutes": 90,
            "presale_opens_at": now - TimeDelta::hours(1), "sale_opens_at": now + TimeDelta::days(1),
            "sale_closes_at": now + TimeDelta::days(20),
            "seats": [{ "from": 1, "to": 50, "section": "A", "price": 10 }],
        });
        let path = format!("/v1/admin/concerts/{}/performances", entrance.test.concert);
        let added = entrance.post(&path, &admin, body).await.good(201).clone();
        assert!(added["presale_opens_at"].is_string(), "{added}");
        Self { date: added["id"].as_str().unwrap().to_owned(), entrance, admin }
    }

    fn codes(&self) -> String {
        format!("/v1/admin/concerts/{}/access-codes", self.entrance.test.concert)
    }

    async fn make(&self, body: Value) -> Vec<(String, String)> {
        let made = self.entrance.post(&self.codes(), &self.admin, body).await.good(201).clone();
        let text = |code: &Value, field: &str| code[field].as_str().unwrap().to_owned();
        let codes = made["codes"].as_array().unwrap().iter();
        codes.map(|code| (text(code, "id"), text(code, "code"))).collect()
    }

    async fn order(&self, buyer: &Caller, seats: &[i64], code: &str) -> Reply {
        let body = json!({ "performance_id": self.date, "seats": seats, "access_code": code });
        self.entrance.post("/v1/reservations", buyer, body).await
    }

    async fn uses(&self) -> (Value, Value) {
        let listed = self.entrance.get(&self.codes(), &self.admin).await.good(200)["items"][0].clone();
        (listed["uses"].clone(), listed["seats"].clone())
    }
}

#[tokio::test]
async fn presale_takes_a_code() {
    let presale = Presale::with(&[]).await;
    let entrance = &presale.entrance;
    let (buyer, other) = (entrance.admitted(1_000).await, entrance.admitted(0).await);
    let codes = presale.make(json!({ "count": 2, "max_seats": 4 })).await;
    let (id, code) = &codes[0];
    let bare = json!({ "performance_id": presale.date, "seats": [1] });
    entrance.post("/v1/reservations", &buyer, bare).await.is(422, "sale_not_open");
    presale.order(&buyer, &[1], "0000-0000-0000-0000").await.is(422, "access_code_invalid");
    let typed = code.to_lowercase().replace('-', " ");
    let held = presale.order(&buyer, &[1, 2], &typed).await.good(201).clone();
    let used = presale.order(&other, &[3], code).await;
    assert_eq!(used.is(409, "access_code_used_up")["uses_left"], 0);
    entrance.pay(&buyer, &held).await.good(201);
    let best = json!({ "performance_id": presale.date, "best": { "count": 2 }, "access_code": codes[1].1 });
    let chosen = entrance.post("/v1/reservations", &other, best).await.good(201).clone();
    assert_eq!(chosen["seats"][0]["number"], 3);
    let dates = format!("/v1/concerts/{}/performances", entrance.test.concert);
    let listed = entrance.get(&dates, &other).await.good(200)["items"].clone();
    assert!(listed.as_array().unwrap().iter().any(|date| date["id"] == presale.date.as_str()), "{listed}");

    let path = format!("{}/{id}", presale.codes());
    for _ in 0..2 {
        assert_eq!(entrance.send(Method::DELETE, &path, &presale.admin, None).await.status, 204);
    }
    presale.order(&other, &[5], code).await.is(422, "access_code_invalid");
    let kept = entrance.get(&presale.codes(), &presale.admin).await.good(200)["items"].clone();
    let revoked = kept.as_array().unwrap().iter().find(|one| one["id"] == id.as_str()).unwrap();
    assert!(revoked["revoked_at"].is_string() && code.ends_with(revoked["ending"].as_str().unwrap()));
    assert!(!kept.to_string().contains(code.as_str()), "a code is shown once");
    entrance.test.check_books().await;
}

#[tokio::test]
async fn code_is_bound_to_its_date_and_seats() {
    let presale = Presale::with(&[]).await;
    let entrance = &presale.entrance;
    let buyer = entrance.admitted(0).await;
    let elsewhere = json!({ "count": 1, "max_seats": 5, "performance_id": entrance.test.performance });
    let other_date = presale.make(elsewhere).await.remove(0).1;
    presale.order(&buyer, &[1], &other_date).await.is(422, "sale_not_open");
    let code = presale.make(json!({ "count": 1, "max_uses": 3, "max_seats": 3 })).await.remove(0).1;
    presale.order(&buyer, &[1, 2], &code).await.good(201);
    let more = presale.order(&buyer, &[3, 4], &code).await;
    assert_eq!(more.is(409, "access_code_used_up")["seats_left"], 1);
    presale.order(&buyer, &[3], &code).await.good(201);
    assert_eq!(presale.uses().await, (json!(2), json!(3)));
    // Where all may buy, a code is not looked at.
    let open =
        json!({ "performance_id": entrance.test.performance, "seats": [1], "access_code": "anything" });
    entrance.post("/v1/reservations", &buyer, open).await.good(201);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn use_comes_back_when_the_hold_ends_unpaid() {
    let presale = Presale::with(&["--hold-seconds", "1", "--payment-grace-seconds", "1"]).await;
    let buyer = presale.entrance.admitted(0).await;
    let code = presale.make(json!({ "count": 1, "max_seats": 2 })).await.remove(0).1;
    presale.order(&buyer, &[1, 2], &code).await.good(201);
    until(20, "the use to come back", || async { presale.uses().await == (json!(0), json!(0)) }).await;
    presale.order(&buyer, &[3, 4], &code).await.good(201);
    presale.entrance.test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_uses_are_counted_exactly() {
    let presale = Presale::with(&[]).await;
    let other = presale.entrance.test.another(&[]).await;
    let buyers = join_all((0..20).map(|_| presale.entrance.admitted(0))).await;
    let code = presale.make(json!({ "count": 1, "max_uses": 5, "max_seats": 100 })).await.remove(0).1;
    let asked = buyers.iter().zip(1i64..).map(async |(buyer, seat)| {
        let reply = presale.order(buyer, &[seat], &code).await;
        (reply.status, reply.body["code"].clone())
    });
    let answers = join_all(asked).await;
    let pending = answers.iter().any(|(status, _)| *status == 202);
    let held = answers.iter().filter(|(status, _)| *status == 201).count();
    let refused = answers.iter().filter(|(_, code)| code == "access_code_used_up").count();
    assert!(pending || (held, refused) == (5, 15), "{answers:?}");
    until(20, "all uses to be counted", || async { presale.uses().await == (json!(5), json!(5)) }).await;
    presale.entrance.test.check_books().await;
    other.stop().await;
}

#[tokio::test]
async fn codes_are_for_admins_checked_and_not_guessed() {
    let presale = Presale::with(&[]).await;
    let entrance = &presale.entrance;
    let (path, body) = (presale.codes(), json!({ "count": 1, "max_seats": 1 }));
    for role in [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate] {
        let key = entrance.key(role).await;
        entrance.post(&path, &key, body.clone()).await.is(403, "forbidden");
        entrance.get(&path, &key).await.is(403, "forbidden");
        let one = format!("{path}/{}", ids::new());
        entrance.send(Method::DELETE, &one, &key, None).await.is(403, "forbidden");
    }
    for (bad, pointer) in [
        (json!({ "count": 0, "max_seats": 1 }), "/count"),
        (json!({ "count": 1, "max_seats": 0 }), "/max_seats"),
        (json!({ "count": 1, "max_seats": 1, "max_uses": 100_001 }), "/max_uses"),
        (json!({ "count": 1, "max_seats": 1, "performance_id": ids::new() }), "/performance_id"),
    ] {
        assert_eq!(entrance.post(&path, &presale.admin, bad).await.pointers(), [pointer]);
    }
    let unknown = format!("/v1/admin/concerts/{}/access-codes", ids::new());
    entrance.post(&unknown, &presale.admin, body).await.is(404, "not_found");
    let gone = format!("{path}/{}", ids::new());
    entrance.send(Method::DELETE, &gone, &presale.admin, None).await.is(404, "not_found");

    let guesser = entrance.admitted(0).await;
    let mut last = presale.order(&guesser, &[1], "guess").await;
    for _ in 0..40 {
        last = presale.order(&guesser, &[1], "guess").await;
        if last.status == 429 {
            break;
        }
        last.is(422, "access_code_invalid");
    }
    assert_eq!(last.is(429, "rate_limited")["limit"], 20);
    assert!(last.headers.contains_key("retry-after"));
}
