//! Files that are part of the program and that browsers load: pages, scripts, styles.

use std::sync::OnceLock;

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::etag::is_known;

/// What a page may load: its own files alone. No other page may frame it, and no form leaves it.
const PAGE_POLICY: &str =
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file that is part of the program.
#[derive(Debug)]
pub struct StaticFile {
    /// Its path below the folder that it is served from.
    pub path: &'static str,
    pub body: &'static [u8],
    etag: OnceLock<String>,
}

impl StaticFile {
    pub const fn new(path: &'static str, body: &'static [u8]) -> Self {
        Self { path, body, etag: OnceLock::new() }
    }

    /// The file, or 304 if the caller has it. Browsers ask every time, so that a new release is seen at once.
    pub fn answer(&self, asked: &HeaderMap) -> Response {
        let headers = [
            (header::ETAG, self.etag().to_owned()),
            (header::CACHE_CONTROL, "no-cache".to_owned()),
            (header::CONTENT_SECURITY_POLICY, PAGE_POLICY.to_owned()),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            (header::X_FRAME_OPTIONS, "DENY".to_owned()),
            (header::REFERRER_POLICY, "no-referrer".to_owned()),
            (HeaderName::from_static("cross-origin-opener-policy"), "same-origin".to_owned()),
        ];
        if is_known(asked, self.etag()) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        let content_type = [(header::CONTENT_TYPE, self.content_type())];
        (content_type, headers, self.body).into_response()
    }

    /// A weak tag: the same file may be sent compressed.
    fn etag(&self) -> &str {
        self.etag
            .get_or_init(|| format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(&Sha256::digest(self.body)[..12])))
    }

    fn content_type(&self) -> &'static str {
        match self.path.rsplit_once('.').map(|(_, ending)| ending) {
            Some("html") => "text/html; charset=utf-8",
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("json") => "application/json",
            _ => "application/octet-stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn cached_file_is_not_sent_again() {
        let file = StaticFile::new("a.js", b"let a;");
        let first = file.answer(&HeaderMap::new());
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()[header::CONTENT_TYPE], "text/javascript; charset=utf-8");
        let etag = first.headers()[header::ETAG].clone();
        let asked = HeaderMap::from_iter([(header::IF_NONE_MATCH, etag)]);
        assert_eq!(file.answer(&asked).status(), 304);
        let other = HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static("W/\"x\""))]);
        assert_eq!(file.answer(&other).status(), 200);
    }
}
