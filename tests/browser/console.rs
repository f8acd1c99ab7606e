//! The console of operators, in a browser.

use boxoffice::store::api_keys::Role;
use serde_json::json;

use crate::common::http::{Caller, Entrance};
use crate::operations::stuck;

/// Sagas that the batch of the script is about.
const BATCH_SAGAS: i32 = 8;

fn secret(caller: &Caller) -> &str {
    caller.header("authorization").trim_start_matches("Bearer ")
}

#[tokio::test]
async fn operator_finds_and_repairs_sagas_in_the_console() {
    let entrance = Entrance::with(&["--trace-url", "https://traces.example/trace/{trace_id}"]).await;
    let (test, pool) = (&entrance.test, &entrance.pool);
    let (operator, viewer) = (entrance.key(Role::Operator).await, entrance.key(Role::Viewer).await);
    let admin = entrance.key(Role::Admin).await;
    let lone = stuck(test, 1).await;
    sqlx::query("update sagas set reason = 'the printer burns' where id = $1")
        .bind(lone)
        .execute(pool)
        .await
        .unwrap();
    for seat in 2..2 + BATCH_SAGAS {
        stuck(test, seat).await;
    }
    let buyer = test.user(1_000).await;
    let bought = test.reserve(buyer, &[20]).await.id;
    test.pay(bought).await;
    let waiting = test.reserve(buyer, &[21]).await.id;
    let script = "<script>globalThis.hacked = true</script><img src=x onerror=\"globalThis.hacked = true\">";
    sqlx::query("update saga_history set detail = jsonb_set(detail::jsonb, '{note}', to_jsonb($2::text))::text where saga_id = $1 and event = 0")
        .bind(waiting)
        .bind(script)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("insert into saga_attributes (saga_id, name, value) values ($1, 'city', '\"Oslo\"')")
        .bind(waiting)
        .execute(pool)
        .await
        .unwrap();
    sqlx::query("insert into parked_messages (stream, subject, headers, payload, error) values ('STEPS', 'steps.seats.hold', '{}', '\\x00ff', 'it is no JSON')")
        .execute(pool)
        .await
        .unwrap();
    let input = json!({
        "url": entrance.url(), "operator": secret(&operator), "viewer": secret(&viewer), "lone": lone, "bought": bought,
        "waiting": waiting, "script": script, "concert": test.concert, "batch": BATCH_SAGAS, "admin": secret(&admin),
    });
    super::run("console.mjs", &input).await;
    let acts: Vec<(String, String)> =
        sqlx::query_as("select act, reason from operator_acts where saga_id is not null order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    let expected =
        [("retry", "printer mended")].into_iter().chain([("retry", "all mended"); BATCH_SAGAS as usize]);
    let expected: Vec<(String, String)> = expected.map(|(act, why)| (act.into(), why.into())).collect();
    assert_eq!(acts, expected);
    test.check_books().await;
}

#[tokio::test]
async fn console_has_its_headers_and_no_secret() {
    let entrance = Entrance::start().await;
    let anonymous = Caller::anonymous();
    let page = entrance.get("/console/", &anonymous).await;
    assert_eq!(page.status, 200);
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.starts_with("default-src 'self';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("content-type", "text/html; charset=utf-8"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-cache"),
    ] {
        assert_eq!(page.headers[name], value, "{name}");
    }
    let script = entrance.get("/console/main.js", &anonymous).await;
    assert_eq!(script.headers["content-type"], "text/javascript; charset=utf-8");
    let etag = script.headers["etag"].to_str().unwrap();
    assert_eq!(entrance.get("/console/main.js", &anonymous.with("if-none-match", etag)).await.status, 304);
    let list = entrance.get("/console/pages/sagas.js", &anonymous).await;
    assert_eq!(list.status, 200);
    entrance.get("/console/nothing.js", &anonymous).await.is(404, "not_found");
    entrance.get("/console/../Cargo.toml", &anonymous).await.is(404, "not_found");
    let redirected = entrance.request(reqwest::Method::GET, "/console", &anonymous).send().await.unwrap();
    assert!(redirected.url().path().ends_with("/console/"), "{}", redirected.url());
}
