//! An operator completes a step by hand: the worker's fence must know.

use async_nats::HeaderMap;
use async_nats::Message;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use saga_core::Outcome;
use saga_protocol::fences::{self, Completed, Completion, UNDONE};
use saga_protocol::subjects;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::setup::failed;
use crate::tester::{Ended, Ending, Tester, shown};

/// The header of the service API with which a service refuses a request.
const SERVICE_ERROR: &str = "Nats-Service-Error";

pub(super) async fn by_hand(tester: &mut Tester) -> Ending {
    let output = known_step(tester).await?;
    recorded(tester, output).await?;
    let answer = request(tester, HeaderMap::new(), Bytes::from_static(b"{")).await?;
    let refused = answer.headers.as_ref().is_some_and(|headers| headers.get(SERVICE_ERROR).is_some());
    if !refused {
        tester.wrong(format!(
            "a request to complete a step that cannot be read must be answered with the header {SERVICE_ERROR}"
        ));
    }
    Ok(())
}

/// Asks to complete a step that was done, and then undone; gives the output of the `do`.
async fn known_step(tester: &mut Tester) -> Result<Map<String, Value>, Ended> {
    let saga = tester.saga();
    let command = tester.command(saga, 1);
    let done = tester.done(&command, "it was not done before").await?;
    let known = complete(tester, saga, 1, &Map::new()).await?;
    if known != Completed::Ran(done.clone()) {
        tester.wrong(format!(
            "the step was done: the request to complete it must be answered with {}, and was answered {known:?}",
            shown(&done)
        ));
    }
    tester.did("asked to complete a step that was done");
    if tester.undo.is_some() {
        let undo = tester.undo_of(&command)?;
        tester.done(&undo, "an undo is never refused").await?;
        let known = complete(tester, saga, 1, &Map::new()).await?;
        if !matches!(&known, Completed::Ran(Outcome::Rejected { code, .. }) if code == UNDONE) {
            tester.wrong(format!(
                "the step was undone: the request to complete it must be answered `rejected` with the code {UNDONE}, and was \
                 answered {known:?}"
            ));
        }
        tester.did("asked to complete a step that was undone");
    }
    match done {
        Outcome::Done { output } => Ok(output),
        _ => Err(Ended::Failed),
    }
}

/// Completes a step that was never asked for. Its output is one of the worker's own and a field more: the worker may need it for the
/// undo.
async fn recorded(tester: &mut Tester, mut output: Map<String, Value>) -> Ending {
    output.insert("by_hand".to_owned(), json!(true));
    let saga = tester.saga();
    if complete(tester, saga, 1, &output).await? != Completed::Recorded {
        tester.wrong("a step that was never asked for was not recorded as done by hand");
        return Err(Ended::Failed);
    }
    let (command, by_hand) = (tester.command(saga, 1), Outcome::Done { output });
    tester.same(&command, &by_hand, "a step that was completed by hand must not be done once more").await?;
    tester.did("completed a step by hand, then sent its `do`");
    tester.effects(saga, 0, "after a `do` whose step was completed by hand").await;
    Ok(())
}

async fn complete(
    tester: &mut Tester,
    saga: Uuid,
    visit: i32,
    output: &Map<String, Value>,
) -> Result<Completed, Ended> {
    let wanted = Completion { saga, step: tester.options.step.clone(), visit, output: output.clone() };
    let (headers, body) = fences::request(&wanted);
    let answer = request(tester, headers, body).await?;
    fences::read_answer(&answer).map_err(|error| {
        let body = String::from_utf8_lossy(&answer.payload).chars().take(200).collect::<String>();
        tester
            .wrong(format!("the answer to a completion by hand cannot be read: {error}; its body is {body}"));
        Ended::Failed
    })
}

async fn request(tester: &mut Tester, headers: HeaderMap, body: Bytes) -> Result<Message, Ended> {
    let subject = subjects::complete(tester.options.service());
    match tester.client.request_with_headers(subject.clone(), headers, body).await {
        Ok(answer) => Ok(answer),
        Err(error) if matches!(error.kind(), RequestErrorKind::NoResponders | RequestErrorKind::TimedOut) => {
            tester.wrong(format!(
                "no worker answers on {subject}: an operator cannot complete its steps by hand ({error})"
            ));
            Err(Ended::Failed)
        }
        Err(error) => Err(failed("asking to complete a step")(error).into()),
    }
}
