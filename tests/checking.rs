//! Checking workflows from the command line: what is walked through, what is found, what is said about sagas under
//! way, and the pictures.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::fresh_dir;
use crate::common::program::{Program, with_database};

/// Bounds that a check is quick with; the full ones are its defaults.
const FEW: &str = "--crashes 0 --losses 1 --duplicates 0 --acts 0";

/// Like the audit's: consistent rows, some of them under way.
const GOOD: &str = include_str!("data/audit_good.sql");

/// Its second step may be rejected, and then the effect of the first one stays.
const LEAKY: &str = "name = 'party'\nversion = 1\n\
    [[steps]]\nname = 'invite'\ncommand = 'post.send'\n\
    [[steps]]\nname = 'cook'\ncommand = 'kitchen.cook'\nundo = 'kitchen.clean'\n";

fn written(name: &str, text: &str) -> PathBuf {
    let file = fresh_dir("definitions").join(name);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test]
async fn check_reports_bounds_and_states() {
    let found = Program::alone().json(0, &format!("workflow check {FEW}")).await;
    assert_eq!(found["verdict"], "good");
    assert_eq!((&found["bounds"]["losses"], &found["bounds"]["acts"]), (&json!(1), &json!(0)));
    for item in found["items"].as_array().unwrap() {
        let walks = item["walks"].as_array().unwrap();
        let workers: Vec<&Value> = walks.iter().map(|walk| &walk["workers"]).collect();
        assert_eq!(workers, ["elsewhere", "inside"], "{item}");
        assert!(walks.iter().all(|walk| walk["states"].as_u64().unwrap() > 20), "{item}");
    }
    assert!(found["under_way"]["unseen"].as_str().unwrap().contains("no database"), "{found}");
}

#[tokio::test]
async fn leaky_definition_is_reported_with_its_shortest_trace() {
    let file = written("leaky.toml", LEAKY);
    let words = format!("workflow check {} {FEW}", file.display());
    let found = Program::alone().json(1, &words).await;
    assert_eq!((&found["verdict"], &found["items"][0]["workflow"]), (&json!("broken"), &json!("party")));
    let finding = &found["items"][0]["walks"][1]["finding"];
    assert_eq!(finding["problem"], "the saga has ended, but the effect of invite is left behind");
    assert_eq!(
        finding["way"],
        json!([
            "worker: do invite (visit 1) -> done, asks for cook",
            "worker: do cook (visit 1) -> rejected, compensated",
        ])
    );
    let told = Program::alone().run(&words).await;
    assert!(told.out.contains("BROKEN") && told.out.contains("   1. worker: do invite"), "{}", told.out);
}

#[tokio::test]
async fn unreadable_definition_is_a_misuse_invalid_one_broken() {
    let program = Program::alone();
    let missing = program.run("workflow check /nowhere/at-all.toml").await;
    assert_eq!((missing.code, missing.err.lines().count()), (2, 1), "{}", missing.err);
    let ahead = LEAKY.replace("command = 'post.send'", "command = 'post.send'\nback_to = { no = 'cook' }");
    let file = written("ahead.toml", &ahead);
    let found = program.json(1, &format!("workflow check {}", file.display())).await;
    assert!(found["problem"].as_str().unwrap().contains("leads back to cook, which is no earlier wait"));
    assert_eq!(program.run("workflow check --crashes many").await.code, 2);
}

#[tokio::test]
async fn sagas_without_their_definition_are_named() {
    let (program, pool) = with_database().await;
    sqlx::raw_sql(GOOD).execute(&pool).await.unwrap();
    let booking =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/workflows/booking.toml")).unwrap();
    let newer = booking.replace("version = 1", "version = 2").replace("points.refund", "points.give_back");
    let file = written("newer.toml", &newer);
    let words = format!("workflow check {} {FEW}", file.display());
    let found = program.json(0, &words).await;
    let groups = found["under_way"]["sagas"].as_array().unwrap().clone();
    let at_wait = groups.iter().find(|group| group["step"] == "await_payment").unwrap();
    assert_eq!(
        (&at_wait["version"], &at_wait["newest"], &at_wait["defined"]),
        (&json!(1), &json!(2), &json!(true))
    );
    assert!(groups.iter().all(|group| !group["examples"].as_array().unwrap().is_empty()));

    sqlx::query(
        "with lost as (
             insert into workflow_definitions (workflow, version, steps, signals, events, announced)
             select workflow, 7, steps, signals, events, announced from workflow_definitions
             where workflow = 'booking' and version = 1 returning code)
         update sagas set definition = lost.code from lost
         where sagas.id in (select id from saga_view where workflow = 'booking' and step = 'await_payment')",
    )
    .execute(&pool)
    .await
    .unwrap();
    let lost = program.json(1, &words).await;
    assert_eq!(lost["verdict"], "broken");
    let told = program.run(&words).await;
    assert!(told.out.contains("NO DEFINITION"), "{}", told.out);
}

#[tokio::test]
async fn workflow_is_drawn_in_the_asked_version() {
    let program = Program::alone();
    let drawn = program.run("workflow graph booking --format svg").await;
    assert!(drawn.out.starts_with("<svg") && drawn.out.ends_with("</svg>\n"), "{}", drawn.out);
    for word in ["await_payment", "undo_pay", "compensated", "stuck", "signal pay"] {
        assert!(drawn.out.contains(&format!(">{word}</text>")), "{word}");
    }
    assert_eq!(program.json(0, "workflow graph booking --version 1").await["version"], 1);
    let unknown = program.run("workflow graph booking --version 9").await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("no workflow booking 9; there are booking 1"), "{}", unknown.err);
}
