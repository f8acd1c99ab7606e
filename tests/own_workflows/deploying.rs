//! Deploying definitions by REST and on the command line: what is refused and why, what is listed, and who may do it.

use boxoffice::store::api_keys::Role;
use boxoffice::store::definitions;
use serde_json::{Value, json};

use super::{TRIP, start};
use crate::common::app::until;
use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;

/// The hotel has no undo, and the flight may be refused.
const LEAK: &str = "name = 'leak'\nversion = 1\n[[steps]]\nname = 'hotel'\ncommand = 'travel.book_hotel'\n\
    [[steps]]\nname = 'flight'\ncommand = 'travel.book_flight'\nundo = 'travel.cancel_flight'\n";

fn definition(text: &str) -> Value {
    json!({ "definition": text })
}

#[tokio::test]
async fn definition_is_checked_deployed_listed_and_retired() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let made = entrance.post("/v1/workflows", &admin, definition(TRIP)).await.good(201).clone();
    assert_eq!(
        (&made["name"], &made["version"], &made["verdict"]),
        (&json!("trip"), &json!(1), &json!("good"))
    );
    let viewer = entrance.key(Role::Viewer).await;
    let shown = entrance.get("/v1/workflows/trip", &viewer).await.good(200).clone();
    assert_eq!((&shown["definition"], &shown["deployed_by"]), (&json!(TRIP), &json!("admin")));
    assert!(
        shown["deployed_at"].is_string() && shown["check"]["walks"][0]["states"].as_u64() > Some(10),
        "{shown}"
    );
    let names = async |caller: &Caller| {
        let items = entrance.get("/v1/workflows", caller).await.good(200)["items"].clone();
        items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&viewer).await, ["trip", "cancellation", "booking"]);
    let client = entrance.client_key(&["trip"]).await;
    assert_eq!(names(&client).await, ["trip"]);
    entrance.get("/v1/workflows/booking", &client).await.is(404, "not_found");
    entrance.get("/v1/workflows/trip?version=2", &client).await.is(404, "not_found");

    let changed = TRIP.replace("600", "700");
    entrance.post("/v1/workflows", &admin, definition(&changed)).await.is(409, "version_exists");
    let second = changed.replace("version = 1", "version = 2");
    entrance.post("/v1/workflows", &admin, definition(&second)).await.good(201);
    assert_eq!(entrance.get("/v1/workflows/trip", &viewer).await.body["version"], 2);
    let retire = async |version: i32| {
        let body = json!({ "version": version, "reason": "a test" });
        entrance.post("/v1/workflows/trip/retire", &admin, body).await
    };
    assert!(retire(2).await.good(200)["retired_at"].is_string());
    assert_eq!(
        entrance.get("/v1/workflows/trip", &viewer).await.body["version"],
        1,
        "what new sagas begin with"
    );
    retire(1).await.good(200);
    let began = entrance.post("/v1/workflows/trip/sagas", &client, start(&json!({ "city": "Oslo" }))).await;
    began.is(409, "workflow_retired");
    retire(3).await.is(404, "not_found");
    let body = json!({ "version": 1, "reason": "a test" });
    entrance.post("/v1/workflows/booking/retire", &admin, body).await.is(409, "illegal_act");
}

#[tokio::test]
async fn leak_is_refused_with_the_shortest_counter_example() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let refused = entrance.post("/v1/workflows", &admin, definition(LEAK)).await;
    let example = refused.is(422, "unsafe_definition")["counter_example"].clone();
    assert_eq!(example["problem"], "the saga has ended, but the effect of hotel is left behind");
    let way = example["way"].as_array().unwrap();
    assert!((1..=4).contains(&way.len()), "{example}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("leak.toml");
    std::fs::write(&file, LEAK).unwrap();
    let program = Program::of(&entrance.test.env);
    let words = format!("workflow deploy {}", file.display());
    let by_hand = program.json(1, &words).await;
    assert_eq!((&by_hand["code"], &by_hand["counter_example"]), (&json!("unsafe_definition"), &example));
    let told = program.run(&words).await;
    assert!(
        told.code == 1 && told.out.contains("is left behind") && told.out.contains(" 1. "),
        "{}",
        told.out
    );
    assert!(program.json(0, "workflow list leak").await["items"].as_array().unwrap().is_empty());

    let risky = json!({ "definition": LEAK, "accept_risk": "hotels refund by phone" });
    assert_eq!(entrance.post("/v1/workflows", &admin, risky).await.good(201)["verdict"], "broken");
    let shown = program.json(0, "workflow show leak").await;
    assert_eq!(
        (&shown["accepted_risk"], &shown["deployed_by"]),
        (&json!("hotels refund by phone"), &json!("admin"))
    );
}

