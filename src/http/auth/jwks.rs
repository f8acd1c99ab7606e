//! The public keys of an identity provider: from a file, or from an address that is asked now and then.
//!
//! The keys are fetched again when they are old, and when a token names a key that is not among them (the
//! provider has rolled its keys over). Tokens with made-up key names cannot make us ask more often than
//! every five seconds; while the provider does not answer, the keys known last go on counting.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Header};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::super::error::Code;
use super::super::problem::Problem;
use super::unauthenticated;

/// After this the keys are fetched again.
const KEYS_AGE: Duration = Duration::from_secs(600);
/// The least time between two attempts to fetch them.
const FETCH_PAUSE: Duration = Duration::from_secs(5);
/// How long the provider may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);

enum Source {
    File(std::path::PathBuf),
    Address { url: reqwest::Url, client: reqwest::Client },
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    decoding: Arc<DecodingKey>,
}

#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    fetched_at: Option<Instant>,
    tried_at: Option<Instant>,
}

/// A provider's keys.
pub struct Jwks {
    source: Source,
    known: Mutex<Known>,
}

/// The document as the provider writes it; keys of kinds that we do not know are skipped.
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl Jwks {
    /// A file is read at once, so that a wrong path is found at the start; an address is asked when needed.
    pub fn open(source: &str) -> Result<Self, String> {
        if !source.starts_with("http://") && !source.starts_with("https://") {
            let path = std::path::PathBuf::from(source.strip_prefix("file://").unwrap_or(source));
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{source}: {error}"))?;
            let keys = parse(&text).map_err(|error| format!("{source}: {error}"))?;
            let now = Some(Instant::now());
            let known = Known { keys, fetched_at: now, tried_at: None };
            return Ok(Self { source: Source::File(path), known: Mutex::new(known) });
        }
        // A second installation is refused, which is what we want: there is one provider per process.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let url = source.parse().map_err(|error| format!("{source}: {error}"))?;
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .build()
            .map_err(|error| format!("{source}: {error}"))?;
        Ok(Self { source: Source::Address { url, client }, known: Mutex::default() })
    }

    /// The key that a token's header asks for. 401 if there is none, 503 if no keys could be had at all.
    pub async fn key(&self, header: &Header) -> Result<Arc<DecodingKey>, Problem> {
        if header.alg.family() == AlgorithmFamily::Hmac {
            return Err(unauthenticated("The access token is not signed by the identity provider."));
        }
        let mut known = self.known.lock().await;
        let fresh = known.fetched_at.is_some_and(|at| at.elapsed() < KEYS_AGE);
        let found = pick(&known.keys, header);
        if fresh && let Some(key) = found {
            return Ok(key);
        }
        if known.tried_at.is_none_or(|at| at.elapsed() >= FETCH_PAUSE) {
            self.refresh(&mut known).await;
        }
        match pick(&known.keys, header) {
            Some(key) => Ok(key),
            None if known.fetched_at.is_none() => Err(Problem::new(
                Code::Unavailable,
                "The identity provider's keys cannot be fetched. Try again.",
            )),
            None => Err(unauthenticated("The access token is signed with an unknown key.")),
        }
    }

    async fn refresh(&self, known: &mut Known) {
        known.tried_at = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                known.keys = keys;
                known.fetched_at = known.tried_at;
            }
            Err(error) => tracing::warn!(error, "the identity provider's keys could not be fetched"),
        }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let text = match &self.source {
            Source::File(path) => tokio::fs::read_to_string(path).await.map_err(|error| error.to_string())?,
            Source::Address { url, client } => {
                let answer =
                    client.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
                answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?
            }
        };
        parse(&text)
    }
}

fn parse(text: &str) -> Result<Vec<Key>, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| format!("is not a JWKS: {error}"))?;
    let keys = document.keys.into_iter().filter_map(|value| {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let decoding = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Key { id: jwk.common.key_id, decoding: Arc::new(decoding) })
    });
    Ok(keys.filter(|key| key.decoding.family() != AlgorithmFamily::Hmac).collect())
}

/// By name; a token that names none is checked against the only key there is.
fn pick(keys: &[Key], header: &Header) -> Option<Arc<DecodingKey>> {
    let found = match (&header.kid, keys) {
        (Some(kid), keys) => keys.iter().find(|key| key.id.as_ref() == Some(kid)),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    found.map(|key| Arc::clone(&key.decoding))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jsonwebtoken::Algorithm;

    /// An Ed25519 public key (RFC 8037, appendix A.2), an unknown kind, and a shared secret.
    const SET: &str = r#"{ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
        { "kty": "new", "kid": "two" },
        { "kty": "oct", "kid": "three", "k": "c2VjcmV0" }
    ] }"#;

    fn header(algorithm: Algorithm, kid: Option<&str>) -> Header {
        Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) }
    }

    async fn code(jwks: &Jwks, header: Header) -> Option<Code> {
        jwks.key(&header).await.err().map(|problem| problem.code())
    }

    #[tokio::test]
    async fn keys_are_found_by_name_and_secrets_never_count() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SET).unwrap();
        let jwks = Jwks::open(file.path().to_str().unwrap()).unwrap();
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, Some("one"))).await, None);
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, None)).await, None);
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, Some("two"))).await, Some(Code::Unauthenticated));
        assert_eq!(code(&jwks, header(Algorithm::HS256, Some("three"))).await, Some(Code::Unauthenticated));
    }

    #[tokio::test]
    async fn an_unknown_name_makes_the_file_be_read_again_but_not_at_once_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{ "keys": [] }"#).unwrap();
        let jwks = Jwks::open(file.path().to_str().unwrap()).unwrap();
        std::fs::write(file.path(), SET).unwrap();
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, Some("one"))).await, None, "read again");
        std::fs::write(file.path(), SET.replace("one", "four")).unwrap();
        let four = header(Algorithm::EdDSA, Some("four"));
        assert_eq!(code(&jwks, four).await, Some(Code::Unauthenticated), "asked too soon");
    }

    #[tokio::test]
    async fn a_provider_that_never_answered_is_503() {
        let jwks = Jwks::open("http://127.0.0.1:9/jwks").unwrap();
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, Some("one"))).await, Some(Code::Unavailable));
    }

    #[test]
    fn a_wrong_file_is_found_at_the_start() {
        assert!(Jwks::open("/nowhere/jwks.json").is_err_and(|error| error.contains("/nowhere")));
    }
}
