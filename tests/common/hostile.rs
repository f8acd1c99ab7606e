//! Requests that are wrong on purpose, as many kinds for every route as its description has fields.

use std::time::{Duration, Instant};

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::Value;

use super::http::{Caller, Entrance};

/// The largest answer that may refuse a request.
pub const REFUSAL_BYTES_MAX: usize = 16 << 10;

/// A route of the description with its ids filled in.
pub struct Route {
    pub method: Method,
    pub path: String,
    /// The names of the fields of its body; none if it takes no body.
    pub fields: Vec<String>,
    /// Whether a body may be sent.
    pub takes_body: bool,
    caller: Caller,
}

/// All routes of the description but streams without an end.
pub async fn routes(entrance: &Entrance) -> Vec<Route> {
    let api = serde_json::to_value(boxoffice::http::description()).unwrap();
    let (admin, user) = (entrance.key(Role::Admin).await, entrance.admitted(1_000).await);
    let (support, gate) = (entrance.key(Role::Support).await, entrance.key(Role::Gate).await);
    let mut routes = Vec::new();
    for (template, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let streams = operation["responses"]["200"]["content"].get("text/event-stream").is_some();
            if streams && template.contains("queue-tokens") {
                continue;
            }
            let path = template
                .replace("{concert}", &entrance.test.concert.to_string())
                .replace("{performance}", &entrance.test.performance.to_string())
                .replace("{reservation}", &ids::new().to_string())
                .replace("{saga}", &ids::new().to_string())
                .replace("{export}", "ledger")
                .replace("{user}", &ids::new().to_string())
                .replace("{webhook}", &ids::new().to_string())
                .replace("{delivery}", &ids::new().to_string())
                .replace("{block}", &ids::new().to_string())
                .replace("{code}", &ids::new().to_string())
                .replace("{ticket}", &ids::new().to_string())
                .replace("{token}", &ids::new().simple().to_string())
                .replace("{message}", "1")
                .replace("{workflow}", "booking")
                .replace("{signal}", "pay")
                .replace("{command}", "points.deduct");
            let of_staff = ["/v1/admin", "/v1/ops", "/v1/workflows", "/v1/sagas"];
            let caller = match template.as_str() {
                path if of_staff.iter().any(|part| path.starts_with(part)) => &admin,
                path if path.starts_with("/v1/support") || path.ends_with("/undo") => &support,
                path if path.starts_with("/v1/tickets/redemptions") => &gate,
                _ => &user,
            };
            routes.push(Route {
                method: method.to_uppercase().parse().unwrap(),
                path,
                fields: fields(&api, &operation["requestBody"]),
                takes_body: ["post", "patch"].contains(&method.as_str()),
                caller: caller.clone(),
            });
        }
    }
    routes
}

fn fields(api: &Value, body: &Value) -> Vec<String> {
    let reference = body["content"]["application/json"]["schema"]["$ref"].as_str().unwrap_or_default();
    let name = reference.rsplit('/').next().unwrap();
    let properties = api["components"]["schemas"][name]["properties"].as_object();
    properties.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

/// What is wrong with a body, and the body: about so many bytes.
pub fn bodies(route: &Route, bytes: usize) -> Vec<(String, String)> {
    let repeated = |part: &str| part.repeat((bytes - 64) / part.len());
    let list = |part: &str| repeated(part).trim_end_matches(',').to_owned();
    let unknown = |number: usize| format!("\"f{number}\":0,");
    let many: String = (0..bytes / 10).map(unknown).collect();
    let mut bodies = vec![
        ("an array".to_owned(), format!("[{}]", list("0,"))),
        ("unknown fields".to_owned(), format!("{{{}}}", many.trim_end_matches(','))),
        ("one unknown field again and again".to_owned(), format!("{{{}}}", list("\"x\":0,"))),
        ("a long name of a field".to_owned(), format!("{{\"{}\":0}}", repeated("\\u0001"))),
        ("deep nesting".to_owned(), format!("{{\"deep\":{}", repeated("["))),
    ];
    for field in &route.fields {
        let values = [
            ("zeros", format!("[{}]", list("0,"))),
            ("a long text", format!("\"{}\"", repeated("\\u0001é"))),
            (
                "objects",
                format!("[{}]", list("{\"from\":1,\"to\":2147483647,\"section\":\"\",\"price\":-1},")),
            ),
            ("ranges", format!("[{}]", list("{\"from\":1,\"to\":2,\"section\":\"A\",\"price\":1},"))),
            ("nesting", format!("{}{}", "[".repeat(bytes / 2 - 64), "]".repeat(bytes / 2 - 64))),
            ("unknown fields", format!("{{{}}}", many.trim_end_matches(','))),
            ("a long number", repeated("9")),
        ];
        bodies.extend(
            values.map(|(what, value)| (format!("{what} as {field}"), format!("{{\"{field}\":{value}}}"))),
        );
    }
    bodies
}

/// Sends a body, and answers with the status, the text of the answer, and how long it took.
pub async fn send(
    entrance: &Entrance,
    route: &Route,
    path: &str,
    body: Option<String>,
) -> (u16, String, Duration) {
    let key = ids::new().to_string();
    let mut request =
        entrance.request(route.method.clone(), path, &route.caller).header("idempotency-key", key);
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    let begun = Instant::now();
    let answer = request.send().await.expect("the entrance answers");
    let status = answer.status().as_u16();
    let text = answer.text().await.expect("the answer is whole");
    (status, text, begun.elapsed())
}
