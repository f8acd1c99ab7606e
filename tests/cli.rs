//! The command line, as a program run by people and by other programs: what it prints, and how it ends.

use std::path::Path;

use serde_json::Value;

use crate::common::fresh_dir;
use crate::common::program::{Program, with_database};

/// The same consistent rows that the audit is tested with.
const GOOD: &str = include_str!("data/audit_good.sql");

/// Bounds that a check is quick with; the full ones are its defaults.
const FEW: &str = "--crashes 0 --losses 1 --duplicates 0 --acts 0";

#[tokio::test]
async fn help_lists_the_commands_and_every_setting() {
    let help = Program::alone().run("--help").await;
    assert_eq!(help.code, 0);
    for word in ["up", "serve", "migrate", "audit", "saga", "queue", "concert", "workflow", "keys", "doctor"]
    {
        assert!(help.out.contains(&format!("  {word} ")), "{word} is missing in\n{}", help.out);
    }
    for tool in ["demo", "bench"] {
        assert!(
            !help.out.contains(&format!("  {tool} ")),
            "{tool} is no command of the service\n{}",
            help.out
        );
    }
    for setting in
        ["DATABASE_URL", "NATS_URL", "BOXOFFICE_LISTEN", "BOXOFFICE_HOLD_SECONDS", "BOXOFFICE_DATA_DIR"]
    {
        assert!(help.out.contains(setting), "{setting} is missing");
    }
}

#[tokio::test]
async fn misuse_exits_with_2_and_explains_the_usage() {
    let program = Program::alone();
    for words in
        ["", "sing", "audit --strictly", "serve", "serve --role juggler", "keys create --role viewer"]
    {
        let ran = program.run(words).await;
        assert_eq!(ran.code, 2, "{words}: {}", ran.err);
        assert!(ran.out.is_empty(), "{words}: {}", ran.out);
        assert!(ran.err.contains("Usage") || ran.err.contains("possible values"), "{words}: {}", ran.err);
    }
}

#[tokio::test]
async fn missing_service_is_explained_in_one_sentence() {
    let ran = Program::alone().run("audit").await;
    assert_eq!(ran.code, 2);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(
        ran.err.starts_with("boxoffice: no `boxoffice up` runs") && ran.err.contains("DATABASE_URL"),
        "{}",
        ran.err
    );
}

#[tokio::test]
async fn unreachable_server_is_named_in_one_sentence() {
    let away = Program::alone().with("DATABASE_URL", "postgres://postgres@127.0.0.1:1/nothing");
    let ran = away.run("saga list").await;
    assert_eq!(ran.code, 1);
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(ran.err.contains("Postgres does not answer"), "{}", ran.err);
}

#[tokio::test]
async fn audit_exit_codes_for_good_broken_and_stuck() {
    let (program, pool) = with_database().await;
    sqlx::raw_sql(GOOD).execute(&pool).await.unwrap();
    let good = program.json(0, "audit").await;
    assert_eq!(good["verdict"], "good");
    assert_eq!(good["counted"]["seats_sold"], 4);

    sqlx::query("update sagas set status = saga_status('stuck'), stuck_since = now(), due_at = null where subject_id is not null and due_at is not null")
        .execute(&pool)
        .await
        .unwrap();
    assert_eq!(program.json(0, "audit").await["stuck"].as_array().unwrap().len(), 1);
    assert_eq!(program.json(1, "audit --strict").await["verdict"], "good");

    sqlx::query("update accounts set balance = balance + 1").execute(&pool).await.unwrap();
    let broken = program.json(1, "audit").await;
    assert_eq!(broken["broken"][0]["invariant"], "balances");
    assert_eq!(broken["broken"][0]["count"], 2);
    let told = program.run("audit").await;
    assert_eq!(told.code, 1);
    assert!(told.out.contains("BROKEN") && told.out.contains("the entries add up to"), "{}", told.out);
}

