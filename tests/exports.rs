//! Exports: rows of one snapshot as a stream, with bounds on memory, time and number, and a way to go on.

use std::io::Read;

use boxoffice::store::api_keys::{self, Role};
use boxoffice::{http::auth::NewKey, ids};
use reqwest::{Method, Response};
use serde_json::Value;
use sqlx::PgPool;

use crate::common::Env;
use crate::common::app::until;
use crate::common::http::{Caller, Entrance};
use crate::common::program::with_database;
use crate::process::Process;

/// Rows of a large export: about 30 MB, more than the buffers of its connection take.
const MANY_ROWS: i64 = 50_000;
/// What a large export may add to the memory of the process.
const GROWTH_BYTES_MAX: u64 = 15 << 20;
const KINDS: [&str; 4] = ["reservations", "ledger", "tickets", "redemptions"];

/// Adds reservations with the ids 1, 2, 3, … of a concert whose name a spreadsheet would take for a formula.
async fn fill(pool: &PgPool, rows: i64) {
    sqlx::query(
        "with concert as (
             insert into concerts (id, name, description) values (gen_random_uuid(), '=HYPERLINK(\"http://evil\")', '') returning id)
         insert into reservations (id, user_id, concert_id, performance_id, status, seats, lines, amount, created_at, updated_at)
         select lpad(to_hex(n), 32, '0')::uuid, gen_random_uuid(), concert.id, gen_random_uuid(), 'confirmed', array[n::integer],
                jsonb_build_array(jsonb_build_object('number', n, 'section', '-A', 'price', 100)), 100, now(), now()
         from concert cross join generate_series(1, $1) as n",
    )
    .bind(rows)
    .execute(pool)
    .await
    .unwrap();
}

fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

fn lines(text: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(text).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn records(text: &[u8]) -> Vec<csv::StringRecord> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text);
    reader.records().collect::<Result<_, _>>().unwrap()
}

async fn open(entrance: &Entrance, admin: &Caller, path: &str) -> Response {
    entrance.request(Method::GET, &format!("/v1/admin/exports/{path}"), admin).send().await.unwrap()
}

