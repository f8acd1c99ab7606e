//! Texts of old rows on an operator's terminal: each on its line, and none is a command to the terminal.

use serde_json::Value;

use crate::common::http::Entrance;
use crate::common::program::Program;

/// Clears the screen, breaks the line, and turns the direction of what follows.
const BAD: &str = "a\u{1b}[2J\nb\u{9b}1m\u{202e}c";
const SHOWN: &str = r"a\u{1b}[2J\nb\u{9b}1m\u{202e}c";

#[tokio::test]
async fn old_rows_are_printed_escaped() {
    let entrance = Entrance::start().await;
    let buyer = entrance.admitted(0).await;
    let id = entrance.reserve(&buyer, &[1]).await.good(201)["id"].as_str().unwrap().to_owned();
    let changes = [
        "update concerts set name = $1, description = $1",
        "update sagas set reason = $1, status = saga_status('stuck'), stuck_since = now(), due_at = null",
        "insert into api_keys (id, name, role, hash) values (gen_random_uuid(), $1, 'viewer', 'x'::bytea)",
        "insert into parked_messages (stream, subject, headers, payload, error)
            values ('S', 's', jsonb_build_object('k', $1::text), 'x', $1)",
        "insert into operator_acts (at, actor, act, saga_id, reason, from_status, to_status)
            select now(), $1, 'pause', id, $1, 'running', 'running' from sagas",
    ];
    for change in changes {
        sqlx::query(change).bind(BAD).execute(&entrance.pool).await.unwrap();
    }
    let program = Program::of(&entrance.test.env);
    let parked: i64 =
        sqlx::query_scalar("select id from parked_messages").fetch_one(&entrance.pool).await.unwrap();
    let commands = [
        "concert list".to_owned(),
        "keys list".to_owned(),
        format!("concert report {}", entrance.test.performance),
        "saga list".to_owned(),
        "saga acts".to_owned(),
        "saga parked list".to_owned(),
        format!("saga parked show {parked}"),
        format!("saga show {id}"),
        format!("saga why {id}"),
        "audit".to_owned(),
    ];
    for command in &commands {
        let ran = program.run(command).await;
        let stray = |letter: char| letter != '\n' && (letter.is_control() || letter == '\u{202e}');
        assert!(!ran.out.chars().any(stray) && !ran.err.chars().any(stray), "{command}: {:?}", ran.out);
        assert!(ran.out.contains(SHOWN), "{command}: {:?}", ran.out);
        let json = program.run(&format!("{command} --json")).await.out;
        assert!(!json.chars().any(stray), "{command}: {json:?}");
        for line in json.lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
    }
    let why = program.run(&format!("saga why {id}")).await.out;
    assert_eq!(why.lines().count(), 1, "{why:?}");
    let shown = program.json(0, &format!("saga show {id}")).await;
    assert_eq!(shown["reason"], BAD, "programs get the text as it is");
}

#[tokio::test]
async fn command_line_takes_visible_names() {
    let (program, _pool) = crate::common::program::with_database().await;
    for bad in [" ", "\u{200b}", "a\nb", BAD] {
        let words = [
            vec!["concert", "add", "--name", bad],
            vec!["keys", "create", "--role", "viewer", "--name", bad],
            vec!["saga", "retry", "00000000-0000-0000-0000-000000000001", "--reason", bad],
        ];
        for words in words {
            let ran = program.run_words(&words).await;
            assert_eq!(ran.code, 2, "{words:?}: {}{}", ran.out, ran.err);
            assert!(!ran.err.contains('\u{1b}'), "{words:?}: {:?}", ran.err);
        }
    }
}
