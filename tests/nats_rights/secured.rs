//! Connections by TLS, with a key, and with a credentials file.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use boxoffice::bus;
use boxoffice::config::NatsAccess;
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::Nats;
use crate::common::fresh_dir;

fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(name)
}

fn server(conf: &str) -> Nats {
    let dir = fresh_dir("secured");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("nats.conf"), conf).unwrap();
    Nats::run(dir, "nats.conf")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_a_certificate_open_the_door() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let user = KeyPair::new_user();
    let path = |name: &str| certificate(name).display().to_string();
    let nats = server(&format!(
        "jetstream {{}}\nauthorization {{ users: [{{ nkey: {} }}] }}\n\
         tls {{ cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true }}\n",
        user.public_key(),
        path("server.pem"),
        path("server-key.pem"),
        path("ca.pem"),
    ));
    let seed = nats.dir.join("seed");
    std::fs::write(&seed, format!("{}\n", user.seed().unwrap())).unwrap();
    let good = NatsAccess {
        nats_nkey: Some(seed),
        nats_ca: Some(certificate("ca.pem")),
        nats_cert: Some(certificate("client.pem")),
        nats_key: Some(certificate("client-key.pem")),
        nats_tls: true,
        ..NatsAccess::default()
    };
    let url = format!("tls://127.0.0.1:{}", nats.port);
    drop(nats.connected(&url, &good).await);

    let refused = async |access: NatsAccess| bus::connect_as(&url, "test", 1, &access).await.unwrap_err();
    refused(NatsAccess { nats_ca: None, ..good.clone() }).await;
    refused(NatsAccess { nats_cert: None, nats_key: None, ..good.clone() }).await;
    let other = nats.dir.join("other");
    std::fs::write(&other, KeyPair::new_user().seed().unwrap()).unwrap();
    let error = refused(NatsAccess { nats_nkey: Some(other), ..good.clone() }).await.to_string();
    assert!(error.contains("refuses the user"), "{error}");
    let error = refused(NatsAccess { nats_nkey: Some(nats.dir.join("none")), ..good }).await.to_string();
    assert!(error.contains("BOXOFFICE_NATS_NKEY") && error.contains("none"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_demanded_where_it_is_set() {
    let _installed = rustls::crypto::ring::default_provider().install_default();
    let nats = server("jetstream {}\n");
    let url = format!("nats://127.0.0.1:{}", nats.port);
    drop(nats.connected(&url, &NatsAccess::default()).await);
    let demanding = NatsAccess { nats_tls: true, ..NatsAccess::default() };
    assert!(bus::connect_as(&url, "test", 1, &demanding).await.is_err());
}

/// A JWT as NATS has them: signed by the issuer, about the subject.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, kind: &str, more: &Value) -> String {
    let mut nats = json!({ "type": kind, "version": 2 });
    nats.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": nats,
    });
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credentials_file_names_the_user() {
    let (operator, account, system, user) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account(), KeyPair::new_user());
    let limits = json!({ "limits": {
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
        "leaf": -1, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    }});
    let bare = json!({ "limits": { "subs": -1, "data": -1, "payload": -1, "conn": -1 } });
    let nats = server(&format!(
        "jetstream {{}}\noperator: {}\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload: {{ {}: {}, {}: {} }}\n",
        jwt(&operator, &operator, "operator", "operator", &json!({})),
        system.public_key(),
        account.public_key(),
        jwt(&operator, &account, "boxoffice", "account", &limits),
        system.public_key(),
        jwt(&operator, &system, "system", "account", &bare),
    ));
    let creds = nats.dir.join("user.creds");
    let token = jwt(&account, &user, "api", "user", &json!({ "subs": -1, "data": -1, "payload": -1 }));
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    std::fs::write(&creds, text).unwrap();
    let url = format!("nats://127.0.0.1:{}", nats.port);
    let access = NatsAccess { nats_creds: Some(creds), ..NatsAccess::default() };
    drop(nats.connected(&url, &access).await);
    assert!(bus::connect(&url, "test", 1).await.is_err(), "without credentials it stays closed");
}
