//! The shop, as buyers use it: its types.

use tokio::process::Command;

use crate::tidy::root;

#[tokio::test]
async fn shop_fits_the_types_of_the_api() {
    let compiler = root().join("tests/browser/node_modules/.bin/tsc");
    let checked =
        Command::new(compiler).args(["--project", "web/tsconfig.json"]).current_dir(root()).output();
    let checked = checked.await.expect("the packages are missing; run: scripts/deps.sh tests");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
