//! The shop, as buyers use it.

use boxoffice::http::auth::NewKey;
use boxoffice::store::api_keys::{self, Role};
use boxoffice::{ids, sample_concerts};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::http::Entrance;
use crate::tidy::root;

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
    super::run("shop.mjs", &input).await;
    entrance.test.check_books().await;
}

#[tokio::test]
async fn hold_runs_out_and_a_crowd_comes() {
    let (_entrance, input) = shop(&["--hold-seconds", "6"]).await;
    super::run("shop_short_hold.mjs", &input).await;
}

#[tokio::test]
async fn shop_fits_the_types_of_the_api() {
    let compiler = root().join("tests/browser/node_modules/.bin/tsc");
    let checked =
        Command::new(compiler).args(["--project", "web/tsconfig.json"]).current_dir(root()).output();
    let checked = checked.await.expect("the packages are missing; run: scripts/deps.sh tests");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
