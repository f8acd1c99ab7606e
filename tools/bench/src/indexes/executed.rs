//! Plans that the server sends as notices of the connection, shortened to a few lines that people can read.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

/// The log target under which the driver reports the server's notices.
const NOTICES: &str = "sqlx::postgres::notice";

/// How a statement was carried out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExecutedPlan {
    pub ms: f64,
    /// Pages that were looked at, found in memory or read.
    pub pages: u64,
    /// Every index that was used, in the order of the plan.
    pub indexes: Vec<String>,
    /// Every table that was read from end to end.
    pub read_whole: Vec<String>,
    /// A line per node.
    pub plan: String,
}

/// Runs `work` and returns the plans that the server sent meanwhile, in their order.
pub(super) async fn listen<T>(work: impl Future<Output = T>) -> (T, Vec<ExecutedPlan>) {
    let notices = Notices::default();
    let result = work.with_subscriber(registry().with(notices.clone())).await;
    let notices = notices.0.lock().unwrap_or_else(PoisonError::into_inner);
    (result, notices.iter().filter_map(|notice| read(notice)).collect())
}

/// The notices so far.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() == NOTICES {
            let mut message = Message::default();
            event.record(&mut message);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(message.0);
        }
    }
}

/// The message of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

/// Reads a notice of a plan: `duration: 0.031 ms  plan:` and its JSON.
fn read(notice: &str) -> Option<ExecutedPlan> {
    let (head, json) = notice.split_once('\n')?;
    let ms = head.strip_prefix("duration: ")?.split(' ').next()?.parse().ok()?;
    let whole: Value = serde_json::from_str(json).ok()?;
    let mut executed =
        ExecutedPlan { ms, pages: 0, indexes: Vec::new(), read_whole: Vec::new(), plan: String::new() };
    let top = &whole["Plan"];
    executed.pages = pages(top);
    walk(top, 0, &mut executed);
    Some(executed)
}

fn pages(node: &Value) -> u64 {
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().filter_map(|kind| node[*kind].as_u64()).sum()
}

/// Notes a node and those below it.
fn walk(node: &Value, depth: usize, executed: &mut ExecutedPlan) {
    let text = |name: &str| node[name].as_str();
    let kind = text("Node Type").unwrap_or("?");
    // Of a function only the result is shown.
    let _written = write!(executed.plan, "{:width$}{kind}", "", width = depth * 2);
    if let Some(index) = text("Index Name") {
        executed.indexes.push(index.to_owned());
        let _written = write!(executed.plan, " by {index}");
    }
    if let Some(table) = text("Relation Name") {
        let _written = write!(executed.plan, " on {table}");
        if kind == "Seq Scan" {
            executed.read_whole.push(table.to_owned());
        }
    }
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let loops = match number("Actual Loops") as u64 {
        1 => String::new(),
        loops => format!(", {loops} times"),
    };
    let _written =
        writeln!(executed.plan, " (rows {}{loops}; pages {})", number("Actual Rows") as u64, pages(node));
    for below in node["Plans"].as_array().into_iter().flatten() {
        walk(below, depth + 1, executed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_becomes_a_few_lines() {
        let notice = r#"duration: 0.250 ms  plan:
            { "Query Text": "select 1", "Plan": {
                "Node Type": "Sort", "Actual Rows": 2, "Actual Loops": 1, "Shared Hit Blocks": 5, "Shared Read Blocks": 1,
                "Plans": [
                    { "Node Type": "Index Scan", "Index Name": "sagas_pkey", "Relation Name": "sagas", "Actual Rows": 2,
                      "Actual Loops": 3, "Shared Hit Blocks": 4, "Shared Read Blocks": 0 },
                    { "Node Type": "Seq Scan", "Relation Name": "users", "Actual Rows": 0, "Actual Loops": 1 } ] } }"#;
        let executed = read(notice).unwrap();
        let plan = "Sort (rows 2; pages 6)\n  Index Scan by sagas_pkey on sagas (rows 2, 3 times; pages 4)\n  \
                    Seq Scan on users (rows 0; pages 0)\n";
        assert_eq!((executed.ms, executed.pages, executed.plan.as_str()), (0.25, 6, plan));
        assert_eq!(
            (executed.indexes, executed.read_whole),
            (vec!["sagas_pkey".to_owned()], vec!["users".to_owned()])
        );
        assert_eq!(read("there is already something"), None);
    }
}
