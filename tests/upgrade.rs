//! Old and new releases on one database: what starts, what refuses, and a migration under running bookings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use boxoffice::booking::Answer;
use boxoffice::store;
use boxoffice::store::reservations::ReservationStatus;
use boxoffice::store::schema;
use serde_json::Value;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{PgPool, SqlSafeStr};
use uuid::Uuid;

use crate::common::app::{TestApp, until};
use crate::common::program::Program;
use crate::common::{Env, empty_database};
use crate::process::Process;

/// The newest migration that this release knows.
async fn level(pool: &PgPool) -> i64 {
    let sql = "select max(version) from _sqlx_migrations";
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// A newer release has applied this migration.
async fn apply_newer(pool: &PgPool, version: i64, oldest_level: Option<i64>) {
    let sql = "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
               values ($1, 'of a newer release', true, 'abc', 1)";
    sqlx::query(sql).bind(version).execute(pool).await.unwrap();
    if let Some(level) = oldest_level {
        let sql = "insert into schema_compatibility (migration, oldest_level, oldest_release) values ($1, $2, '9.1.0')";
        sqlx::query(sql).bind(version).bind(level).execute(pool).await.unwrap();
    }
}

/// What `doctor` finds out about the schema, however it is about the rest.
async fn doctor(program: &Program) -> Value {
    let ran = program.run("doctor --json").await;
    let answer: Value = serde_json::from_str(&ran.out).unwrap();
    let checks = answer["checks"].as_array().unwrap();
    checks.iter().find(|check| check["check"] == "schema").unwrap().clone()
}

/// A process of all roles on these servers.
async fn serve(env: &Env, database_url: &str, more: &[&str]) -> Process {
    let dir = env.dir.display().to_string();
    let roles = ["serve", "--role", "api,orchestrator,worker,scheduler", "--local", "--data-dir", &dir];
    let servers = ["--database-url", database_url, "--nats-url", &env.nats_url];
    Process::start(&[&roles[..], &servers[..], more].concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn older_release_works_on_newer_compatible_schema() {
    let env = Env::start().await;
    let level = level(&env.pool).await;
    apply_newer(&env.pool, 9_001, Some(level)).await;
    apply_newer(&env.pool, 9_002, Some(1)).await;
    let program = Program::of(&env);
    assert_eq!(program.json(0, "migrate").await["newer"], serde_json::json!([9_001, 9_002]));
    let process = serve(&env, &env.database_url, &["--migrate"]).await;
    let found = doctor(&program).await;
    assert_eq!(found["state"], "note", "{found}");
    assert!(found["found"].as_str().unwrap().contains("newer than this release"), "{found}");
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn older_release_refuses_newer_incompatible_schema() {
    let env = Env::start().await;
    let level = level(&env.pool).await;
    apply_newer(&env.pool, 9_001, Some(level)).await;
    let program = Program::of(&env).with("BOXOFFICE_LISTEN", "127.0.0.1:0").with("BOXOFFICE_LOCAL", "true");
    // One that names the release it needs, and one that says nothing.
    for (version, oldest, words) in [
        (9_002, Some(9_002 - 1), "needs release 9.1.0 or newer"),
        (9_001, None, "start the release that applied it"),
    ] {
        sqlx::query("delete from schema_compatibility").execute(&env.pool).await.unwrap();
        sqlx::query("delete from _sqlx_migrations where version > 9000").execute(&env.pool).await.unwrap();
        apply_newer(&env.pool, version, oldest).await;
        for command in ["serve --role worker", "serve --role worker --migrate", "migrate", "up"] {
            let ran = program.run(command).await;
            assert_eq!(ran.code, 1, "{command}: {}", ran.err);
            assert!(
                ran.err.contains(words) && ran.err.contains(&version.to_string()),
                "{command}: {}",
                ran.err
            );
            assert!(!ran.err.contains("previously applied"), "{command}: {}", ran.err);
        }
        let found = doctor(&program).await;
        assert_eq!(found["state"], "wrong", "{found}");
        assert!(found["found"].as_str().unwrap().contains(words), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_migration_is_refused() {
    let env = Env::start().await;
    let level = level(&env.pool).await;
    let sql = "update _sqlx_migrations set checksum = 'other' where version = $1";
    sqlx::query(sql).bind(level).execute(&env.pool).await.unwrap();
    let program = Program::of(&env);
    for command in ["serve --role worker", "migrate"] {
        let ran = program.run(command).await;
        assert_eq!(ran.code, 1, "{command}: {}", ran.err);
        assert!(ran.err.contains("in another form than this release"), "{command}: {}", ran.err);
    }
    assert_eq!(doctor(&program).await["state"], "wrong");
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_migrates_only_when_asked() {
    let env = Env::start().await;
    let url = empty_database().await;
    let program = Program::alone().with("DATABASE_URL", &url).with("NATS_URL", &env.nats_url);
    let ran = program.run("serve --role worker").await;
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.err.contains("run `boxoffice migrate`"), "{}", ran.err);
    let pool = store::open(&url, 1).unwrap();
    let tables: i64 =
        sqlx::query_scalar("select count(*) from pg_class where relnamespace = 'public'::regnamespace")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(tables, 0, "it has made tables");
    assert!(doctor(&program).await["advice"].as_str().unwrap().contains("boxoffice migrate"));

    let (one, two) = tokio::join!(serve(&env, &url, &["--migrate"]), serve(&env, &url, &["--migrate"]));
    assert_eq!(doctor(&program).await["found"], "up to date");
    one.kill().await;
    two.kill().await;
}

/// What the next release might bring: everything that CONTRIBUTING.md allows.
fn compatible() -> Migrator {
    let migrations = [
        (
            "alter table reservations add column probe_a int not null default 7;
             alter table accounts add column probe_b text;
             alter table ledger_entries add column probe_c jsonb;
             alter table sagas add column probe_f int;
             alter table seats add constraint probe_d check (price >= 0) not valid;
             insert into schema_compatibility (migration, oldest_level, oldest_release) values (9001, 1, '0.1.0')",
            false,
        ),
        ("drop index concurrently if exists probe_e", true),
        ("create index concurrently probe_e on ledger_entries (user_id, created_at)", true),
        (
            "alter table seats validate constraint probe_d;
             insert into schema_compatibility (migration, oldest_level, oldest_release)
             select migration, 1, '0.1.0' from generate_series(9002, 9004) as migration",
            false,
        ),
        (
            "set local lock_timeout = '500ms';
             lock table reservations, tickets in access exclusive mode;
             alter table tickets
                 add constraint probe_g foreign key (reservation_id) references reservations (id) not valid;
             insert into schema_compatibility (migration, oldest_level, oldest_release) values (9005, 1, '0.1.0')",
            false,
        ),
        (
            "set local lock_timeout = '500ms';
             lock table seats, reservations, tickets in access exclusive mode;
             alter table seats drop constraint probe_d;
             alter table tickets drop constraint probe_g;
             create trigger probe_h after delete on reservations
                 referencing old table as gone for each statement execute function refuse_while_named();
             insert into schema_compatibility (migration, oldest_level, oldest_release) values (9006, 1, '0.1.0')",
            false,
        ),
        ("create unique index concurrently probe_k on tickets (reservation_id, seat)", true),
        (
            "alter table tickets
                 drop constraint tickets_pkey,
                 add constraint tickets_pkey primary key using index probe_k;
             insert into schema_compatibility (migration, oldest_level, oldest_release)
             select migration, 1, '0.1.0' from generate_series(9007, 9008) as migration",
            false,
        ),
    ];
    let migrations = (9_001..).zip(migrations).map(|(version, (sql, no_transaction))| {
        Migration::new(version, "a probe".into(), MigrationType::Simple, sql.into_sql_str(), no_transaction)
    });
    let mut all: Vec<Migration> = store::migrations::migrator().iter().cloned().collect();
    all.extend(migrations);
    Migrator::with_migrations(all)
}

/// A buyer who holds, pays and cancels, again and again until the end. What is refused for the moment is left.
async fn buy(test: Arc<TestApp>, first_seat: i32, done: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let user = test.user(1_000_000).await;
    for seat in (first_seat..first_seat + 10).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match book(&test, user, seat).await {
            Some(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn book(test: &TestApp, user: Uuid, seat: i32) -> Option<()> {
    let answer = test.app.booking.reserve(test.order(user, &[seat])).await.ok()?;
    let (Answer::Settled(held) | Answer::Pending(held)) = answer;
    becomes(test, held.id, ReservationStatus::Held).await?;
    test.app.booking.pay(held.id).await.ok()?;
    becomes(test, held.id, ReservationStatus::Confirmed).await?;
    test.app.booking.cancel(held.id).await.ok()?;
    becomes(test, held.id, ReservationStatus::Cancelled).await
}

/// Waits until a reservation has this status; it fails if it never does.
async fn becomes(test: &TestApp, id: Uuid, status: ReservationStatus) -> Option<()> {
    let ends = [ReservationStatus::Failed, ReservationStatus::Expired];
    for _ in 0..1_500 {
        match test.app.booking.find(id).await {
            Ok(found) if found.status == status => return Some(()),
            Ok(found) if ends.contains(&found.status) => return None,
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("the reservation {id} does not become {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compatible_migration_under_load_leaves_nothing_stuck() {
    // Each buyer cancels more holds than one user may.
    let test = Arc::new(TestApp::with(&["--max-expired-holds", "0"]).await);
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let buyers: Vec<_> = [1, 11, 21, 31]
        .map(|seat| tokio::spawn(buy(Arc::clone(&test), seat, Arc::clone(&done), Arc::clone(&stop))))
        .into();
    let booked = |count: usize| {
        let (done, goal) = (Arc::clone(&done), done.load(Ordering::Relaxed) + count);
        async move { until(60, "bookings", || async { done.load(Ordering::Relaxed) >= goal }).await }
    };
    booked(8).await;

    // A long query of another client blocks the migration. It does not end before bookings go on beside it.
    let mut reader = test.env.pool.begin().await.unwrap();
    sqlx::query("select count(*) from reservations").execute(&mut *reader).await.unwrap();
    let is_migrated = AtomicBool::new(false);
    let migration = async {
        schema::apply(&test.env.pool, compatible()).await.unwrap();
        is_migrated.store(true, Ordering::Relaxed);
    };
    let reading = async {
        tokio::time::sleep(schema::MIGRATION_LOCK_TIMEOUT).await;
        booked(8).await;
        assert!(!is_migrated.load(Ordering::Relaxed), "the migration was not held up");
        reader.rollback().await.unwrap();
    };
    tokio::join!(migration, reading);

    booked(20).await;
    stop.store(true, Ordering::Relaxed);
    for buyer in buyers {
        buyer.await.unwrap();
    }
    let parked: i64 =
        sqlx::query_scalar("select count(*) from parked_messages").fetch_one(&test.env.pool).await.unwrap();
    assert_eq!(parked, 0);
    test.check_books().await;
    // The release that runs is now the older one.
    let other = test.another(&[]).await;
    assert_eq!(store::fit(&other.pool).await.unwrap().refusal, None);
    let valid: bool =
        sqlx::query_scalar("select indisvalid from pg_index where indexrelid = 'probe_e'::regclass")
            .fetch_one(&other.pool)
            .await
            .unwrap();
    assert!(valid);
    other.stop().await;
}
