//! `openapi`: prints the description of the REST API. It needs no servers.

use super::{Context, Ending, Misuse};
use crate::http;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Only the operations of these tags and what they need, separated by commas, such as queue,reservations
    #[arg(long, value_delimiter = ',')]
    tags: Vec<String>,
}

pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    let mut api = serde_json::to_value(http::description())?;
    if !arguments.tags.is_empty() {
        api = http::api_part::with_tags(api, &arguments.tags).map_err(Misuse)?;
    }
    context.output.answer(&api, |api| format!("{api:#}"))?;
    Ok(Ending::Good)
}
