//! A shop of one's own: a page of another origin that calls the public API.

use axum::Router;
use axum::http::header;
use axum::response::Html;
use axum::routing::get;
use boxoffice::sample_concerts;
use boxoffice::store::api_keys::Role;
use serde_json::json;
use tokio::net::TcpListener;

use crate::common::http::Entrance;

const PAGE: &str = "<!doctype html><html lang=\"en\"><title>A shop</title><link rel=\"icon\" href=\"data:,\"><h1>A shop</h1>";
const CLIENT: &str = include_str!("../../sdk/shop-ts/src/client.js");

#[tokio::test]
async fn page_of_another_origin_buys_a_ticket() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = async || ([(header::CONTENT_TYPE, "text/javascript")], CLIENT);
    let router = Router::new().route("/", get(async || Html(PAGE))).route("/client.js", get(script));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let named = format!("http://127.0.0.1:{port}");
    let entrance = Entrance::with(&["--cors-origins", &named]).await;
    sample_concerts::load(&entrance.pool, entrance.test.app.clock.now(), 1_000, 60_000).await.unwrap();
    let operator = entrance.key(Role::Operator).await;
    let input = json!({
        "url": entrance.url(),
        "operator": operator.header("authorization").trim_start_matches("Bearer "),
        "concert": "0198c0de-0000-7000-8000-000000000500",
        "page": named,
        // The same server by another name is another origin, and the setting does not name it.
        "stranger": format!("http://localhost:{port}"),
    });
    super::run("other_origin.mjs", &input).await;
    entrance.test.check_books().await;
}
