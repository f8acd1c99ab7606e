//! Bodies of a mebibyte that are refused: a small answer soon, on every route.

use std::time::Duration;

use crate::common::hostile::{REFUSAL_BYTES_MAX, bodies, routes, send};
use crate::common::http::Entrance;

/// An optimised build takes under 50 ms; this one is not optimised, and the machine may be busy.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn large_body_is_refused_soon_and_briefly() {
    let entrance = Entrance::start().await;
    for route in routes(&entrance).await.iter().filter(|route| route.takes_body) {
        for (what, body) in bodies(route, 1 << 20) {
            let (status, text, took) = send(&entrance, route, &route.path, Some(body)).await;
            let about = format!("{what} to {} {}: {status}, {took:?}", route.method, route.path);
            assert!((400..500).contains(&status) && text.len() <= REFUSAL_BYTES_MAX, "{about}");
            assert!(took < REFUSAL_TIMEOUT, "{about}");
        }
    }
}
