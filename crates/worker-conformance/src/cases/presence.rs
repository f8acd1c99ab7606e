//! The worker announces itself, and its commands have consumers.

use saga_protocol::presence::WorkerSeen;
use saga_protocol::subjects;

use crate::setup;
use crate::tester::{Ending, Tester};

pub(super) async fn announced(tester: &mut Tester) -> Ending {
    let command = tester.options.command.clone();
    let found = setup::workers(&tester.client, &command, tester.options.timeout).await?;
    if found.is_empty() {
        tester.wrong(format!(
            "no worker announces the command {command} by the service API of NATS: operators do not see it, and the engine \
             makes no consumer for it"
        ));
    }
    for worker in &found {
        tester.did(format!(
            "{} {} announces {} as {}",
            worker.service,
            worker.version,
            if worker.commands.is_empty() { "no commands".to_owned() } else { worker.commands.join(", ") },
            worker.instance.as_deref().unwrap_or("no instance")
        ));
        if !worker.commands.contains(&command) {
            tester.wrong("the announcement lacks the metadata `commands` with this command");
        }
        if worker.instance.is_none() {
            tester.wrong("the announcement lacks the metadata `instance`");
        }
        if worker.service != tester.options.service() {
            let service = tester.options.service().to_owned();
            tester
                .wrong(format!("the announcement is of the service {}, expected {service}", worker.service));
        }
    }
    choose_undo(tester, &found);
    for command in [Some(command), tester.undo.clone()].into_iter().flatten() {
        let (consumer, made) = setup::consumer(&tester.steps, &command).await?;
        let how = if made { "made the consumer" } else { "found the consumer" };
        tester.did(format!("{how} {} of {command}", consumer.name));
        if let Some(problem) = setup::consumer_problem(&consumer) {
            tester.wrong(problem);
        }
        tester.ack_wait = tester.ack_wait.max(consumer.config.ack_wait);
    }
    Ok(())
}

/// The undo is the only other command of the service, unless the user names it.
fn choose_undo(tester: &mut Tester, found: &[WorkerSeen]) {
    if let Some(undo) = tester.options.undo.clone() {
        if found.iter().any(|worker| !worker.commands.contains(&undo)) {
            tester.wrong(format!("the announcement does not name the undo {undo}"));
        }
        return;
    }
    let own = |name: &&String| {
        **name != tester.options.command && subjects::service_of(name) == tester.options.service()
    };
    let mut others: Vec<String> =
        found.iter().flat_map(|worker| worker.commands.iter().filter(own).cloned()).collect();
    others.sort();
    others.dedup();
    if let [undo] = &others[..] {
        tester.did(format!("took {undo} as the undo"));
        tester.undo = Some(undo.clone());
    }
}
