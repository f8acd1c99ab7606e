//! What is kept about a user: exported as a whole, and removed as far as the books allow.

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use serde_json::{Value, json};

use crate::common::http::{Caller, Entrance};
use crate::common::program::Program;

/// A user of local mode with a name, points, a place in line, a purchase, and acts of operators that speak of the user.
async fn known_user(entrance: &Entrance) -> (Caller, String) {
    let user = entrance.admitted(1_000).await;
    sqlx::query("insert into users (id, name) values ($1, 'Ada Lovelace')")
        .bind(user.id)
        .execute(&entrance.pool)
        .await
        .unwrap();
    let held = entrance.reserve(&user.with("idempotency-key", "mine"), &[7]).await.good(201).clone();
    entrance.pay(&user, &held).await.good(201);
    let reservation = held["id"].as_str().unwrap().to_owned();
    sqlx::query(
        "insert into operator_acts (at, actor, act, saga_id, target, reason, from_status, to_status) values
             (now(), 'night', 'pause', $1::uuid, null, 'Ada called', 'running', 'running'),
             (now(), 'night', 'note', null, 'reservation ' || $1, 'Ada wrote', '', ''),
             (now(), 'night', 'queue.pause', null, $2, 'a fire alarm', '', '')",
    )
    .bind(&reservation)
    .bind(entrance.test.concert.to_string())
    .execute(&entrance.pool)
    .await
    .unwrap();
    sqlx::query("insert into saga_attributes (saga_id, name, value) values ($1::uuid, 'seat_of', '\"Ada\"')")
        .bind(&reservation)
        .execute(&entrance.pool)
        .await
        .unwrap();
    sqlx::query(
        "insert into redemptions (id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id, status,
                                  undone_at, undone_by, reason)
         select gen_random_uuid(), id, reservation_id, performance_id, seat, 'north', now(), gen_random_uuid(), 'undone',
                now(), 'desk', 'Ada went home'
         from tickets where reservation_id = $1::uuid",
    )
    .bind(&reservation)
    .execute(&entrance.pool)
    .await
    .unwrap();
    (user, reservation)
}

fn rows(data: &Value, list: &str) -> usize {
    data[list].as_array().unwrap_or_else(|| panic!("{list} in {data}")).len()
}

#[tokio::test]
async fn export_has_all_rows_of_a_user_and_no_other() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let (user, reservation) = known_user(&entrance).await;
    let stranger = entrance.admitted(500).await;
    entrance.reserve(&stranger, &[8]).await.good(201);
    let path = format!("/v1/admin/users/{}/export", user.id);
    entrance
        .test
        .until(20, "the place to be in the journal", || async {
            let data = entrance.get(&path, &admin).await.good(200).clone();
            rows(&data, "queue_places") == 1 && rows(&data, "requests") == 1
        })
        .await;
    let reply = entrance.get(&path, &admin).await;
    let data = reply.good(200);
    let file = format!("attachment; filename=\"user-{}.json\"", user.id);
    assert_eq!(reply.headers["content-disposition"], file.as_str());
    assert_eq!((&data["user"]["name"], &data["account"]["balance"]), (&json!("Ada Lovelace"), &json!(900)));
    let counted = [
        ("reservations", 1),
        ("payments", 1),
        ("tickets", 1),
        ("ledger_entries", 2),
        ("redemptions", 1),
        ("sagas", 1),
        ("saga_attributes", 1),
        ("requests", 1),
        ("parked_messages", 0),
        ("batch_jobs", 0),
    ];
    for (list, count) in counted {
        assert_eq!(rows(data, list), count, "{list}: {data:#}");
    }
    assert_eq!(data["reservations"][0]["id"], reservation.as_str());
    assert_eq!(data["sagas"][0]["input"]["user_id"], user.id.to_string());
    assert!(rows(data, "saga_history") > 3);
    let acts: Vec<&str> =
        data["operator_acts"].as_array().unwrap().iter().map(|act| act["act"].as_str().unwrap()).collect();
    assert_eq!(&acts[..2], ["pause", "note"]);
    assert!(
        acts[2..].iter().all(|act| *act == "user.export") && acts.len() > 2,
        "each export is an act: {acts:?}"
    );
    assert!(!data.to_string().contains(&stranger.id.to_string()));

    let program = Program::of(&entrance.test.env);
    entrance
        .test
        .until(20, "the command line to show the same, between two uses of the place", || async {
            let shown = program.json(0, &format!("user export {}", user.id)).await;
            let data = entrance.get(&path, &admin).await.good(200).clone();
            let lists =
                ["user", "account", "reservations", "tickets", "ledger_entries", "sagas", "queue_places"];
            lists.iter().all(|list| shown[list] == data[list])
        })
        .await;
}

