//! `keys`: API keys of machines and staff.

use serde_json::json;
use uuid::Uuid;

use super::output::table;
use super::{Context, Ending, Misuse};
use crate::http::auth::NewKey;
use crate::ids;
use crate::store::api_keys::{self, Role};
use crate::store::definitions;
use crate::text;
use crate::ticket_codes::TicketKeys;

/// Most workflows that one key is for.
const MAX_WORKFLOWS: usize = 100;

#[derive(clap::Subcommand, Debug)]
pub(super) enum Command {
    /// Make a key and print it, once
    Create {
        /// What the key may do
        #[arg(long)]
        role: Role,
        /// Whose key it is
        #[arg(long)]
        name: String,
        /// With the role client: a workflow that the key is for; several may be named
        #[arg(long = "workflow", value_name = "NAME")]
        for_workflows: Vec<String>,
    },
    /// List all keys, without their secrets
    List,
    /// Print the public key of the ticket codes that are signed under BOXOFFICE_TICKET_SECRET
    Ticket,
    /// End a key; a service that knows it forgets it within a second
    Revoke {
        /// The id of the key
        id: Uuid,
    },
}

pub(super) async fn run(context: &Context, command: Command) -> anyhow::Result<Ending> {
    match command {
        Command::Create { role, name, for_workflows } => create(context, role, &name, &for_workflows).await,
        Command::List => list(context).await,
        Command::Ticket => ticket(context),
        Command::Revoke { id } => revoke(context, id).await,
    }
}

async fn create(context: &Context, role: Role, name: &str, workflows: &[String]) -> anyhow::Result<Ending> {
    if let Some(problem) = text::line_problem(name, &(1..=100)) {
        return Err(Misuse(format!("--name {problem}")).into());
    }
    if (role == Role::Client) == workflows.is_empty() {
        let problem = "--workflow is needed with the role client, and is for no other role";
        return Err(Misuse(problem.to_owned()).into());
    }
    if workflows.len() > MAX_WORKFLOWS {
        return Err(Misuse(format!("a key is for {MAX_WORKFLOWS} workflows at most")).into());
    }
    let pool = context.database().await?;
    for workflow in workflows {
        if !definitions::is_known(&pool, workflow).await? {
            return Err(Misuse(format!("there is no workflow {workflow}; deploy it first")).into());
        }
    }
    let workflows = (!workflows.is_empty()).then_some(workflows);
    let (id, key) = (ids::new(), NewKey::generate());
    api_keys::insert_for(&pool, id, name, role, &key.hash, workflows).await?;
    let made = json!({ "id": id, "key": key.secret });
    context.output.answer(&made, |_| {
        format!("{}\nThis is the only time the key is shown. Its id is {id}.", key.secret)
    })?;
    Ok(Ending::Good)
}

async fn list(context: &Context) -> anyhow::Result<Ending> {
    let keys = api_keys::list(&context.database().await?).await?;
    context.output.answer(&json!({ "items": keys }), |_| {
        let rows = keys.iter().map(|key| {
            let ended =
                key.revoked_at.map_or("in force".to_owned(), |at| format!("revoked {}", at.format("%F %T")));
            [
                key.id.to_string(),
                key.name.clone(),
                key.role.as_str().to_owned(),
                key.workflows.as_deref().unwrap_or_default().join(", "),
                key.created_at.format("%F %T").to_string(),
                ended,
            ]
        });
        table(["Id", "Name", "Role", "Workflows", "Made", "State"], rows)
    })?;
    Ok(Ending::Good)
}

/// Needs no server, so that the next key is known before any instance uses it.
fn ticket(context: &Context) -> anyhow::Result<Ending> {
    let Some(secret) = context.settings.http.ticket_secret.as_deref() else {
        return Err(Misuse("BOXOFFICE_TICKET_SECRET is needed".to_owned()).into());
    };
    let keys = TicketKeys::new(secret, [])?.public();
    let answer = keys.first().map(|key| json!({ "id": key.id, "algorithm": key.algorithm, "key": key.key }));
    context.output.answer(&json!(answer), |_| keys.iter().map(|key| key.key.clone()).collect())?;
    Ok(Ending::Good)
}

async fn revoke(context: &Context, id: Uuid) -> anyhow::Result<Ending> {
    let revoked = api_keys::revoke(&context.database().await?, id).await?;
    context.output.answer(&json!({ "id": id, "revoked": revoked }), |_| {
        if revoked { "The key is revoked.".to_owned() } else { "There is no such key in force.".to_owned() }
    })?;
    Ok(if revoked { Ending::Good } else { Ending::Wrong })
}
