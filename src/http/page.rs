//! Lists: `limit`, the opaque `cursor`, and the page that answers them.

use std::borrow::Cow;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;
use super::validation::{Validate, Validation, read};

const LIMIT_MAX: i64 = 100;
const LIMIT_DEFAULT: i64 = 50;
/// The longest cursor. The longest that is given out has a concert's name in it, of 200 characters.
const CURSOR_CHARS_MAX: usize = 2_000;

/// Which part of a list is asked for.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// How many items, 1 to 100; 50 if it is left out.
    #[param(minimum = 1, maximum = 100)]
    pub limit: Option<i64>,
    /// The `next_cursor` of the page before, as it is: any other text is refused.
    #[param(min_length = 1, max_length = 2_000, pattern = "^[A-Za-z0-9_-]+$")]
    pub cursor: Option<String>,
}

impl Validate for ListQuery {
    fn check(&self, faults: &mut Validation) {
        check_limit(self.limit, faults);
        let fits = self.cursor.as_ref().is_none_or(|cursor| cursor.len() <= CURSOR_CHARS_MAX);
        faults.expect(fits, "/cursor", format!("must have {CURSOR_CHARS_MAX} characters or fewer"));
    }
}

impl ListQuery {
    /// How many items.
    pub fn limit(&self) -> i64 {
        self.limit.unwrap_or(LIMIT_DEFAULT)
    }

    /// Where the page before ended; 422 for a cursor that is not of this list.
    pub fn after<C: DeserializeOwned>(&self) -> Result<Option<C>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let json = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        // Postgres has no text with a zero in it, and none of our cursors has one.
        let json = json.filter(|json| !json.contains("\\u0000"));
        let place = json.and_then(|json| serde_json::from_str(&json).ok());
        let mut faults = Validation::default();
        faults.expect(place.is_some(), "/cursor", "is not a cursor of this list");
        faults.finish()?;
        Ok(place)
    }
}

/// Notes a limit that is out of bounds.
pub fn check_limit(limit: Option<i64>, faults: &mut Validation) {
    let good = limit.is_none_or(|limit| (1..=LIMIT_MAX).contains(&limit));
    faults.expect(good, "/limit", format!("must be between 1 and {LIMIT_MAX}"));
}

/// A query that narrows a list, beside which part of it is asked for.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    pub wanted: T,
    pub page: ListQuery,
}

impl<S: Send + Sync, T: Validate> FromRequestParts<S> for Paged<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let (page, wanted) = pairs.partition(|(name, _)| ["limit", "cursor"].contains(&name.as_ref()));
        Ok(Self { page: read_pairs(page)?, wanted: read_pairs(wanted)? })
    }
}

fn read_pairs<T: Validate>(pairs: Vec<(Cow<'_, str>, Cow<'_, str>)>) -> Result<T, Problem> {
    let text = form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    read(serde_urlencoded::Deserializer::new(form_urlencoded::parse(text.as_bytes())))
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to send as `cursor` for the next part; null at the end.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// A page of `limit` items from rows of which one more was asked for; `place` says where an item stands.
    pub fn cut<C: Serialize>(mut rows: Vec<T>, limit: i64, place: impl FnOnce(&T) -> C) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows.last().filter(|_| more).map(|last| encode(&place(last)));
        Self { items: rows, next_cursor }
    }
}

fn encode(place: &impl Serialize) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(place).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::error::Code;
    use super::*;

    #[test]
    fn a_cursor_leads_to_what_follows() {
        let page = Page::cut(vec![10, 20, 30], 2, |item| *item);
        assert_eq!(page.items, [10, 20]);
        let next = ListQuery { cursor: page.next_cursor, limit: None };
        assert_eq!(next.after::<i32>().unwrap(), Some(20));
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        assert_eq!(Page::cut(vec![10, 20], 2, |item| *item).next_cursor, None);
        assert_eq!(Page::cut(Vec::<i32>::new(), 2, |item| *item).next_cursor, None);
    }

    #[test]
    fn a_cursor_of_another_list_is_refused() {
        let strange = Page::cut(vec!["x", "y"], 1, ToString::to_string).next_cursor;
        for cursor in [strange, Some("%%".to_owned()), Some(String::new())] {
            let query = ListQuery { cursor, limit: None };
            assert_eq!(query.after::<i32>().unwrap_err().code(), Code::InvalidRequest);
        }
    }

    #[test]
    fn limits_are_1_to_100() {
        for (limit, good) in
            [(None, true), (Some(1), true), (Some(100), true), (Some(0), false), (Some(101), false)]
        {
            let mut faults = Validation::default();
            ListQuery { limit, cursor: None }.check(&mut faults);
            assert_eq!(faults.finish().is_ok(), good, "{limit:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn cursors_are_read_or_refused(json in ".{0,60}", time in proptest::prelude::any::<i64>()) {
            for json in [json, format!("[{time},\"{time}\"]"), "[".repeat(10_000)] {
                let query = ListQuery { cursor: Some(URL_SAFE_NO_PAD.encode(&json)), limit: None };
                let _ = query.after::<(chrono::DateTime<chrono::Utc>, uuid::Uuid)>();
                let _ = query.after::<uuid::Uuid>();
                let _ = query.after::<(String, i64)>();
                let raw = ListQuery { cursor: Some(json), limit: None };
                let _ = raw.after::<(String, uuid::Uuid)>();
            }
        }
    }
}
