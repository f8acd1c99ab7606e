//! Runs a script of this folder against a service, by Node.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long a whole script may take.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);

/// Runs a script of this folder to its end; what it printed is shown if it fails. A browser takes a core by itself, so
/// only one runs at a time.
pub async fn run(script: &str, input: &Value) {
    static ONE_BROWSER: Mutex<()> = Mutex::const_new(());
    let _turn = ONE_BROWSER.lock().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(folder.join("node_modules").is_dir(), "the packages are missing; run: scripts/deps.sh tests");
    let node = Command::new("node")
        .args(["--test", script])
        .current_dir(&folder)
        .env("BROWSER_TEST_INPUT", input.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node is missing; run: scripts/deps.sh tests");
    let ran = timeout(SCRIPT_TIMEOUT, node.wait_with_output()).await;
    let ran = ran.unwrap_or_else(|_| panic!("{script} took longer than {SCRIPT_TIMEOUT:?}")).unwrap();
    let text = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(ran.status.success(), "{script} failed:\n{text}");
}