#[tokio::test]
async fn key_is_shown_once_and_revoked_once() {
    let (program, pool) = with_database().await;
    let made = program.json(0, "keys create --role operator --name night-shift").await;
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("bo_") && key.len() > 40, "{key}");
    let stored: Vec<u8> = sqlx::query_scalar("select hash from api_keys").fetch_one(&pool).await.unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains(key));

    let listed = program.json(0, "keys list").await;
    assert_eq!(listed["items"][0]["role"], "operator");
    assert!(!listed.to_string().contains(key), "the key is shown once");
    let revoke = format!("keys revoke {}", made["id"].as_str().unwrap());
    assert_eq!(program.json(0, &revoke).await["revoked"], true);
    assert_eq!(program.json(1, &revoke).await["revoked"], false);
    assert_eq!(program.run(&format!("keys create --role viewer --name {}", "x".repeat(101))).await.code, 2);
}

#[tokio::test]
async fn keys_are_made_for_each_role() {
    let (program, _) = with_database().await;
    for role in ["viewer", "admin", "cashier", "support", "gate"] {
        let made = program.json(0, &format!("keys create --role {role} --name staff")).await;
        assert_eq!(program.json(0, "keys list").await["items"][0]["role"], role, "{made}");
    }
}

#[tokio::test]
async fn public_ticket_key_is_printed_without_servers() {
    let program = Program::alone();
    assert_eq!(program.run("keys ticket").await.code, 2);
    let secret = "a ticket secret of the tests, long enough";
    let shown = program.with("BOXOFFICE_TICKET_SECRET", secret).json(0, "keys ticket").await;
    let public = boxoffice::ticket_codes::TicketKeys::new(secret, []).unwrap().public().remove(0);
    assert_eq!((&shown["id"], &shown["key"]), (&public.id.into(), &public.key.into()));
}

#[tokio::test]
async fn concerts_and_dates_are_added() {
    let (program, pool) = with_database().await;
    let concert = program.json(0, "concert add --name Lieder").await;
    let id = concert["id"].as_str().unwrap();
    let date = format!(
        "concert date {id} --venue Hall --starts-at 2099-01-01T20:00:00Z --seats 1-20:A:500 --seats 21-30:B:300"
    );
    assert_eq!(program.json(0, &date).await["seats_total"], 30);
    let listed = program.json(0, "concert list").await;
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["on_sale"]),
        (&"Lieder".into(), &true.into())
    );
    let seats: i64 =
        sqlx::query_scalar("select count(*) from seats where price = 300").fetch_one(&pool).await.unwrap();
    assert_eq!(seats, 10);

    let twice = program
        .run(&format!(
            "concert date {id} --venue Hall --starts-at 2099-01-01T20:00:00Z --seats 1-5:A:1 --seats 5:B:1"
        ))
        .await;
    assert_eq!(twice.code, 2);
    assert!(twice.err.contains("seat 5 is there twice"), "{}", twice.err);
}

#[tokio::test]
async fn workflows_are_checked_and_drawn() {
    let program = Program::alone();
    let checked = program.json(0, &format!("workflow check {FEW}")).await;
    let names: Vec<&Value> =
        checked["items"].as_array().unwrap().iter().map(|item| &item["workflow"]).collect();
    assert_eq!(names, ["booking", "cancellation"]);
    let drawn = program.run("workflow graph booking").await;
    assert!(drawn.out.starts_with("stateDiagram-v2\n    [*] --> reserve\n"), "{}", drawn.out);
    let unknown = program.run("workflow graph juggling").await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("booking, cancellation"), "{}", unknown.err);
}

#[tokio::test]
async fn a_bad_definition_is_found() {
    let dir = fresh_dir("workflows");
    write_definition(&dir, "name = 'odd'\nversion = 1\nsteps = []\n");
    let program = Program::alone().with("BOXOFFICE_WORKFLOWS", dir.to_str().unwrap());
    let found = program.json(1, "workflow check").await;
    assert_eq!(found["verdict"], "broken");
    assert!(found["problem"].as_str().unwrap().contains("no steps"), "{found}");
    write_definition(
        &dir,
        "name = 'even'\nversion = 1\n[[steps]]\nname = 'a'\ncommand = 'x.y'\nundo = 'x.z'\n",
    );
    assert_eq!(program.json(0, &format!("workflow check {FEW}")).await["items"].as_array().unwrap().len(), 3);
}

fn write_definition(dir: &Path, text: &str) {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::write(dir.join("odd.toml"), text).unwrap();
}

#[tokio::test]
async fn migrate_may_be_repeated() {
    let (program, _pool) = with_database().await;
    assert_eq!(program.json(0, "migrate").await["migrated"], true);
    assert_eq!(program.json(0, "migrate").await["migrated"], true);
}