async fn fetch(entrance: &Entrance, admin: &Caller, path: &str) -> Vec<u8> {
    let answer = open(entrance, admin, path).await;
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

#[tokio::test]
async fn exports_agree_with_what_buyers_see() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let (ada, ben) = (entrance.admitted(1_000).await, entrance.admitted(1_000).await);
    let kept = entrance.reserve(&ada, &[1, 2]).await.good(201).clone();
    let paid = entrance.pay(&ada, &kept).await.good(201).clone();
    let returned = entrance.reserve(&ben, &[3]).await.good(201).clone();
    entrance.pay(&ben, &returned).await.good(201);
    entrance.cancel(&ben, &returned).await.good(200);

    let reservations = lines(&fetch(&entrance, &admin, "reservations").await);
    let of = |id: &Value| reservations.iter().find(|row| row["id"] == *id).unwrap();
    let row = of(&kept["id"]);
    assert_eq!(
        (&row["status"], &row["amount"], &row["payment_status"]),
        (&"confirmed".into(), &200.into(), &"succeeded".into())
    );
    assert_eq!(row["lines"], kept["seats"]);
    assert_eq!(row["payment_id"], paid["payment_id"]);
    assert_eq!(
        (&of(&returned["id"])["status"], &of(&returned["id"])["payment_status"]),
        (&"cancelled".into(), &"refunded".into())
    );
    assert_eq!(reservations.len(), 2);

    let tickets = lines(&fetch(&entrance, &admin, "tickets?format=ndjson").await);
    for ticket in paid["tickets"].as_array().unwrap() {
        let row = tickets.iter().find(|row| row["id"] == ticket["id"]).unwrap();
        assert_eq!((&row["seat"], &row["status"]), (&ticket["seat"], &"valid".into()));
        assert!(row.get("code").is_none());
        assert_eq!(
            (&row["user_id"], &row["section"], &row["price"]),
            (&ada.id.to_string().into(), &"A".into(), &100.into())
        );
    }
    assert_eq!(tickets.iter().filter(|row| row["status"] == "void").count(), 1);
    assert_eq!(tickets.len(), 3);

    sqlx::query(
        "insert into redemptions (id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id, status)
         select gen_random_uuid(), id, reservation_id, performance_id, seat, '=1+1', now(), gen_random_uuid(), 'valid'
         from tickets where id = $1::uuid",
    )
    .bind(paid["tickets"][0]["id"].as_str().unwrap())
    .execute(&entrance.pool)
    .await
    .unwrap();
    let redemptions = lines(&fetch(&entrance, &admin, "redemptions").await);
    assert_eq!((redemptions.len(), &redemptions[0]["ticket_id"]), (1, &paid["tickets"][0]["id"]));
    assert_eq!(redemptions[0]["gate"], "=1+1");
    let csv = records(&fetch(&entrance, &admin, "redemptions?format=csv").await);
    assert!(csv[1].iter().any(|cell| cell == "'=1+1"), "{csv:?}");

    let ledger = lines(&fetch(&entrance, &admin, "ledger").await);
    for buyer in [&ada, &ben] {
        let seen = entrance.get("/v1/points/entries", buyer).await.good(200)["items"].clone();
        let own = |row: &&Value| row["user_id"] == buyer.id.to_string();
        assert_eq!(ledger.iter().filter(own).count(), seen.as_array().unwrap().len());
        for entry in seen.as_array().unwrap() {
            let row = ledger.iter().find(|row| row["id"] == entry["id"]).unwrap();
            for field in ["kind", "amount", "balance", "reservation_id"] {
                assert_eq!(row[field], entry[field], "{field}");
            }
        }
    }
    let acts: Vec<(String, String)> =
        sqlx::query_as("select actor, target from operator_acts where act = 'export' order by id")
            .fetch_all(&entrance.pool)
            .await
            .unwrap();
    let expected = ["reservations", "tickets", "redemptions", "redemptions", "ledger"]
        .map(|kind| ("admin".to_owned(), kind.to_owned()));
    assert_eq!(acts, expected);
    entrance.test.check_books().await;
}

#[tokio::test]
async fn csv_is_quoted_escaped_and_continued() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    fill(&entrance.pool, 1_200).await;
    let answer = open(&entrance, &admin, "reservations?format=csv").await;
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    let disposition = answer.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(disposition.starts_with("attachment; filename=\"reservations-"), "{disposition}");
    assert!(disposition.ends_with(".csv\""), "{disposition}");
    let whole = answer.bytes().await.unwrap().to_vec();
    let all = records(&whole);
    assert_eq!(all.len(), 1_201);
    let column = |name: &str| all[0].iter().position(|own| own == name).unwrap();
    assert_eq!(&all[1][column("concert")], "'=HYPERLINK(\"http://evil\")");
    assert_eq!(&all[1][column("lines")], r#"[{"number":1,"price":100,"section":"-A"}]"#);
    assert_eq!(all[0].iter().next_back(), Some("cursor"));
    let ids: Vec<&str> = all[1..].iter().map(|record| &record[0]).collect();
    assert!(ids.is_sorted(), "by id");

    // What a client has whose connection broke in the middle of a row.
    let cut = &whole[..whole.len() / 2];
    let kept = &cut[..=cut.iter().rposition(|byte| *byte == b'\n').unwrap()];
    let cursor = records(kept).last().unwrap()[column("cursor")].to_owned();
    let answer = open(&entrance, &admin, &format!("reservations?format=csv&cursor={cursor}")).await;
    assert_eq!(answer.headers()["content-type"], "text/csv; charset=utf-8; header=absent");
    let rest = answer.bytes().await.unwrap();
    assert_eq!([kept, &rest].concat(), whole);

    let request = entrance.request(Method::GET, "/v1/admin/exports/reservations?format=csv", &admin);
    let packed = request.header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let (packed, mut unpacked) = (packed.bytes().await.unwrap(), Vec::new());
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, whole);
}

