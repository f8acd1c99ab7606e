//! The walk of `docs/operations.md`: three sagas get stuck for a real reason and are repaired, and the page shows what
//! the program said.

use boxoffice::ids;
use boxoffice::store;
use regex::{Captures, Regex};
use uuid::Uuid;

use super::until_status;
use crate::common::app::TestApp;
use crate::common::program::Program;
use crate::docs::check_part;

const TRIGGER: &str = "
    create function refuse_free_seats() returns trigger language plpgsql as
    $$ begin raise check_violation using message = 'seats cannot become free'; end $$;
    create trigger faulty before update on seats for each row
    when (new.status = 'free') execute function refuse_free_seats()";

/// A service whose operator reads the page.
struct Walk {
    test: TestApp,
    program: Program,
    /// Sagas by the order in which the page meets them.
    known: Vec<Uuid>,
}

impl Walk {
    async fn begin() -> Self {
        let test = TestApp::start().await;
        let program = Program::of(&test.env).with("USER", "ada").with("COLUMNS", "160");
        Self { test, program, known: Vec::new() }
    }

    /// Waits until the saga is stuck and its event is published. Before that the list shows when it is published
    /// again.
    async fn gets_stuck(&mut self, id: Uuid) {
        until_status(&self.test, id, "stuck").await;
        let pool = &self.test.app.pool;
        let at_rest = || async { store::sagas::get(pool, id).await.unwrap().unwrap().due_at.is_none() };
        self.test.until(10, "the saga to rest", at_rest).await;
        self.known.push(id);
    }

    /// Runs commands and compares what they say with a part of the page.
    async fn shows(&self, part: &str, code: i32, commands: &[&[&str]]) {
        let mut text = String::from("```console\n");
        for words in commands {
            let ran = self.program.run_words(words).await;
            assert_eq!(ran.code, code, "{words:?}: {}{}", ran.out, ran.err);
            let shown: Vec<String> = words.iter().map(|word| quoted(word)).collect();
            text.push_str(&format!("$ boxoffice {}\n{}\n", shown.join(" "), ran.out.trim_end()));
        }
        text.push_str("```\n");
        check_part("operations.md", part, &self.plain(&text));
    }

    /// The same for every run: ids, times, names of machines, and how long things took.
    fn plain(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (at, id) in self.known.iter().enumerate() {
            let name = format!("01a20000-0000-7000-8000-00000000000{}", char::from(b'a' + at as u8));
            text = text.replace(&id.to_string(), &name);
        }
        let ids = Regex::new(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}").unwrap();
        let unnamed = |id: &Captures<'_>| match &id[0] {
            named if named.starts_with("01a20000-0000-7000-8000-") => named.to_owned(),
            _ => "01a1ffff-0000-7000-8000-000000000000".to_owned(),
        };
        text = ids.replace_all(&text, unnamed).into_owned();
        let rules = [
            (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "2026-11-20T10:15:30.123456Z"),
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "2026-11-20 10:15:30"),
            (r"(\D)\d\d:\d\d:\d\d", "${1}10:15:30"),
            (r"(10:15:30)\.\d\d\d", "${1}.123"),
            (r"\d+ ms", "12 ms"),
            (r"by [\w.-]+:\d+", "by box-1:4711"),
            // Postgres names a line of its own source.
            (r"at line \d{4}", "at line 3891"),
            // What is cut off ends with a whole field.
            (r#",[^,\n]*…"#, ",…"),
        ];
        for (rule, instead) in rules {
            text = Regex::new(rule).unwrap().replace_all(&text, instead).into_owned();
        }
        // Spaces that only fill a terminal's line say nothing.
        let trailing = Regex::new(r" +\n").unwrap();
        trailing.replace_all(&text, |_: &Captures<'_>| "\n").into_owned()
    }
}

fn quoted(word: &str) -> String {
    if word.contains([' ', '{']) { format!("'{word}'") } else { word.to_owned() }
}

#[tokio::test]
async fn stuck_saga_is_repaired_by_the_page() {
    let mut walk = Walk::begin().await;
    let test = &walk.test;
    let buyer = test.user(1_000).await;
    let first = test.reserve(ids::new(), &[1]).await.id;
    let paid = test.reserve(buyer, &[2]).await.id;
    test.pay(paid).await;
    let third = test.reserve(ids::new(), &[3]).await.id;
    sqlx::raw_sql(TRIGGER).execute(&test.app.pool).await.unwrap();
    let mut sagas = Vec::new();
    for reservation in [first, paid, third] {
        // It does not settle as the buyer wants; what it says then is not what this is about.
        let _answer = test.app.booking.cancel(reservation).await;
        let query = "select id from saga_view where subject_id = $1 order by created_at desc limit 1";
        sagas.push(sqlx::query_scalar(query).bind(reservation).fetch_one(&test.app.pool).await.unwrap());
    }
    for saga in &sagas {
        walk.gets_stuck(*saga).await;
    }
    let [one, two, three] = [0, 1, 2].map(|at: usize| sagas[at].to_string());
    let (one, two, three) = (one.as_str(), two.as_str(), three.as_str());

    let batch = ["saga", "batch", "retry", "--status", "stuck", "--workflow", "booking", "--dry-run"];
    walk.shows("dry run", 0, &[&[&batch[..], &["--reason", "the trigger is gone"]].concat()]).await;
    walk.shows("list", 0, &[&["saga", "list", "--status", "stuck"]]).await;
    walk.shows("show", 0, &[&["saga", "show", one]]).await;
    walk.shows("why", 0, &[&["saga", "why", one]]).await;
    walk.shows("parked", 0, &[&["saga", "parked", "list", "--saga", one]]).await;
    walk.shows("refused", 1, &[&["saga", "cancel", one, "--reason", "no longer wanted"]]).await;

    sqlx::raw_sql("drop trigger faulty on seats").execute(&walk.test.app.pool).await.unwrap();
    walk.shows("retry", 0, &[&["saga", "retry", one, "--reason", "the trigger is gone"]]).await;
    until_status(&walk.test, sagas[0], "compensated").await;
    walk.shows("ended", 0, &[&["saga", "show", one]]).await;
    let query = "select id from parked_messages where headers ->> 'Saga' = $1";
    let parked: i64 = sqlx::query_scalar(query).bind(one).fetch_one(&walk.test.app.pool).await.unwrap();
    assert_eq!(parked, 1, "the first that was parked");
    walk.shows("drop", 0, &[&["saga", "parked", "drop", "1", "--reason", "its saga has ended"]]).await;

    walk.shows("cancellation", 0, &[&["saga", "why", two]]).await;
    sqlx::query("update seats set status = 'free', holder = null where holder = $1")
        .bind(paid)
        .execute(&walk.test.app.pool)
        .await
        .unwrap();
    walk.shows("complete", 0, &[&["saga", "complete", two, "--output", "{}", "--reason", "freed by hand"]])
        .await;
    walk.shows("abandon", 0, &[&["saga", "abandon", three, "--reason", "the box office takes it over"]])
        .await;
    walk.shows("audit", 0, &[&["audit"]]).await;

    let pause = ["saga", "pause", "--step", "points.deduct", "--reason", "the ledger moves"];
    walk.shows("pauses", 0, &[&pause, &["saga", "pauses"]]).await;
    walk.shows("acts", 0, &[&["saga", "acts"]]).await;
    assert!(store::operations::count_parked(&walk.test.app.pool).await.unwrap() >= 1);
}
