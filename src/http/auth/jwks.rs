//! The public keys of an identity provider: from a file, or from an address that is asked now and then.
//!
//! The keys are fetched at the start and again when they are old, in the background: no request with a known key waits for that. A token
//! that names an unknown key (the provider may have rolled its keys over) waits for one fetch, a few seconds at most. Tokens
//! with made-up key names cannot make us ask more often than every five seconds. While the provider does not answer, the keys
//! known last go on counting.
//!
//! Only keys that are meant to verify signatures count (`use`, `key_ops`), each only for its own `alg` if it names one.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jsonwebtoken::jwk::{Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use serde::Deserialize;
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
/// The longest document that is read.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;

enum Source {
    File(std::path::PathBuf),
    Address { url: reqwest::Url, client: reqwest::Client },
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    /// The only algorithm it is for, if the provider says so.
    algorithm: Option<Algorithm>,
    decoding: Arc<DecodingKey>,
}

/// The keys as they were fetched last.
#[derive(Default)]
struct Known {
    keys: Vec<Key>,
    fetched_at: Option<Instant>,
}

/// A fetch; all who wait for it share it.
type Fetch = Shared<BoxFuture<'static, ()>>;

#[derive(Default)]
struct Attempt {
    began_at: Option<Instant>,
    running: Option<Fetch>,
}

/// A provider's keys. Clones share them.
#[derive(Clone)]
pub struct Jwks(Arc<Inner>);

struct Inner {
    source: Source,
    /// Held for the moment of a look or a change, never while the provider is asked.
    known: RwLock<Arc<Known>>,
    attempt: Mutex<Attempt>,
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
            return Ok(Self::of(Source::File(path), Known { keys, fetched_at: Some(Instant::now()) }));
        }
        // A second installation is refused, which is what we want: there is one provider per process.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let url = source.parse().map_err(|error| format!("{source}: {error}"))?;
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .build()
            .map_err(|error| format!("{source}: {error}"))?;
        Ok(Self::of(Source::Address { url, client }, Known::default()))
    }

    fn of(source: Source, known: Known) -> Self {
        Self(Arc::new(Inner { source, known: RwLock::new(Arc::new(known)), attempt: Mutex::default() }))
    }

    /// The key that a token's header asks for. 401 if there is none, 503 if no keys could be had at all.
    pub async fn key(&self, header: &Header) -> Result<Arc<DecodingKey>, Problem> {
        if header.alg.family() == AlgorithmFamily::Hmac {
            return Err(unauthenticated("The access token is not signed by the identity provider."));
        }
        let known = self.known();
        if let Some(key) = pick(&known.keys, header) {
            self.refresh();
            return Ok(key);
        }
        if let Some(fetch) = self.fetch() {
            fetch.await;
        }
        let known = self.known();
        match pick(&known.keys, header) {
            Some(key) => Ok(key),
            None if known.fetched_at.is_none() => Err(Problem::new(
                Code::Unavailable,
                "The identity provider's keys cannot be fetched. Try again.",
            )),
            None => Err(unauthenticated("The access token is signed with an unknown key.")),
        }
    }

    /// Fetches the keys in the background if they are old, or not there yet.
    pub fn refresh(&self) {
        if self.known().fetched_at.is_none_or(|at| at.elapsed() >= KEYS_AGE) {
            // It goes on by itself.
            let _in_background = self.fetch();
        }
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.0.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn attempt(&self) -> MutexGuard<'_, Attempt> {
        self.0.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetch under way, or a new one; none so soon after the last.
    fn fetch(&self) -> Option<Fetch> {
        let mut attempt = self.attempt();
        if let Some(running) = &attempt.running {
            return Some(running.clone());
        }
        if attempt.began_at.is_some_and(|at| at.elapsed() < FETCH_PAUSE) {
            return None;
        }
        attempt.began_at = Some(Instant::now());
        let jwks = self.clone();
        let fetch = async move {
            let read = tokio::time::timeout(FETCH_TIMEOUT, jwks.0.source.read()).await;
            match read.unwrap_or_else(|_| Err("the provider does not answer".to_owned())) {
                Ok(keys) => {
                    let known = Arc::new(Known { keys, fetched_at: Some(Instant::now()) });
                    *jwks.0.known.write().unwrap_or_else(PoisonError::into_inner) = known;
                }
                Err(error) => tracing::warn!(error, "the identity provider's keys could not be fetched"),
            }
            jwks.attempt().running = None;
        };
        let fetch = fetch.boxed().shared();
        attempt.running = Some(fetch.clone());
        tokio::spawn(fetch.clone());
        Some(fetch)
    }
}

impl Source {
    async fn read(&self) -> Result<Vec<Key>, String> {
        let text = match self {
            Self::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?,
            Self::Address { url, client } => {
                let answer = client.get(url.clone()).send().await;
                let answer = answer.and_then(reqwest::Response::error_for_status);
                bounded(answer.map_err(|error| error.to_string())?).await?
            }
        };
        parse(&String::from_utf8_lossy(&text))
    }
}