#[tokio::test]
async fn exports_take_an_admin_and_known_parameters() {
    let entrance = Entrance::start().await;
    let callers = [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate];
    for kind in KINDS {
        let path = format!("/v1/admin/exports/{kind}");
        entrance.get(&path, &Caller::anonymous()).await.is(401, "unauthenticated");
        entrance.get(&path, &entrance.user(0).await).await.is(401, "unauthenticated");
        entrance.get(&path, &entrance.client_key(&["booking"]).await).await.is(403, "forbidden");
        for role in callers {
            entrance.get(&path, &entrance.key(role).await).await.is(403, "forbidden");
        }
    }
    let admin = entrance.key(Role::Admin).await;
    let refused = async |path: &str, pointer: &str| {
        assert_eq!(
            entrance.get(&format!("/v1/admin/exports/{path}"), &admin).await.pointers(),
            [pointer],
            "{path}"
        );
    };
    refused("ledger?format=xml", "/format").await;
    refused("ledger?cursor=nothing", "/cursor").await;
    refused(&format!("ledger?cursor={}", "a".repeat(2_001)), "/cursor").await;
    refused("ledger?limit=5", "/limit").await;
    entrance.get("/v1/admin/exports/secrets", &admin).await.is(404, "not_found");
    // The charge of this user is in the ledger; its cursor is none of another export.
    entrance.user(5).await;
    let cursor = lines(&fetch(&entrance, &admin, "ledger").await)[0]["cursor"].as_str().unwrap().to_owned();
    refused(&format!("tickets?cursor={cursor}"), "/cursor").await;
    let empty = fetch(&entrance, &admin, "tickets?format=csv").await;
    assert!(empty.starts_with(b"id,reservation_id,") && records(&empty).len() == 1);
    assert!(fetch(&entrance, &admin, &format!("ledger?cursor={cursor}")).await.is_empty());
}

#[tokio::test]
async fn large_export_has_one_snapshot_and_little_memory() {
    let env = Env::start().await;
    let dir = env.dir.display().to_string();
    let roles = ["serve", "--role", "api,orchestrator,worker,scheduler", "--local", "--data-dir", &dir];
    let servers = [("DATABASE_URL", env.database_url.as_str()), ("NATS_URL", env.nats_url.as_str())];
    let process = Process::start_with(&roles, &servers).await;
    fill(&env.pool, MANY_ROWS).await;
    let NewKey { secret, hash } = NewKey::generate();
    api_keys::insert(&env.pool, ids::new(), "promoter", Role::Admin, &hash).await.unwrap();
    let pid = process.child.id().unwrap();
    let client = reqwest::Client::new();
    let url = format!("{}/v1/admin/exports/reservations", process.admin_url);
    let get = || client.get(&url).bearer_auth(&secret).send();
    // The first pages fill what any export needs.
    drop(get().await.unwrap().chunk().await.unwrap());
    until(10, "the first export to end", || async { get().await.is_ok_and(|answer| answer.status() == 200) })
        .await;
    let (before, mut most) = (resident_bytes(pid), 0);

    let mut answer = get().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut text = answer.chunk().await.unwrap().unwrap().to_vec();
    // The last rows are still to be read: they change, and others come.
    sqlx::raw_sql(
        "update reservations set status = 'cancelled' where id >= lpad(to_hex(40001), 32, '0')::uuid;
         insert into reservations (id, user_id, concert_id, performance_id, status, seats, created_at, updated_at)
         values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'failed', '{1}', now(), now())",
    )
    .execute(&env.pool)
    .await
    .unwrap();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        text.extend(chunk);
        most = most.max(resident_bytes(pid));
    }
    let rows = lines(&text);
    assert_eq!(rows.len() as i64, MANY_ROWS);
    assert!(rows.iter().all(|row| row["status"] == "confirmed"), "one snapshot");
    assert!(text.len() as u64 > GROWTH_BYTES_MAX + (5 << 20), "{} bytes", text.len());
    let growth = most.saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "the process grew by {growth} bytes for {} bytes", text.len());
    process.kill().await;
}

