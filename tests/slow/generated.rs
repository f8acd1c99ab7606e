//! Requests that schemathesis makes from `openapi.json`, on the routes of buyers, with all its checks.

use serde_json::json;

use crate::common::http::Entrance;

/// Routes that are not called: of staff, streams without an end, and the end of the caller's own place in line.
const LEFT_OUT: &str = "^/v1/(ops|admin)/|/events$|^/metrics$|^/v1/queue-tokens/current$";

/// Where schemathesis lies, fetched if it does not.
async fn schemathesis() -> String {
    let script = "scripts/deps.sh slow && source scripts/deps.sh && echo \"$schemathesis\"";
    let mut shell = tokio::process::Command::new("bash");
    let ran = shell.args(["-c", script]).current_dir(env!("CARGO_MANIFEST_DIR")).output().await.unwrap();
    assert!(ran.status.success(), "schemathesis is not there: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_requests_get_what_is_described() {
    let place = schemathesis().await;
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(1_000).await;
    let reserved = json!({ "performance_id": entrance.test.performance, "seats": [1] });
    entrance.post("/v1/reservations", &buyer, reserved).await.good(201);
    let url = format!("http://{}/openapi.json", entrance.test.app.address.unwrap());
    let header = |name: &str, of: &str| format!("{name}: {}", buyer.header(of));
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/slow");
    let ran = tokio::process::Command::new("python3")
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()"])
        .args(["--config-file", &format!("{folder}/schemathesis.toml"), "run", &url])
        .args(["-H", &header("Authorization", "authorization")])
        .args(["-H", &header("Queue-Token", "queue-token")])
        .args(["--exclude-path-regex", LEFT_OUT, "--checks", "all", "--phases", "examples,coverage,fuzzing"])
        .args(["-n", "50", "--seed", "1", "--continue-on-failure", "--no-color"])
        .env("PYTHONPATH", place)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(entrance.test.env.dir.as_path())
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
}