async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
        if text.len() + chunk.len() > DOCUMENT_BYTES_MAX {
            return Err(format!("the document has more than {DOCUMENT_BYTES_MAX} bytes"));
        }
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Vec<Key>, String> {
    let document: Document = serde_json::from_str(text).map_err(|error| format!("is not a JWKS: {error}"))?;
    Ok(document.keys.into_iter().filter_map(key).collect())
}

/// The key, if it is one that verifies signatures.
fn key(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|used| *used != PublicKeyUse::Signature) {
        return None;
    }
    if common.key_operations.as_ref().is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return None;
    }
    // An algorithm that is no signature's makes the key one that verifies nothing.
    let algorithm = match common.key_algorithm {
        Some(algorithm) => Some(Algorithm::from_str(&algorithm.to_string()).ok()?),
        None => None,
    };
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    let is_public = decoding.family() != AlgorithmFamily::Hmac;
    is_public.then(|| Key { id: jwk.common.key_id, algorithm, decoding: Arc::new(decoding) })
}

impl Key {
    fn is_for(&self, algorithm: Algorithm) -> bool {
        self.decoding.family() == algorithm.family() && self.algorithm.is_none_or(|own| own == algorithm)
    }
}

/// By name and algorithm; a token that names no key is checked against the only one there is for its algorithm.
fn pick(keys: &[Key], header: &Header) -> Option<Arc<DecodingKey>> {
    let named = |key: &&Key| header.kid.is_none() || key.id == header.kid;
    let mut fitting = keys.iter().filter(named).filter(|key| key.is_for(header.alg));
    let first = fitting.next()?;
    (header.kid.is_some() || fitting.next().is_none()).then(|| Arc::clone(&first.decoding))
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
    async fn keys_are_found_by_name_except_secrets() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), SET).unwrap();
        let jwks = Jwks::open(file.path().to_str().unwrap()).unwrap();
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, Some("one"))).await, None);
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, None)).await, None);
        assert_eq!(code(&jwks, header(Algorithm::EdDSA, Some("two"))).await, Some(Code::Unauthenticated));
        assert_eq!(code(&jwks, header(Algorithm::HS256, Some("three"))).await, Some(Code::Unauthenticated));
    }

    #[tokio::test]
    async fn unknown_key_name_rereads_the_file() {
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
    async fn signature_keys_count_for_their_algorithm() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let code_of = async |more: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let set = format!(
                r#"{{ "keys": [{{ "kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "{x}"{more} }}] }}"#
            );
            std::fs::write(file.path(), set).unwrap();
            let jwks = Jwks::open(file.path().to_str().unwrap()).unwrap();
            code(&jwks, header(Algorithm::EdDSA, Some("one"))).await
        };
        for good in ["", r#", "use": "sig""#, r#", "alg": "EdDSA""#, r#", "key_ops": ["verify"]"#] {
            assert_eq!(code_of(good).await, None, "{good}");
        }
        for bad in [
            r#", "use": "enc""#,
            r#", "alg": "ES256""#,
            r#", "alg": "RSA-OAEP""#,
            r#", "key_ops": ["encrypt"]"#,
            r#", "use": "sig", "alg": "HS256""#,
        ] {
            assert_eq!(code_of(bad).await, Some(Code::Unauthenticated), "{bad}");
        }
    }

    /// A provider on a port of this machine that gives out the set once, and then takes connections and says nothing.
    async fn provider_that_hangs_after_the_first_answer() -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            let _head = first.read(&mut [0; 4_096]).await.unwrap();
            let head =
                format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", SET.len());
            first.write_all(format!("{head}{SET}").as_bytes()).await.unwrap();
            drop(first);
            let mut hung = Vec::new();
            loop {
                hung.push(listener.accept().await);
            }
        });
        format!("http://{address}/jwks")
    }

    #[tokio::test]
    async fn known_key_does_not_wait_for_the_provider() {
        let jwks = Jwks::open(&provider_that_hangs_after_the_first_answer().await).unwrap();
        let one = || header(Algorithm::EdDSA, Some("one"));
        jwks.refresh();
        while jwks.known().fetched_at.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(code(&jwks, one()).await, None, "it was fetched before the first request");
        // As if they were old, and as if a while had passed since the provider was asked.
        let old = Instant::now().checked_sub(KEYS_AGE).unwrap();
        let keys = jwks.known().keys.clone();
        *jwks.0.known.write().unwrap() = Arc::new(Known { keys, fetched_at: Some(old) });
        jwks.attempt().began_at = None;
        let unknown = tokio::spawn({
            let (jwks, two) = (jwks.clone(), header(Algorithm::EdDSA, Some("two")));
            async move { code(&jwks, two).await }
        });
        tokio::task::yield_now().await;
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(code(&jwks, one()).await, None);
        }
        assert!(begun.elapsed() < FETCH_TIMEOUT / 2, "{:?}", begun.elapsed());
        assert!(jwks.attempt().running.is_some(), "it is being asked");
        assert_eq!(unknown.await.unwrap(), Some(Code::Unauthenticated), "an unknown key waits for one fetch");
        assert!(begun.elapsed() < FETCH_TIMEOUT * 3, "{:?}", begun.elapsed());
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