#[tokio::test]
async fn forgetting_removes_texts_and_keeps_the_books() {
    let entrance = Entrance::start().await;
    let admin = entrance.key(Role::Admin).await;
    let (user, reservation) = known_user(&entrance).await;
    let path = format!("/v1/admin/users/{}/forgetting", user.id);
    let done =
        entrance.post(&path, &admin, json!({ "reason": "asked by letter 17" })).await.good(200).clone();
    // The saga of a paid booking has ended, so its attributes go too.
    let expected = json!({ "user_id": user.id, "name_removed": true, "act_reasons_removed": 2, "batch_reasons_removed": 0, "redemption_reasons_removed": 1, "support_reasons_removed": 0, "attributes_removed": 1 });
    assert_eq!(done, expected);
    let data = entrance.get(&format!("/v1/admin/users/{}/export", user.id), &admin).await.good(200).clone();
    assert!(!data.to_string().contains("Ada"), "{data:#}");
    assert_eq!((&data["user"], &data["account"]["balance"]), (&Value::Null, &json!(900)));
    assert_eq!(
        [rows(&data, "tickets"), rows(&data, "ledger_entries"), rows(&data, "reservations")],
        [1, 2, 1]
    );
    let reasons: Vec<(String, String)> = sqlx::query_as("select act, reason from operator_acts order by id")
        .fetch_all(&entrance.pool)
        .await
        .unwrap();
    let of = |act: &str| reasons.iter().find(|(own, _)| own == act).map(|(_, reason)| reason.as_str());
    assert_eq!((of("pause"), of("note")), (Some("(removed)"), Some("(removed)")));
    assert_eq!(of("queue.pause"), Some("a fire alarm"), "an act on something else");
    assert_eq!(of("user.forget"), Some("asked by letter 17"));

    // The buyer goes on as before, and a second time removes nothing.
    entrance.get(&format!("/v1/reservations/{reservation}"), &user).await.good(200);
    entrance.cancel(&user, &json!({ "id": reservation })).await.good(200);
    let words =
        ["user", "forget", &user.id.to_string(), "--reason", "asked again", "--json"].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let again = Program::of(&entrance.test.env).run_words(&words).await;
    let again: Value =
        serde_json::from_str(&again.out).unwrap_or_else(|_| panic!("{}{}", again.out, again.err));
    assert_eq!((&again["name_removed"], &again["act_reasons_removed"]), (&json!(false), &json!(0)));
    entrance.test.check_books().await;
}

#[tokio::test]
async fn personal_data_takes_an_admin_and_a_known_user() {
    let entrance = Entrance::start().await;
    let user = entrance.user(5).await;
    let (export, forget) =
        (format!("/v1/admin/users/{}/export", user.id), format!("/v1/admin/users/{}/forgetting", user.id));
    let why = json!({ "reason": "asked" });
    for caller in [Caller::anonymous(), user.clone()] {
        entrance.get(&export, &caller).await.is(401, "unauthenticated");
        entrance.post(&forget, &caller, why.clone()).await.is(401, "unauthenticated");
    }
    for role in [Role::Viewer, Role::Operator, Role::Cashier, Role::Support, Role::Gate] {
        let key = entrance.key(role).await;
        entrance.get(&export, &key).await.is(403, "forbidden");
        entrance.post(&forget, &key, why.clone()).await.is(403, "forbidden");
    }
    let admin = entrance.key(Role::Admin).await;
    entrance.get(&export, &admin).await.good(200);
    assert_eq!(entrance.post(&forget, &admin, json!({ "reason": "" })).await.pointers(), ["/reason"]);
    for id in [ids::new().to_string(), "nothing".to_owned()] {
        entrance.get(&format!("/v1/admin/users/{id}/export"), &admin).await.is(404, "not_found");
        entrance
            .post(&format!("/v1/admin/users/{id}/forgetting"), &admin, why.clone())
            .await
            .is(404, "not_found");
    }
    let program = Program::of(&entrance.test.env);
    let unknown = program.run(&format!("user export {}", ids::new())).await;
    assert_eq!((unknown.code, unknown.err.contains("nothing is kept")), (1, true), "{}", unknown.err);
    assert_eq!(program.run(&format!("user forget {}", user.id)).await.code, 2, "it takes a reason");
}
