//! The place in line that a request carries.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum_extra::extract::CookieJar;

/// The header `Queue-Token`; whether it opens anything is for the waiting room to say, after the object was
/// found.
#[derive(Clone, Debug)]
pub struct QueuePass(Option<String>);

impl QueuePass {
    /// The token, if one was sent.
    pub fn token(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for QueuePass {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get("queue-token").and_then(|value| value.to_str().ok());
        Ok(Self(value.map(str::trim).filter(|token| !token.is_empty()).map(str::to_owned)))
    }
}

/// The same for event streams, which browsers open without headers of their own: the header, else the cookie
/// `queue_token`.
#[derive(Clone, Debug)]
pub struct StreamPass(pub QueuePass);

impl<S: Send + Sync> FromRequestParts<S> for StreamPass {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let QueuePass(header) = QueuePass::from_request_parts(parts, state).await?;
        let cookie = || {
            let jar = CookieJar::from_headers(&parts.headers);
            jar.get("queue_token").map(|cookie| cookie.value().to_owned())
        };
        Ok(Self(QueuePass(header.or_else(cookie))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    async fn check(headers: &[(&str, &str)], header: Option<&str>, either: Option<&str>) {
        let mut request = Request::get("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        assert_eq!(QueuePass::from_request_parts(&mut parts, &()).await.unwrap().token(), header);
        assert_eq!(StreamPass::from_request_parts(&mut parts, &()).await.unwrap().0.token(), either);
    }

    #[tokio::test]
    async fn only_event_streams_read_the_cookie() {
        check(&[], None, None).await;
        check(&[("queue-token", " ")], None, None).await;
        check(&[("queue-token", "a.b.c")], Some("a.b.c"), Some("a.b.c")).await;
        check(&[("cookie", "x=1; queue_token=c.d.e")], None, Some("c.d.e")).await;
        check(&[("queue-token", "a"), ("cookie", "queue_token=b")], Some("a"), Some("a")).await;
    }
}
