//! Programs in other languages, built by their toolchains.

use std::io::Write;
use std::process::Stdio;

/// The exit code of `sdk/build.sh` where a toolchain is missing.
const TOOLCHAIN_MISSING: i32 = 3;

/// The words of the program that serves `printer.print` by an SDK. None if its toolchain is missing; a line says so, also if the test
/// passes. With `REQUIRE_SDKS` in the environment that is a failure.
pub async fn printer(language: &str) -> Option<Vec<String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/build.sh");
    let words = build(script, &[language]).await?;
    Some(words.lines().map(str::to_owned).collect())
}

/// What a script says that builds something; none if a toolchain is missing.
async fn build(script: &str, arguments: &[&str]) -> Option<String> {
    let mut build = tokio::process::Command::new(script);
    let built = build.args(arguments).stdin(Stdio::null()).output().await.unwrap();
    let complaints = String::from_utf8_lossy(&built.stderr);
    if built.status.code() == Some(TOOLCHAIN_MISSING) {
        assert!(std::env::var_os("REQUIRE_SDKS").is_none(), "{complaints}");
        // Not by a macro: what those print is shown only if the test fails.
        let mut terminal = std::io::stderr();
        writeln!(terminal, "{}", complaints.trim()).unwrap();
        return None;
    }
    assert!(built.status.success(), "{script} {arguments:?}: {}\n{complaints}", built.status);
    Some(String::from_utf8(built.stdout).unwrap())
}

/// Builds the workers of `examples/trip`; `false` if a toolchain is missing, as in [`printer`].
pub async fn trip_is_built() -> bool {
    for worker in ["hotel", "flight", "car"] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/trip/run.sh");
        if build(script, &["--build", worker]).await.is_none() {
            return false;
        }
    }
    true
}
