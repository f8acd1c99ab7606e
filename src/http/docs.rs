//! The API description: what every operation may answer besides its good answers.
//!
//! Handlers name the codes that are their own in `x-problems`; what follows from how a request is read (401
//! with a security scheme, 400, 413 and 422 with a body) is added here for all of them. So the description
//! says which codes to expect where, and the titles come from the one table of errors.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::http::header::{self, CONTENT_TYPE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{AdditionalProperties, Object, Schema};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{
    ContentBuilder, Header, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, RefOr, Required,
    ResponseBuilder, SchemaFormat, Type,
};
use utoipa::openapi::{ObjectBuilder, tag::TagBuilder};
use utoipa::{PartialSchema, ToSchema};

use super::error::Code;
use super::operation_ids;
use super::problem_body::ProblemBody;
use super::request::{KEY_CHARS_MAX, KEY_PATTERN};
use crate::text;

const OWN: &str = "x-problems";

/// The description of all messages; `tests/asyncapi.rs` holds it to the code.
const MESSAGES: &str = include_str!("../../docs/asyncapi.json");

/// What travels by NATS, for authors of workers and listeners.
pub async fn messages() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], MESSAGES)
}

/// What the page may load: its own files alone, and no other page may frame it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds to each answer of the page what a browser must not do with it.
pub async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The description before any route is added.
pub fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Box Office")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Join a concert's line, hold seats, pay with points, get tickets. Errors are RFC 9457 problems; `code` \
             says which. Every POST takes an `Idempotency-Key`. Every answer carries `X-Request-Id`.",
        ))
        .build();
    let tags = [
        ("concerts", "What is on sale"),
        ("queue", "The line before a concert"),
        ("reservations", "Hold, pay, cancel"),
        ("points", "What buyers pay with"),
        ("tickets", "Tickets at the entrance (gate or support key)"),
        ("users", "Users of local mode"),
        ("admin", "What is sold, and how its line runs (admin key)"),
        ("workflows", "Workflows of one's own: definitions and their sagas (admin or client key)"),
        ("operations", "Sagas and lines (viewer or operator key)"),
        ("support", "Reservations of any user: their story, refunds, goodwill (support key)"),
        ("service", "For machines that look after the service"),
    ];
    let tags = tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    OpenApiBuilder::new().info(info).tags(Some(tags)).build()
}

/// Adds security schemes, the schema of problems, and every operation's problems.
pub fn complete(mut api: OpenApi) -> OpenApi {
    let bearer = |text: &str| {
        SecurityScheme::Http(
            HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(text)).build(),
        )
    };
    let components = api.components.get_or_insert_default();
    components.add_security_scheme("user", bearer("An access token: a JWT whose `sub` is the user's UUID"));
    components.add_security_scheme("key", bearer("An API key, which begins with `bo_`"));
    let token = ApiKeyValue::with_description("Queue-Token", "The latest token that the line gave");
    components.add_security_scheme("queue_token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    let mut schemas = Vec::new();
    ProblemBody::schemas(&mut schemas);
    components.schemas.extend(schemas);
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    operation_ids::name_operations(&mut api);
    close_bodies(&mut api);
    describe_texts(&mut api);
    for item in api.paths.paths.values_mut() {
        for (changes, operation) in operations(item) {
            describe(operation, changes);
        }
    }
    api
}

/// Says of every object that a request may carry that it has no fields but those described, as `read` sees to.
fn close_bodies(api: &mut OpenApi) {
    let mut left: Vec<String> = Vec::new();
    for item in api.paths.paths.values_mut() {
        left.extend(operations(item).flat_map(|(_, operation)| referred(&operation.request_body)));
    }
    let schemas = &mut api.components.get_or_insert_default().schemas;
    let mut seen = BTreeSet::new();
    while let Some(name) = left.pop() {
        let Some(schema) = schemas.get_mut(&name).filter(|_| seen.insert(name)) else { continue };
        left.extend(referred(schema));
        if let RefOr::T(Schema::Object(object)) = schema
            && !object.properties.is_empty()
        {
            object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(false)));
        }
    }
}

/// Says by a pattern which characters a text may have. A field of the format `line` or `block` is checked by
/// `text::line_problem` or `text::block_problem`.
fn describe_texts(api: &mut OpenApi) {
    let schemas = api.components.get_or_insert_default().schemas.values_mut();
    let objects = schemas.filter_map(|schema| match schema {
        RefOr::T(Schema::Object(object)) => Some(object),
        _ => None,
    });
    for field in objects.flat_map(|object| object.properties.values_mut()) {
        if let RefOr::T(Schema::Object(field)) = field
            && let Some(pattern) = text_pattern(field)
        {
            (field.pattern, field.format) = (Some(pattern), None);
        }
    }
}

fn text_pattern(field: &Object) -> Option<String> {
    let Some(SchemaFormat::Custom(format)) = &field.format else { return None };
    match format.as_str() {
        "line" => Some(text::line_pattern(field.min_length.unwrap_or(0) == 0)),
        "block" => Some(text::BLOCK_PATTERN.to_owned()),
        _ => None,
    }
}

/// The header `Idempotency-Key`, as `request::idempotency_key` reads it.
fn idempotency_key(required: bool) -> Parameter {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(KEY_CHARS_MAX))
        .pattern(Some(KEY_PATTERN));
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some("A request that comes again under the same key does its work once"))
        .required(if required { Required::True } else { Required::False })
        .schema(Some(schema))
        .build()
}

