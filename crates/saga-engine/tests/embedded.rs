//! The engine without the service: the example runs on servers of its own, made by the engine's migrations alone.

use std::path::PathBuf;
use std::process::Output;

use dev_servers::{Given, Local};
use saga_engine::store;

/// The example's program lies beside the folder of the tests' programs.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the test has a path");
    test.parent().and_then(|deps| deps.parent()).expect("tests lie in a folder").join("examples/parcels")
}

async fn run(servers: &Local) -> Output {
    let addresses = [&servers.database_url, &servers.nats_url];
    tokio::process::Command::new(example())
        .args(addresses)
        .output()
        .await
        .expect("`cargo test -p saga-engine` builds the example; `--test embedded` alone does not")
}

#[tokio::test(flavor = "multi_thread")]
async fn example_runs_sagas_on_the_engines_tables_alone() {
    let dir = tempfile::tempdir().unwrap();
    let servers = Box::pin(dev_servers::start(dir.path(), Given::default())).await.unwrap();
    let ran = run(&servers).await;
    let said = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said, "lamp: completed\nlamp: completed\nchair: compensated\n");

    let pool = store::open(&servers.database_url, 2).unwrap();
    let stock: Vec<(String, i32)> =
        sqlx::query_as("select item, pieces from stock order by item").fetch_all(&pool).await.unwrap();
    assert_eq!(stock, [("chair".to_owned(), 0), ("lamp".to_owned(), 0)]);
    let tables: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')
             and relname in ('seats', 'reservations', 'concerts', 'ledger_entries')",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    assert_eq!(tables, [""; 0], "the engine has tables of the box office");

    // Another process begins with what is there: no lamp is left.
    let again = String::from_utf8(run(&servers).await.stdout).unwrap();
    assert_eq!(again, "lamp: compensated\nlamp: compensated\nchair: compensated\n");
    let sagas: Vec<(String, i64)> =
        sqlx::query_as("select status, count(*) from saga_view group by status order by status")
            .fetch_all(&pool)
            .await
            .unwrap();
    assert_eq!(sagas, [("compensated".to_owned(), 4), ("completed".to_owned(), 2)]);
}
