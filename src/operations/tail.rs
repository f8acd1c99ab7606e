//! Live transitions of sagas: the engine publishes them on core NATS after each commit. NATS does not keep them, so
//! transitions without a subscriber are in the history alone.

use async_nats::{Client, SubscribeError};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

pub use crate::bus::messages::Transition;
use crate::bus::subjects;

/// The longest name of a workflow, in characters.
const NAME_CHARS_MAX: usize = 200;

/// Which sagas are watched.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, clap::Args)]
#[into_params(parameter_in = Query)]
pub struct TailFilter {
    /// Only sagas of this workflow
    #[arg(long)]
    pub workflow: Option<String>,
    /// Only this saga
    #[arg(long = "saga", value_name = "ID")]
    pub saga_id: Option<Uuid>,
}

impl TailFilter {
    /// Fields with impossible values, and what is wrong with each.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let name = self.workflow.as_deref();
        let good = name.is_none_or(|name| {
            (1..=NAME_CHARS_MAX).contains(&name.chars().count()) && !name.chars().any(char::is_control)
        });
        let problem = format!("must have 1 to {NAME_CHARS_MAX} characters, and no control characters");
        if good { Vec::new() } else { vec![("workflow", problem)] }
    }
}

/// Transitions from now on. A notice that cannot be read is left out: it is of another version.
///
/// # Errors
/// When the connection to NATS is closed.
pub async fn open(
    client: &Client,
    filter: &TailFilter,
) -> Result<impl Stream<Item = Transition> + Unpin + use<>, SubscribeError> {
    let notices = client.subscribe(subjects::transitions(filter.workflow.as_deref())).await?;
    let saga = filter.saga_id;
    let transitions = notices.flat_map(move |notice| {
        let mut read: Vec<Transition> = serde_json::from_slice(&notice.payload).unwrap_or_default();
        read.retain(|transition| saga.is_none_or(|saga| saga == transition.saga_id));
        futures::stream::iter(read)
    });
    Ok(Box::pin(transitions))
}
