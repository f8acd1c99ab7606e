//! The page that describes the API, at `/docs`.

use serde_json::json;

use crate::common::http::Entrance;

#[tokio::test]
async fn api_page_asks_no_other_host() {
    let entrance = Entrance::start().await;
    super::run("api_page.mjs", &json!({ "url": entrance.url() })).await;
}
