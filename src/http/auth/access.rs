//! Access tokens: JWTs whose `sub` is the user's UUID. In production they are only verified, by a shared
//! secret or by the keys of an identity provider; in local mode they are issued here as well.

use std::sync::Arc;

use chrono::TimeDelta;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, decode_header, encode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::super::error::Code;
use super::super::problem::Problem;
use super::super::rate_limit::{RateExceeded, RateLimit};
use super::jwks::Jwks;
use super::unauthenticated;
use crate::clock::{Clock, LATEST};
use crate::config;
use crate::ids::UserId;

/// How long an access token issued in local mode lives.
const LOCAL_TOKEN_AGE: TimeDelta = TimeDelta::days(7);
/// Below this a secret can be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// Why access tokens cannot be verified with these settings.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("set BOXOFFICE_ACCESS_SECRET or BOXOFFICE_JWKS: access tokens cannot be verified without either")]
    NoKey,
    #[error("BOXOFFICE_ACCESS_SECRET has {0} bytes; it takes 32 or more")]
    ShortSecret(usize),
    #[error("BOXOFFICE_JWKS {0}")]
    Jwks(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: Uuid,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aud: Option<Audience>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

enum Verifier {
    Secret { decoding: DecodingKey, encoding: EncodingKey, validation: Box<Validation> },
    Provider(Jwks),
}

/// Verifies access tokens, and issues them in local mode. Clones share their keys.
#[derive(Clone)]
pub struct Access(Arc<Inner>);

struct Inner {
    verifier: Verifier,
    local: bool,
    issuer: Option<String>,
    audience: Option<String>,
    clock: Clock,
    pace: RateLimit<UserId>,
}

impl Access {
    /// Takes the keys from the settings. A file of keys is read now, an address is asked when first needed.
    pub fn new(settings: &config::Http, clock: Clock) -> Result<Self, AccessError> {
        let verifier = match (&settings.jwks, &settings.access_secret) {
            (Some(source), _) => Verifier::Provider(Jwks::open(source).map_err(AccessError::Jwks)?),
            (None, Some(secret)) if secret.len() < SECRET_BYTES_MIN => {
                return Err(AccessError::ShortSecret(secret.len()));
            }
            (None, Some(secret)) => Verifier::Secret {
                decoding: DecodingKey::from_secret(secret.as_bytes()),
                encoding: EncodingKey::from_secret(secret.as_bytes()),
                validation: Box::new(signature_by(Algorithm::HS256)),
            },
            (None, None) => return Err(AccessError::NoKey),
        };
        Ok(Self(Arc::new(Inner {
            verifier,
            local: settings.local,
            issuer: settings.access_issuer.clone(),
            audience: settings.access_audience.clone(),
            clock,
            pace: RateLimit::per_second(settings.user_requests_per_second),
        })))
    }

    /// Whether users are made here and may charge their own points.
    pub fn is_local(&self) -> bool {
        self.0.local
    }

    /// A token for a user, in local mode with a shared secret; else nothing.
    pub fn issue(&self, user: UserId) -> Option<String> {
        let Verifier::Secret { encoding, .. } = &self.0.verifier else {
            return None;
        };
        if !self.0.local {
            return None;
        }
        let now = self.0.clock.now();
        let seconds = |time: chrono::DateTime<chrono::Utc>| Some(time.timestamp() as f64);
        let claims = Claims {
            sub: user,
            exp: seconds(now + LOCAL_TOKEN_AGE),
            nbf: None,
            iat: seconds(now),
            iss: self.0.issuer.clone(),
            aud: self.0.audience.clone().map(Audience::One),
        };
        encode(&Header::new(Algorithm::HS256), &claims, encoding).ok()
    }

    /// Forgets users who have not called for a while.
    pub fn remove_idle(&self) {
        self.0.pace.remove_idle();
    }

    /// Keeps the keys of the identity provider fresh, in the background. To be called now and then.
    pub fn refresh_keys(&self) {
        if let Verifier::Provider(jwks) = &self.0.verifier {
            jwks.refresh();
        }
    }

    /// The user a token names, or 401 saying what is wrong with it; 429 for a user who calls too often.
    pub(super) async fn verify(&self, token: &str) -> Result<UserId, Problem> {
        let claims = match &self.0.verifier {
            Verifier::Secret { decoding, validation, .. } => read(token, decoding, validation)?,
            Verifier::Provider(jwks) => {
                let header = decode_header(token).map_err(|_| not_a_token())?;
                let key = jwks.key(&header).await?;
                let claims = read(token, &key, &signature_by(header.alg))?;
                if claims.exp.is_none() {
                    return Err(unauthenticated("The access token has no `exp`: it would never run out."));
                }
                claims
            }
        };
        self.check(&claims)?;
        match self.0.pace.check(&claims.sub) {
            Ok(()) => Ok(claims.sub),
            Err(RateExceeded { most, wait }) => {
                let detail = format!("A user may send {most} requests a second. Wait a second.");
                Err(Problem::new(Code::RateLimited, detail).with("limit", most).after(wait))
            }
        }
    }

    /// Times, issuer and audience. Times are compared with the clock that follows the database's.
    fn check(&self, claims: &Claims) -> Result<(), Problem> {
        let now = self.0.clock.now().timestamp_millis() as f64 / 1_000.0;
        if [claims.exp, claims.nbf, claims.iat].into_iter().flatten().any(|time| !is_plausible(time)) {
            return Err(unauthenticated("The access token names a time before 1970 or after 2200."));
        }
        if claims.exp.is_some_and(|exp| exp <= now) {
            return Err(unauthenticated("The access token has run out; get a new one."));
        }
        if claims.nbf.is_some_and(|nbf| nbf > now) {
            return Err(unauthenticated("The access token is not valid yet."));
        }
        if self.0.issuer.is_some() && claims.iss != self.0.issuer {
            return Err(unauthenticated("The access token names another issuer."));
        }
        match (&self.0.audience, &claims.aud) {
            (None, _) => Ok(()),
            (Some(wanted), Some(Audience::One(named))) if named == wanted => Ok(()),
            (Some(wanted), Some(Audience::Several(named))) if named.contains(wanted) => Ok(()),
            _ => Err(unauthenticated("The access token is meant for another audience.")),
        }
    }
}

/// Whether seconds since 1970 lie in the range of times that come from outside. Some providers write 0 for "from the beginning".
fn is_plausible(seconds: f64) -> bool {
    (0.0..=LATEST.timestamp() as f64).contains(&seconds)
}

/// Nothing but a signature of this kind. Times, issuer and audience are checked against our own clock and settings, in
/// `Access::check`.
fn signature_by(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

fn read(token: &str, key: &DecodingKey, validation: &Validation) -> Result<Claims, Problem> {
    let token = decode::<Claims>(token, key, validation).map_err(|_| not_a_token())?;
    // Who names a critical extension wants it understood, and none is known here (RFC 7515, section 4.1.11).
    if token.header.crit.is_some() {
        return Err(unauthenticated("The access token names critical extensions, and none is known here."));
    }
    Ok(token.claims)
}

fn not_a_token() -> Problem {
    unauthenticated("The access token is malformed or forged, or its `sub` is not a UUID.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    const SECRET: &str = "a secret of at least thirty-two bytes";

    fn settings() -> config::Http {
        config::Http {
            admin_listen: None,
            cors_origins: Vec::new(),
            listen: ([127, 0, 0, 1], 0).into(),
            local: true,
            access_secret: Some(SECRET.to_owned()),
            jwks: None,
            access_issuer: None,
            access_audience: None,
            user_requests_per_second: 0,
            queue_secret: None,
            ticket_secret: None,
            ticket_public_keys: Vec::new(),
            queue_previous_secrets: Vec::new(),
            client_seconds: 40,
            keep_alive_seconds: 75,
            max_connections: 10,
            max_connections_per_address: 0,
            trusted_proxies: Vec::new(),
            cache: config::Switch::On,
            shop: None,
            trace_url: None,
        }
    }

    fn sign(claims: &serde_json::Value, secret: &str, algorithm: Algorithm) -> String {
        encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
    }

    async fn verify(settings: config::Http, claims: serde_json::Value) -> Option<UserId> {
        let access = Access::new(&settings, Clock::default()).unwrap();
        access.verify(&sign(&claims, SECRET, Algorithm::HS256)).await.ok()
    }

    #[tokio::test]
    async fn what_is_issued_is_accepted() {
        let access = Access::new(&settings(), Clock::default()).unwrap();
        let user = crate::ids::new();
        assert_eq!(access.verify(&access.issue(user).unwrap()).await.unwrap(), user);
    }

    #[tokio::test]
    async fn production_issues_nothing() {
        let access = Access::new(&config::Http { local: false, ..settings() }, Clock::default()).unwrap();
        assert_eq!(access.issue(crate::ids::new()), None);
    }

    #[tokio::test]
    async fn expired_early_and_nameless_tokens_are_refused() {
        let user = crate::ids::new();
        let now = Clock::default().now().timestamp();
        let with = |exp: i64, nbf: i64| serde_json::json!({ "sub": user, "exp": exp, "nbf": nbf });
        assert_eq!(verify(settings(), with(now + 60, now - 60)).await, Some(user));
        assert_eq!(verify(settings(), with(now - 1, now - 60)).await, None);
        assert_eq!(verify(settings(), with(now + 60, now + 30)).await, None);
        assert_eq!(
            verify(settings(), serde_json::json!({ "sub": "not-a-uuid", "exp": now + 60 })).await,
            None
        );
        assert_eq!(verify(settings(), serde_json::json!({ "exp": now + 60 })).await, None);
    }

    #[tokio::test]
    async fn forged_tokens_are_refused() {
        let access = Access::new(&settings(), Clock::default()).unwrap();
        let claims = serde_json::json!({ "sub": crate::ids::new() });
        assert!(access.verify(&sign(&claims, SECRET, Algorithm::HS256)).await.is_ok());
        assert!(
            access
                .verify(&sign(&claims, "some other secret of enough bytes", Algorithm::HS256))
                .await
                .is_err()
        );
        assert!(access.verify(&sign(&claims, SECRET, Algorithm::HS512)).await.is_err());
        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIwMTkyMDAwMC0wMDAwLTcwMDAtODAwMC0wMDAwMDAwMDAwMDAifQ.";
        assert!(access.verify(unsigned).await.is_err());
        assert!(access.verify("bo_key").await.is_err());
    }

    #[tokio::test]
    async fn issuer_and_audience_count_when_they_are_set() {
        let strict = config::Http {
            access_issuer: Some("https://id.example".to_owned()),
            access_audience: Some("boxoffice".to_owned()),
            ..settings()
        };
        let user = crate::ids::new();
        let with =
            |iss: &str, aud: serde_json::Value| serde_json::json!({ "sub": user, "iss": iss, "aud": aud });
        let good = "https://id.example";
        assert_eq!(verify(strict.clone(), with(good, "boxoffice".into())).await, Some(user));
        assert_eq!(
            verify(strict.clone(), with(good, serde_json::json!(["x", "boxoffice"]))).await,
            Some(user)
        );
        assert_eq!(verify(strict.clone(), with("https://else", "boxoffice".into())).await, None);
        assert_eq!(verify(strict.clone(), with(good, "other".into())).await, None);
        assert_eq!(verify(strict, serde_json::json!({ "sub": user })).await, None);
        assert_eq!(verify(settings(), with("https://anyone", "other".into())).await, Some(user));
    }

    #[tokio::test]
    async fn only_the_public_key_verifies_provider_tokens() {
        // The key pair of RFC 8037, appendix A, the private one wrapped as PKCS #8.
        let public = r#"{ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "one",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }] }"#;
        let private = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let wrapping = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
        let private = EncodingKey::from_ed_der(&[&wrapping[..], &private].concat());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), public).unwrap();
        let jwks = file.path().to_str().map(str::to_owned);
        let access = Access::new(&config::Http { jwks, ..settings() }, Clock::default()).unwrap();
        let user = crate::ids::new();
        let claims = serde_json::json!({ "sub": user, "exp": Clock::default().now().timestamp() + 60 });
        let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::EdDSA) };
        assert_eq!(access.verify(&encode(&header, &claims, &private).unwrap()).await.unwrap(), user);
        let endless = serde_json::json!({ "sub": user });
        assert!(access.verify(&encode(&header, &endless, &private).unwrap()).await.is_err(), "no exp");
        let critical = Header { crit: Some(vec!["b64".to_owned()]), ..header };
        assert!(access.verify(&encode(&critical, &claims, &private).unwrap()).await.is_err(), "crit");
        assert!(access.verify(&sign(&claims, SECRET, Algorithm::HS256)).await.is_err());
        assert_eq!(access.issue(user), None, "a provider's tokens are the provider's to issue");
    }

    #[test]
    fn weak_or_missing_keys_fail_the_start() {
        let without = config::Http { access_secret: None, ..settings() };
        assert!(matches!(Access::new(&without, Clock::default()), Err(AccessError::NoKey)));
        let short = config::Http { access_secret: Some("short".to_owned()), ..settings() };
        assert!(matches!(Access::new(&short, Clock::default()), Err(AccessError::ShortSecret(5))));
    }
}
