//! Access tokens that no provider should sign, and texts that are no tokens: each is refused, or names a user for a time that is
//! in range.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Parser;
use futures::executor::block_on;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::Access;
use crate::clock::{Clock, LATEST};
use crate::config;
use crate::hostile::like;

const SECRET: &str = "a secret of at least thirty-two bytes";

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: config::Http,
}

fn access() -> Access {
    let settings = Flags::parse_from(["test", "--access-secret", SECRET]).settings;
    Access::new(&settings, Clock::default()).unwrap()
}

/// A token of these parts, signed as ours are.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let parts = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = crypto::sign(parts.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{parts}.{signature}")
}

fn header() -> Value {
    json!({ "typ": "JWT", "alg": "HS256", "kid": "one" })
}

fn claims() -> Value {
    let now = Clock::default().now().timestamp();
    json!({
        "sub": Uuid::from_u128(7), "exp": now + 600, "nbf": now - 600, "iat": now - 600, "iss": "https://id.example",
        "aud": ["boxoffice", "another"],
    })
}

/// A token that is accepted names a user, and times that are in range and say that it holds now.
fn check(access: &Access, token: &str) {
    let Ok(user) = block_on(access.verify(token)) else { return };
    let claims = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["sub"].as_str().unwrap().parse::<Uuid>().unwrap(), user);
    let now = Clock::default().now().timestamp() as f64;
    for name in ["exp", "nbf", "iat"] {
        let time = claims.get(name).filter(|time| !time.is_null()).map(|time| time.as_f64().unwrap());
        let latest = LATEST.timestamp() as f64;
        assert!(time.is_none_or(|time| (0.0..=latest).contains(&time)), "{name}: {claims}");
        match name {
            "exp" => assert!(time.is_none_or(|time| time >= now), "{claims}"),
            "nbf" => assert!(time.is_none_or(|time| time <= now + 1.0), "{claims}"),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn access_tokens_are_read_or_refused(
        claims in like(claims()),
        header in prop_oneof![3 => Just(header().to_string().into_bytes()), 1 => like(header())],
        text in ".{0,100}",
        cut in any::<prop::sample::Index>(),
    ) {
        let access = access();
        let token = signed(&header, &claims);
        check(&access, &token);
        for forged in [&token[..cut.index(token.len())], &text, &format!("{text}.{text}.{text}")] {
            prop_assert!(block_on(access.verify(forged)).is_err(), "{}", forged);
        }
    }
}

#[test]
fn valid_tokens_pass_far_times_are_refused() {
    let access = access();
    let token = |claims: Value| signed(header().to_string().as_bytes(), claims.to_string().as_bytes());
    assert_eq!(block_on(access.verify(&token(claims()))).unwrap(), Uuid::from_u128(7));
    for (name, time) in [("exp", 1e12), ("exp", 1e300), ("nbf", -1.0), ("iat", -1e300), ("iat", 1e12)] {
        let mut claims = claims();
        claims[name] = time.into();
        assert!(block_on(access.verify(&token(claims.clone()))).is_err(), "{claims}");
    }
}
