//! The secrets of queue tokens are exchanged without losing a place, and a token that none of them has signed is
//! refused without a lookup.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::app::QUEUE_SECRET;
use crate::common::http::{Caller, Entrance};

const NEXT: &str = "the next secret of the tests, as long as the others";
const CURRENT: &str = "/v1/queue-tokens/current";

fn with_token(caller: &Caller, place: &Value) -> Caller {
    caller.with("queue-token", place["token"].as_str().unwrap())
}

#[tokio::test]
async fn queue_secret_is_rotated_without_losing_a_place() {
    let entrance = Entrance::start().await;
    let early = entrance.admitted(0).await;
    let both = ["--queue-secret", NEXT, "--queue-previous-secrets", QUEUE_SECRET];
    let entrance = entrance.restarted(&both).await;
    entrance.reserve(&early, &[1]).await.good(201);
    let place = entrance.get(CURRENT, &early).await.good(200).clone();
    assert_eq!(place["status"], "active");
    let renewed = with_token(&early, &place);
    assert_ne!(renewed.header("queue-token"), early.header("queue-token"), "signed with the next secret");
    entrance.reserve(&renewed, &[2]).await.good(201);
    let late = entrance.admitted(0).await;

    let entrance = entrance.restarted(&["--queue-secret", NEXT]).await;
    entrance.get(CURRENT, &early).await.is(403, "queue_token_invalid");
    entrance.reserve(&early, &[3]).await.is(403, "queue_token_invalid");
    entrance.reserve(&renewed, &[3]).await.good(201);
    entrance.reserve(&late, &[4]).await.good(201);
}

#[tokio::test]
async fn guessable_secret_is_refused_at_start() {
    let env = crate::common::Env::start().await;
    let program = crate::common::program::Program::of(&env).with("BOXOFFICE_QUEUE_SECRET", NEXT);
    let program = program.with("BOXOFFICE_QUEUE_PREVIOUS_SECRETS", &format!("{QUEUE_SECRET},short"));
    let ran =
        program.with("BOXOFFICE_ACCESS_SECRET", NEXT).run("serve --role api --listen 127.0.0.1:0").await;
    assert_eq!(ran.code, 1);
    let told = "each of BOXOFFICE_QUEUE_PREVIOUS_SECRETS must have 32 bytes or more";
    assert!(ran.err.contains(told), "{}", ran.err);
}

#[tokio::test]
async fn production_refuses_weak_or_shared_secrets() {
    let env = crate::common::Env::start().await;
    let check = async |access: &str, queue: &str, previous: &str, expected: &str| {
        let program = crate::common::program::Program::of(&env)
            .with("BOXOFFICE_ACCESS_SECRET", access)
            .with("BOXOFFICE_QUEUE_SECRET", queue)
            .with("BOXOFFICE_QUEUE_PREVIOUS_SECRETS", previous);
        let ran = program.run("serve --role api --listen 127.0.0.1:0").await;
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(ran.err.contains(expected), "{}", ran.err);
    };
    const OTHER: &str = "f3a19c0e7b52d84466c1e0b7a9d2583f";
    // Commas divide earlier secrets, so this one has none.
    const NEXT: &str = "0b7d41f92c6ea853d1f0947be2c8563a";
    check(NEXT, NEXT, OTHER, "BOXOFFICE_ACCESS_SECRET is also a secret of BOXOFFICE_QUEUE_SECRET").await;
    check(NEXT, OTHER, NEXT, "is also a secret of BOXOFFICE_QUEUE_PREVIOUS_SECRETS").await;
    check(&"a".repeat(64), NEXT, OTHER, "BOXOFFICE_ACCESS_SECRET has too few different characters").await;
    check(OTHER, &"ab".repeat(32), NEXT, "BOXOFFICE_QUEUE_SECRET has too few different characters").await;
}

