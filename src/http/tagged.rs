//! Answers with an entity tag: who has this version already is not sent it again.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::catalog::Document;

/// The document, or 304 if the caller has it.
pub fn tagged(asked: &HeaderMap, document: &Document) -> Response {
    let caching =
        [(header::ETAG, document.etag.clone()), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    if is_known(asked, &document.etag) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    ([(header::CONTENT_TYPE, "application/json")], caching, document.json.clone()).into_response()
}

/// Whether the caller has this version already (RFC 9110, weak comparison).
fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lists = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = lists.flat_map(|list| list.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_weak_or_strong() {
        let check = |value: &str, known: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, value.parse().unwrap());
            assert_eq!(is_known(&headers, "\"abc\""), known, "{value}");
        };
        check("\"abc\"", true);
        check("W/\"abc\"", true);
        check("\"x\", \"abc\"", true);
        check("*", true);
        check("\"ab\"", false);
        check("abc", false);
        assert!(!is_known(&HeaderMap::new(), "\"abc\""));
    }
}