#[tokio::test]
async fn each_malformed_definition_has_its_line_and_reason() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let steps = |count: usize| {
        (0..count).map(|n| format!("[[steps]]\nname='s{n}'\ncommand='x.y'\n")).collect::<String>()
    };
    let step = |body: &str| format!("name='t'\nversion=1\n[[steps]]\nname='a'\n{body}");
    let cases: [(String, Option<u64>, &str); 11] = [
        ("not toml".to_owned(), Some(1), ""),
        ("name='t'\nversion=1\nsteps=[]".to_owned(), Some(3), "no steps"),
        (step("command='x.y'\nundo='z.y'"), Some(6), "one service must serve both"),
        (step("command='x.y'\ncolour=1"), Some(6), "colour"),
        (step("command='x.y'").replace("'t'", "'Trip'"), Some(1), "63"),
        (format!("name='t'\nversion=1\n{}", steps(65)), Some(196), "64 is the most"),
        (format!("{}\n#{}", step("command='x.y'"), "x".repeat(65_536)), None, "64 KiB"),
        (step("command='points.deduct'"), Some(5), "points.deduct"),
        (step("command='x.y'\nemits=['reservation.paid']"), Some(6), "reservation.paid"),
        (step("command='x.y'\n[input_schema]\ntype='nonsense'"), Some(6), "input_schema"),
        (String::new(), Some(1), "name"),
    ];
    for (text, line, reason) in cases {
        let refused = entrance.post("/v1/workflows", &admin, definition(&text)).await;
        let body = refused.is(422, "invalid_definition");
        assert_eq!(body["line"].as_u64(), line, "{body}");
        assert!(body["reason"].as_str().unwrap().contains(reason), "{body}");
    }
    let bad_reason = json!({ "definition": TRIP, "accept_risk": " " });
    entrance.post("/v1/workflows", &admin, bad_reason).await.is(422, "invalid_request");
    entrance.post("/v1/workflows", &admin, json!({ "toml": TRIP })).await.is(422, "invalid_request");
    for role in [Role::Viewer, Role::Operator, Role::Cashier] {
        let caller = entrance.key(role).await;
        entrance.post("/v1/workflows", &caller, definition(TRIP)).await.is(403, "forbidden");
    }
    let client = entrance.client_key(&["trip"]).await;
    entrance.post("/v1/workflows", &client, definition(TRIP)).await.is(403, "forbidden");
    entrance.get("/v1/ops/sagas", &client).await.is(403, "forbidden");
    entrance.get("/v1/workflows", &entrance.key(Role::Cashier).await).await.is(403, "forbidden");
}

/// A check that does not end in time is refused, with the way to deploy all the same.
#[tokio::test]
async fn unfinished_check_is_refused() {
    let entrance = Entrance::with(&["--workflow-check-seconds", "1"]).await;
    let admin = entrance.key(Role::Admin).await;
    let steps = (0..64).map(|n| format!("[[steps]]\nname='s{n}'\ncommand='x.y{n}'\nundo='x.z{n}'\n"));
    let long = format!("name='long'\nversion=1\n{}", steps.collect::<String>());
    let refused = entrance.post("/v1/workflows", &admin, definition(&long)).await;
    let body = refused.is(422, "check_unfinished");
    assert!(body["detail"].as_str().unwrap().contains("workflow check FILE"), "{body}");
    let risky = json!({ "definition": long, "accept_risk": "checked on another machine" });
    assert_eq!(entrance.post("/v1/workflows", &admin, risky).await.good(201)["verdict"], "unfinished");
}

#[tokio::test]
async fn start_waits_for_a_retirement_and_is_refused() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    entrance.post("/v1/workflows", &admin, definition(TRIP)).await.good(201);
    let mut retiring = entrance.pool.begin().await.unwrap();
    assert!(definitions::retire(&mut *retiring, "trip", 1, "a test").await.unwrap());
    let begin = entrance.post("/v1/workflows/trip/sagas", &admin, start(&json!({ "city": "Oslo" })));
    let (began, ()) = tokio::join!(begin, async {
        let waits = async || {
            let sql = "select count(*) from pg_stat_activity
                       where datname = current_database() and wait_event_type = 'Lock'";
            sqlx::query_scalar::<_, i64>(sql).fetch_one(&entrance.pool).await.unwrap() == 1
        };
        until(10, "a start that waits", waits).await;
        retiring.commit().await.unwrap();
    });
    began.is(409, "workflow_retired");
    let sql = "select count(*) from saga_view where workflow = 'trip'";
    assert_eq!(sqlx::query_scalar::<_, i64>(sql).fetch_one(&entrance.pool).await.unwrap(), 0);
}