/// The names of the schemas that a part of the description refers to.
fn referred(part: &impl Serialize) -> Vec<String> {
    let text = serde_json::to_string(part).unwrap_or_default();
    let names = text.split("#/components/schemas/").skip(1).filter_map(|rest| rest.split('"').next());
    names.map(str::to_owned).collect()
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (bool, &mut Operation)> {
    let writes = [&mut item.post, &mut item.patch].into_iter().flatten().map(|operation| (true, operation));
    let reads = [&mut item.get, &mut item.delete].into_iter().flatten().map(|operation| (false, operation));
    writes.chain(reads)
}

/// Adds the problems of one operation, those of one status together.
fn describe(operation: &mut Operation, changes: bool) {
    let own = operation.extensions.as_mut().and_then(|extensions| extensions.remove(OWN));
    let mut codes = own.map(|own| named(&own)).unwrap_or_default();
    if codes.contains(&Code::IdempotencyKeyReused) {
        let key = idempotency_key(codes.contains(&Code::IdempotencyKeyRequired));
        operation.parameters.get_or_insert_default().push(key.into());
    }
    if operation.security.is_some() {
        codes.extend([Code::Unauthenticated, Code::Unavailable]);
    }
    if changes {
        codes.extend([
            Code::MalformedRequest,
            Code::RequestTimeout,
            Code::PayloadTooLarge,
            Code::InvalidRequest,
            Code::Unavailable,
        ]);
    } else if operation.parameters.is_some() {
        codes.extend([Code::InvalidRequest, Code::Unavailable]);
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.into_iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.row().0.as_u16()).or_default().push(code);
    }
    for (status, codes) in by_status {
        let words: Vec<String> =
            codes.iter().map(|code| format!("`{}`: {}", code.row().1, code.row().2)).collect();
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let mut response =
            ResponseBuilder::new().description(words.join(". ")).content("application/problem+json", content);
        if matches!(status, 429 | 503) || codes.contains(&Code::RequestInProgress) {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
            response = response.header("Retry-After", Header::new(seconds));
        }
        operation.responses.responses.insert(status.to_string(), RefOr::T(response.build()));
    }
}

/// The codes an operation names. `queue_token` stands for all that the gate may say, `queue_token_identity` for
/// what it says where any place of the caller's own will do.
fn named(own: &Value) -> Vec<Code> {
    let identity = [Code::QueueTokenRequired, Code::QueueTokenInvalid, Code::QueueTokenWrongUser];
    let names = own.as_array().into_iter().flatten().filter_map(Value::as_str);
    let codes = names.flat_map(|name| match name {
        "queue_token" => {
            let rest = [Code::QueueTokenWaiting, Code::QueueTokenExpired, Code::QueueTokenWrongConcert];
            identity.into_iter().chain(rest).collect::<Vec<Code>>()
        }
        "queue_token_identity" => identity.to_vec(),
        name => Code::named(name).into_iter().collect(),
    });
    codes.collect()
}

#[cfg(test)]
mod tests {
    use super::super::description;
    use super::*;

    /// Method and path of every route of the contract, and of the acts it leaves open.
    const ROUTES: &str = include_str!("routes.txt");

    fn api() -> Value {
        serde_json::to_value(description()).unwrap()
    }

    #[test]
    fn described_routes_match_the_contract() {
        let api = api();
        let paths = api["paths"].as_object().unwrap();
        let described = paths.iter().flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys();
            methods.map(move |method| format!("{} {path}", method.to_uppercase()))
        });
        let mut described: Vec<String> = described.collect();
        let mut expected: Vec<String> = ROUTES.split('\n').map(|line| line.trim().to_owned()).collect();
        expected.retain(|line| !line.is_empty());
        described.sort();
        expected.sort();
        assert_eq!(described, expected);
    }

    #[test]
    fn every_expected_error_code_is_documented() {
        let api = api()["paths"].to_string();
        for code in Code::ALL {
            // These three can happen anywhere or nowhere.
            let anywhere = matches!(code, Code::Internal | Code::RateLimited | Code::MethodNotAllowed);
            assert!(anywhere || api.contains(&format!("`{}`", code.row().1)), "{code:?}");
        }
    }

    #[test]
    fn handlers_name_codes_that_exist() {
        let api = super::super::undescribed();
        for (path, item) in api.paths.paths {
            for operation in [item.get, item.post, item.patch, item.delete].into_iter().flatten() {
                let own = operation.extensions.and_then(|mut extensions| extensions.remove(OWN));
                for name in own.iter().flat_map(|own| own.as_array().unwrap()) {
                    assert!(!named(&serde_json::json!([name])).is_empty(), "{path}: {name}");
                }
            }
        }
    }

    #[test]
    fn every_referenced_schema_exists() {
        let api = api();
        let schemas = api["components"]["schemas"].as_object().unwrap();
        let text = api.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_payment_says_what_it_may_answer() {
        let answers = &api()["paths"]["/v1/reservations/{reservation}/payment"]["post"]["responses"];
        let statuses: Vec<&String> = answers.as_object().unwrap().keys().collect();
        let expected = [
            "200", "201", "202", "400", "401", "402", "403", "404", "408", "409", "410", "413", "422", "503",
        ];
        assert_eq!(statuses, expected);
    }
}
