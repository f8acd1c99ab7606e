//! The shop in a browser, as buyers use it.

use boxoffice::http::auth::NewKey;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::{ids, sample_concerts};
use serde_json::{Value, json};

use crate::common::http::Entrance;
use crate::script::run;

/// The shop with the sample concerts, and what a script has to know.
async fn shop(flags: &[&str]) -> (Entrance, Value) {
    let entrance = Entrance::with(&[&["--shop", "on"], flags].concat()).await;
    let (pool, clock) = (&entrance.pool, &entrance.test.app.clock);
    sample_concerts::load(pool, clock.now(), 1_000, 60_000).await.unwrap();
    let key = NewKey::generate();
    api_keys::insert(pool, ids::new(), "line", Role::Operator, &key.hash).await.unwrap();
    let concert = "0198c0de-0000-7000-8000-000000000500";
    let input = json!({ "url": entrance.url(), "concert": concert, "operator": key.secret });
    (entrance, input)
}

#[tokio::test]
async fn buyers_get_tickets_through_the_shop() {
    let (entrance, input) = shop(&[]).await;
    run("shop.mjs", &input).await;
    entrance.test.check_books().await;
}

#[tokio::test]
async fn hold_runs_out_and_a_crowd_comes() {
    let (_entrance, input) = shop(&["--hold-seconds", "6"]).await;
    run("shop_short_hold.mjs", &input).await;
}