#[tokio::test]
async fn ticket_secret_must_be_its_own_and_its_keys_good() {
    let env = crate::common::Env::start().await;
    const ACCESS: &str = "f3a19c0e7b52d84466c1e0b7a9d2583f";
    const QUEUE: &str = "0b7d41f92c6ea853d1f0947be2c8563a";
    const TICKET: &str = "7c20b9e5d1f8a6340e5bd7913ac4f862";
    let check = async |settings: &[(&'static str, &str)], expected: &str| {
        let program = crate::common::program::Program::of(&env)
            .with("BOXOFFICE_ACCESS_SECRET", ACCESS)
            .with("BOXOFFICE_QUEUE_SECRET", QUEUE);
        let program = settings.iter().fold(program, |program, (name, value)| program.with(name, value));
        let ran = program.run("serve --role api --listen 127.0.0.1:0").await;
        assert_eq!(ran.code, 1, "{}", ran.err);
        assert!(ran.err.contains(expected), "{}", ran.err);
    };
    check(&[("BOXOFFICE_TICKET_SECRET", QUEUE)], "BOXOFFICE_TICKET_SECRET is also a secret of").await;
    let wrong_key = [("BOXOFFICE_TICKET_SECRET", TICKET), ("BOXOFFICE_TICKET_PUBLIC_KEYS", "abc")];
    check(&wrong_key, "\"abc\" is not the public key of ticket codes").await;
}

#[tokio::test]
async fn logs_show_no_nats_password() {
    let env = crate::common::Env::start().await;
    let password = env.nats_url.split(['/', ':', '@']).nth_back(2).unwrap();
    assert!(password.len() >= 16, "the private server asks for a password");
    let program = crate::common::program::Program::of(&env);
    for filter in ["trace", "async_nats=trace,info", "async_nats::connection=trace"] {
        let ran = program.also("RUST_LOG", filter).run("doctor").await;
        assert!(ran.out.contains("with JetStream"), "it was connected: {}", ran.out);
        assert!(!ran.err.contains(password), "{filter}");
        assert!(filter != "trace" || ran.err.contains("DEBUG"), "the filter counts: {}", ran.err);
    }
}

/// The claims of a token, signed in another way.
fn signed(token: &str, algorithm: Algorithm, kid: Option<&str>, secret: &str) -> String {
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: Value = serde_json::from_slice(&body).unwrap();
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused_during_outages() {
    let entrance = Entrance::start().await;
    let (buyer, other) = (entrance.admitted(0).await, entrance.admitted(0).await);
    let token = buyer.header("queue-token");
    let kid = jsonwebtoken::decode_header(token).unwrap().kid.unwrap();
    entrance.kill_nats();
    entrance.pool.close().await;
    entrance.get("/v1/points", &buyer).await.is(503, "unavailable");
    assert_eq!(entrance.get(CURRENT, &buyer).await.good(200)["status"], "active", "memory is enough");

    let same = signed(token, Algorithm::HS256, Some(&kid), QUEUE_SECRET);
    entrance.get(CURRENT, &buyer.with("queue-token", &same)).await.good(200);
    let (head, rest) = token.split_once('.').unwrap();
    let (body, _) = rest.split_once('.').unwrap();
    let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none", "typ": "JWT", "kid": kid }).to_string());
    let forged = [
        ("another secret", signed(token, Algorithm::HS256, Some(&kid), NEXT)),
        ("an unknown key", signed(token, Algorithm::HS256, Some("00000000"), QUEUE_SECRET)),
        ("no key", signed(token, Algorithm::HS256, None, QUEUE_SECRET)),
        ("another algorithm", signed(token, Algorithm::HS384, Some(&kid), QUEUE_SECRET)),
        ("no algorithm", format!("{none}.{body}.")),
        ("no signature", format!("{head}.{body}.")),
        ("nothing of a token", "rubbish".to_owned()),
    ];
    for (what, forged) in &forged {
        let caller = buyer.with("queue-token", forged);
        for (method, path) in [
            (Method::GET, CURRENT.to_owned()),
            (Method::GET, format!("{CURRENT}/events")),
            (Method::DELETE, CURRENT.to_owned()),
        ] {
            let reply = entrance.send(method, &path, &caller, None).await;
            assert_eq!(
                (reply.status, &reply.body["code"]),
                (403, &"queue_token_invalid".into()),
                "{what} {path}"
            );
        }
    }
    let theirs = buyer.with("queue-token", other.header("queue-token"));
    entrance.get(CURRENT, &theirs).await.is(403, "queue_token_wrong_user");
}
