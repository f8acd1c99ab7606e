//! The shop's files and client, held to the API; and crowds of simulated buyers.

use std::collections::BTreeSet;
use std::fs;

use boxoffice::http::api_part::with_tags;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::app::until;
use crate::common::http::{Caller, Entrance};
use crate::tidy::root;

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The tags of the operations that a shop calls, as the generator of its client names them.
fn shop_tags() -> String {
    let script = text("sdk/shop-ts/generate.sh");
    script.lines().find_map(|line| line.strip_prefix("TAGS=")).unwrap().to_owned()
}

fn shop_api() -> Value {
    let tags: Vec<String> = shop_tags().split(',').map(str::to_owned).collect();
    let api = serde_json::to_value(boxoffice::http::description()).unwrap();
    with_tags(api, &tags).unwrap()
}

/// The document without its texts: another wording needs no other types.
fn without_texts(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let is_text =
                |name: &str, value: &Value| ["description", "summary"].contains(&name) && value.is_string();
            let kept = fields.into_iter().filter(|(name, value)| !is_text(name, value));
            kept.map(|(name, value)| (name, without_texts(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_texts).collect(),
        other => other,
    }
}

#[test]
fn client_types_are_up_to_date() {
    let digest = Sha256::digest(serde_json::to_string(&without_texts(shop_api())).unwrap());
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let first = text("sdk/shop-ts/src/schema.d.ts").lines().next().unwrap().to_owned();
    assert!(
        first.contains(&hash),
        "run sdk/shop-ts/generate.sh; the types were made from another description: {first}"
    );
}

#[test]
fn every_buyer_code_is_translated() {
    let mut codes = BTreeSet::new();
    let api = shop_api()["paths"].to_string();
    for code in boxoffice::http::error::Code::ALL {
        if api.contains(&format!("`{}`", code.row().1)) {
            codes.insert(code.row().1);
        }
    }
    // What any request may meet.
    codes.extend(["internal", "rate_limited", "method_not_allowed", "unavailable"]);
    assert!(codes.contains("seat_taken") && codes.contains("queue_token_expired") && codes.len() > 25);
    for language in ["en", "ko"] {
        let texts = text(&format!("web/shop/text/{language}.js"));
        let (_, sentences) = texts.split_once("  errors: {").unwrap();
        let (sentences, _) = sentences.split_once("\n  },").unwrap();
        let missing: Vec<&&str> =
            codes.iter().filter(|code| !sentences.contains(&format!("\n    {code}: ("))).collect();
        assert!(missing.is_empty(), "{language} has no sentence for {missing:?}");
    }
}

#[tokio::test]
async fn shop_is_off_unless_asked_for() {
    let entrance = Entrance::start().await;
    assert_eq!(entrance.get("/", &Caller::anonymous()).await.status, 404);
    assert_eq!(entrance.get("/shop/app.js", &Caller::anonymous()).await.status, 404);
    let entrance = entrance.restarted(&["--shop", "on"]).await;
    let page = entrance.get("/", &Caller::anonymous()).await;
    assert_eq!(
        (page.status, page.headers["content-type"].to_str().unwrap()),
        (200, "text/html; charset=utf-8")
    );
    let facts = entrance.get("/shop/config.json", &Caller::anonymous()).await;
    assert_eq!(facts.body["local"], true);
    let client = entrance.get("/shop/client.js", &Caller::anonymous()).await;
    assert!(client.body.as_str().unwrap().contains("class ShopClient"));
}

#[tokio::test(flavor = "multi_thread")]
async fn crowd_buys_over_the_public_api() {
    let entrance = Entrance::start().await;
    let user = entrance.user(0).await;
    assert_eq!(entrance.get("/v1/crowds/current", &user).await.body["buyers"], 0);
    let path = format!("/v1/concerts/{}/crowds", entrance.test.concert);
    for wrong in [json!({ "buyers": 0 }), json!({ "buyers": 501 })] {
        assert_eq!(entrance.post(&path, &user, wrong).await.body["code"], "invalid_request");
    }
    assert_eq!(entrance.post(&path, &Caller::anonymous(), json!({ "buyers": 12 })).await.status, 401);
    let started = entrance.post(&path, &user, json!({ "buyers": 12 })).await;
    assert_eq!((started.status, &started.body["running"]), (202, &json!(true)));
    let second = entrance.post(&path, &user, json!({ "buyers": 12 })).await;
    assert_eq!((second.status, &second.body["code"]), (409, &json!("request_in_progress")));
    until(200, "the crowd to go home", || async {
        entrance.get("/v1/crowds/current", &user).await.body["running"] == false
    })
    .await;
    let crowd = entrance.get("/v1/crowds/current", &user).await.body;
    let count = |name: &str| crowd[name].as_u64().unwrap();
    assert_eq!(count("bought") + count("gone"), 12, "{crowd}");
    assert!(count("bought") >= 4, "most of them buy: {crowd}");
    entrance.test.check_books().await;
    let other = entrance.post(&path, &user, json!({ "buyers": 1 })).await;
    assert_eq!(other.status, 202, "another crowd may come");
}

#[tokio::test]
async fn no_crowd_comes_in_production() {
    let entrance = Entrance::production().await;
    let user = entrance.user(0).await;
    let path = format!("/v1/concerts/{}/crowds", entrance.test.concert);
    let refused = entrance.post(&path, &user, json!({ "buyers": 5 })).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("local_mode_only")));
    let refused = entrance.get("/v1/crowds/current", &user).await;
    assert_eq!((refused.status, &refused.body["code"]), (403, &json!("local_mode_only")));
}
