//! Two listeners of one process: routes of buyers on one, those of operators and monitoring on the other.

use boxoffice::app::{App, Role};
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::Env;
use crate::common::app::{QUEUE_SECRET, TICKET_SECRET, add_concert, settings, start, until};
use crate::common::http::{Caller, SECRET, reply};
use crate::common::program::Program;

const PICKED: [&str; 2] = ["--admin-listen", "127.0.0.1:0"];

fn client() -> reqwest::Client {
    // Another test of this process may have installed it before.
    let _installed = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

async fn status(method: Method, url: &str) -> u16 {
    reply(client().request(method, url)).await.status
}

async fn paths(url: &str) -> Vec<String> {
    let api = reply(client().get(format!("{url}/openapi.json"))).await.body;
    api["paths"].as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn each_listener_serves_its_own_routes() {
    let env = Env::start().await;
    let app = start(&env, &PICKED, &Role::ALL).await;
    let [public, admin] =
        [app.address, app.admin_address].map(|address| format!("http://{}", address.unwrap()));
    assert_ne!(public, admin);
    let room = app.room.clone().unwrap();
    until(20, "the line to be known", || async { room.ready() }).await;
    for path in ["/livez", "/readyz", "/openapi.json"] {
        for listener in [&public, &admin] {
            assert_eq!(status(Method::GET, &format!("{listener}{path}")).await, 200, "{listener}{path}");
        }
    }
    // Without credentials a route that is there answers 401.
    for (method, path, on_public, on_admin) in [
        (Method::GET, "/v1/concerts", 200, 404),
        (Method::GET, "/v1/points", 401, 404),
        (Method::GET, "/metrics", 404, 200),
        (Method::GET, "/v1/ops/sagas", 404, 401),
        (Method::GET, "/v1/ops/queues", 404, 401),
        (Method::POST, "/v1/admin/concerts", 404, 401),
        (Method::PUT, "/v1/admin/concerts", 404, 405),
    ] {
        assert_eq!(status(method.clone(), &format!("{public}{path}")).await, on_public, "{method} {path}");
        assert_eq!(status(method.clone(), &format!("{admin}{path}")).await, on_admin, "{method} {path}");
    }
    let (of_public, of_admin) = (paths(&public).await, paths(&admin).await);
    let is_staff = |path: &&String| path.starts_with("/v1/ops") || path.starts_with("/v1/admin");
    assert_eq!(of_public.iter().find(is_staff), None);
    assert!(of_admin.iter().filter(is_staff).count() > 20, "{of_admin:?}");
    app.stop().await;
}

#[tokio::test]
async fn one_address_for_both_settings_is_one_listener() {
    let env = Env::start().await;
    // Of all free ports; should another program take it meanwhile, the start fails and says so.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let secrets =
        ["--queue-secret", QUEUE_SECRET, "--access-secret", SECRET, "--ticket-secret", TICKET_SECRET];
    let mut settings = settings(&secrets);
    (settings.http.listen, settings.http.admin_listen) = (free, Some(free));
    settings.servers.database_url = Some(env.database_url.clone());
    settings.servers.nats_url = Some(env.nats_url.clone());
    let app = App::start(&settings, &[Role::Api]).await.unwrap();
    assert_eq!(app.address, app.admin_address);
    for (path, wanted) in [("/v1/concerts", 200), ("/metrics", 200)] {
        assert_eq!(status(Method::GET, &format!("http://{free}{path}")).await, wanted, "{path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn role_without_buyers_answers_operators() {
    let env = Env::start().await;
    let app = start(&env, &PICKED, &[Role::Worker]).await;
    assert_eq!(app.address, None);
    let url = format!("http://{}", app.admin_address.unwrap());
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(status(Method::GET, &format!("{url}{path}")).await, 200, "{path}");
    }
    let program = Program::of(&env);
    let key = program.json(0, "keys create --role admin --name me").await;
    let admin = Caller::new(boxoffice::ids::new(), key["key"].as_str().unwrap());
    let ask = async |method: Method, path: &str, body: Option<Value>| {
        let request = client().request(method, format!("{url}{path}"));
        let request = request.header("authorization", admin.header("authorization"));
        reply(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    };
    assert_eq!(ask(Method::GET, "/v1/ops/sagas", None).await.status, 200);
    let lines = ask(Method::GET, "/v1/ops/queues", None).await;
    lines.is(503, "unavailable");
    assert!(lines.body["detail"].as_str().unwrap().contains("role scheduler"), "{}", lines.body);
    let wanted = json!({ "name": "Concert", "description": "made where no buyer is answered" });
    ask(Method::POST, "/v1/admin/concerts", Some(wanted)).await.good(201);
    let concert = add_concert(&app).await;
    let dates = |concert| format!("/v1/admin/concerts/{concert}/performances");
    let date = json!({ "venue": "Hall", "starts_at": "2100-01-01T20:00:00Z", "duration_minutes": 90,
        "sale_opens_at": "2026-01-01T00:00:00Z", "sale_closes_at": "2100-01-01T19:00:00Z",
        "seats": [{ "from": 1, "to": 2, "section": "A", "price": 1 }] });
    ask(Method::POST, &dates(concert), Some(date.clone())).await.good(201);
    ask(Method::POST, &dates(boxoffice::ids::new()), Some(date)).await.is(404, "not_found");
    app.stop().await;
}

#[tokio::test]
async fn address_in_use_is_named_with_its_setting() {
    let env = Env::start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let program = Program::of(&env);
    let ran = program.run(&format!("serve --role worker --admin-listen {address}")).await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains(&address) && ran.err.contains("BOXOFFICE_ADMIN_LISTEN"), "{}", ran.err);
}
