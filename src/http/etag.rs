//! Responses with an entity tag: 304 for a client that has the version, and compression of long bodies.
//!
//! Each encoding has its own tag, as strong tags require (RFC 9110, section 8.8.3). Any of them leads to a 304.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::catalog::Document;

/// The suffix of the tag of the compressed form.
const GZIP_TAG: &str = "-gzip";

/// The document in an encoding that the client accepts, or 304 if the client has it.
pub async fn with_etag(asked: &HeaderMap, document: &Document) -> Response {
    let gzip = document.is_compressible() && takes_gzip(asked);
    let etag = match gzip {
        true => format!("{}{GZIP_TAG}\"", document.etag.trim_end_matches('"')),
        false => document.etag.clone(),
    };
    let caching = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    if is_known(asked, &document.etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    let json = [(header::CONTENT_TYPE, "application/json")];
    match gzip {
        true => {
            let encoding = [(header::CONTENT_ENCODING, "gzip")];
            (json, encoding, caching, document.gzip().await).into_response()
        }
        false => (json, caching, document.json.clone()).into_response(),
    }
}

/// Whether the client has this version in any encoding (RFC 9110, weak comparison).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let hash = etag.trim_start_matches("W/").trim_matches('"');
    let is_same = |tag: &str| {
        let quoted = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        quoted.is_some_and(|tag| tag.strip_suffix(GZIP_TAG).unwrap_or(tag) == hash)
    };
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || is_same(tag.strip_prefix("W/").unwrap_or(tag)))
}

/// Whether gzip is named with a weight above zero, or covered by `*`.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let mut any = false;
    for item in lists.flat_map(|list| list.split(',')) {
        let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Ok(1.0), str::parse::<f32>);
        let wanted = weight.is_ok_and(|weight| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                return wanted;
            }
            "*" => any = wanted,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etag_is_found_weak_or_strong() {
        let check = |value: &str, known: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            assert_eq!(is_known(&headers, "\"abc\""), known, "{value}");
        };
        check("\"abc\"", true);
        check("W/\"abc\"", true);
        check("\"x\", \"abc\"", true);
        check("*", true);
        check("\"abc-gzip\"", true);
        check("W/\"abc-gzip\"", true);
        check("\"abc-gzip-gzip\"", false);
        check("\"ab\"", false);
        check("abc", false);
        assert!(!is_known(&HeaderMap::new(), "\"abc\""));
    }

    #[test]
    fn gzip_is_used_where_it_is_wanted() {
        let check = |value: &str, taken: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, value.parse().unwrap());
            assert_eq!(takes_gzip(&headers), taken, "{value}");
        };
        check("gzip, deflate, br, zstd", true);
        check("br;q=1.0, GZIP;q=0.5", true);
        check("*", true);
        check("*;q=1, gzip;q=0", false);
        check("gzip;q=0.0", false);
        check("identity", false);
        check("br", false);
        check("", false);
        assert!(!takes_gzip(&HeaderMap::new()));
    }
}