#[tokio::test]
async fn exports_are_bounded_in_number_and_time() {
    let entrance = Entrance::with(&["--export-seconds", "2"]).await;
    let admin = entrance.key(Role::Admin).await;
    fill(&entrance.pool, MANY_ROWS).await;
    // Neither of these clients reads.
    let first = open(&entrance, &admin, "reservations").await;
    let second = open(&entrance, &admin, "reservations").await;
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    let third = entrance.get("/v1/admin/exports/ledger", &admin).await;
    assert_eq!(third.is(429, "rate_limited")["limit"], 2);
    entrance
        .test
        .until(20, "the time of the exports to be over", || async {
            entrance.get("/v1/admin/exports/ledger", &admin).await.status == 200
        })
        .await;
    for mut cut_off in [first, second] {
        let mut text = Vec::new();
        let ended = loop {
            match cut_off.chunk().await {
                Ok(Some(chunk)) => text.extend(chunk),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert!(ended.is_err(), "an export that is cut off must not look whole: {} bytes", text.len());
    }
    // A client that hangs up gives its place back at once.
    let entrance = Entrance::with(&["--export-seconds", "3600"]).await;
    let admin = entrance.key(Role::Admin).await;
    fill(&entrance.pool, MANY_ROWS).await;
    for _ in 0..2 {
        drop(open(&entrance, &admin, "reservations").await);
    }
    entrance
        .test
        .until(30, "both places to be free", || async {
            let one = open(&entrance, &admin, "reservations").await;
            let other = open(&entrance, &admin, "reservations").await;
            one.status() == 200 && other.status() == 200
        })
        .await;
}

#[tokio::test]
async fn command_line_exports_into_a_file() {
    let (program, pool) = with_database().await;
    fill(&pool, 700).await;
    let dir = crate::common::fresh_dir("export");
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("all.csv").to_str().unwrap().to_owned();
    let made = program.json(0, &format!("export reservations --format csv --output {file}")).await;
    assert_eq!(made["rows"], 700);
    let written = std::fs::read(&file).unwrap();
    assert_eq!(records(&written).len(), 701);
    let again = program.run(&format!("export reservations --format csv --output {file}")).await;
    assert_eq!((again.code, again.err.contains("cannot be opened")), (1, true), "{}", again.err);
    assert_eq!(std::fs::read(&file).unwrap(), written, "an existing file stays as it is");

    let all = program.run("export reservations").await;
    let rows = lines(all.out.as_bytes());
    assert_eq!(rows.len(), 700);
    // The first part of the file, as an export that was cut off has left it.
    let kept: String = all.out.lines().take(300).map(|line| format!("{line}\n")).collect();
    let part = dir.join("part.ndjson").to_str().unwrap().to_owned();
    std::fs::write(&part, kept).unwrap();
    let cursor = rows[299]["cursor"].as_str().unwrap();
    let rest = program.json(0, &format!("export reservations --cursor {cursor} --output {part}")).await;
    assert_eq!(rest["rows"], 400);
    assert_eq!(std::fs::read_to_string(&part).unwrap(), all.out);
    assert_eq!(program.run(&format!("export ledger --cursor {cursor}")).await.code, 2);
    assert_eq!(program.run("export secrets").await.code, 2);
    let acts: i64 =
        sqlx::query_scalar("select count(*) from operator_acts where act = 'export' and actor like 'cli:%'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(acts, 3, "each export that began");
}
