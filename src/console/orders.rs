//! The JSON API for operators: requeue, park, show again. One command by its path, or a thousand by their ids.

use std::collections::HashSet;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
    },
    web::{self, Payload},
};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_with::skip_serializing_none;

use super::{
    Desk,
    api::{command_id, no_query, no_such_command},
    contexts::{MAX_BODY_BYTES, json_body, write},
    permission::Operator,
    problem::Problem,
    registration::{Fault, Members, Read, list, text},
};
use crate::{
    command::CommandId,
    ledger::{By, MAX_ORDERED, MAX_REASON_CHARS, Order, OrderKind, Ordered, ShowingState, State},
};

/// What a body says besides the commands.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wish {
    commands: Vec<CommandId>,
    reason: Option<String>,
    if_state: Option<State>,
}

/// What became of an order on one command.
#[skip_serializing_none]
#[derive(Serialize)]
struct One {
    command_id: CommandId,
    act_id: u64,
    state: Option<State>,
    showing: Option<ShowingState>,
}

/// What became of an order on many commands.
#[derive(Serialize)]
struct Many {
    /// The number of the act; null if nothing was done.
    act_id: Option<u64>,
    done: usize,
    results: Vec<Result>,
}

#[skip_serializing_none]
#[derive(Serialize)]
struct Result {
    command_id: CommandId,
    result: &'static str,
    /// The state that kept it from being done.
    state: Option<State>,
}

type Answer = std::result::Result<HttpResponse, Problem>;

/// `POST /api/v1/commands/{command_id}/requeue`: published again within seconds.
pub(super) async fn requeue(
    Operator(actor): Operator,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Answer {
    one(OrderKind::Requeue, actor.into(), &request, payload, &desk).await
}

/// `POST /api/v1/commands/{command_id}/park`: set aside until it is requeued.
pub(super) async fn park(
    Operator(actor): Operator,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Answer {
    one(OrderKind::Park, actor.into(), &request, payload, &desk).await
}

/// `POST /api/v1/commands/{command_id}/show-again`: carried out within seconds.
pub(super) async fn show_again(
    Operator(actor): Operator,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Answer {
    one(OrderKind::ShowAgain, actor.into(), &request, payload, &desk).await
}

/// `POST /api/v1/commands:requeue`.
pub(super) async fn requeue_many(
    Operator(actor): Operator,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Answer {
    many(OrderKind::Requeue, actor.into(), &request, payload, &desk).await
}

/// `POST /api/v1/commands:park`.
pub(super) async fn park_many(
    Operator(actor): Operator,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Answer {
    many(OrderKind::Park, actor.into(), &request, payload, &desk).await
}

/// `POST /api/v1/commands:show-again`.
pub(super) async fn show_many_again(
    Operator(actor): Operator,
    request: HttpRequest,
    payload: Payload,
    desk: web::Data<Desk>,
) -> Answer {
    many(OrderKind::ShowAgain, actor.into(), &request, payload, &desk).await
}

async fn one(kind: OrderKind, by: By, request: &HttpRequest, payload: Payload, desk: &Desk) -> Answer {
    no_query(request)?;
    let wish = if has_body(request) {
        read(&json_body(request, payload, MAX_BODY_BYTES).await?, false)?
    } else {
        Wish::default()
    };
    let command_id = command_id(request, desk).await?;
    let by = By { reason: wish.reason, ..by };
    let order = Order { kind, commands: vec![command_id], if_state: wish.if_state, by };
    let carried_out = write(desk.ledger.order(order)).await?;
    let (state, showing) = match kind {
        OrderKind::Requeue => (Some(State::Pending), None),
        OrderKind::Park => (Some(State::Parked), None),
        OrderKind::ShowAgain => (None, Some(ShowingState::Waiting)),
    };
    match (carried_out.first(), carried_out.act_id) {
        (Ordered::Done, Some(act_id)) => {
            tracing::info!(%command_id, act = kind.as_str(), act_id, "operator ordered an act by the API");
            Ok(HttpResponse::Accepted().json(One { command_id, act_id, state, showing }))
        }
        (Ordered::OtherState(state), _) => Err(Problem::new(
            StatusCode::CONFLICT,
            "other_state",
            format!("The command is {}, so it was left as it is.", state.as_str()),
        )),
        (Ordered::Done | Ordered::UnknownCommand, _) => Err(no_such_command()),
        (Ordered::NoOutcome, _) => Err(Problem::new(
            StatusCode::CONFLICT,
            "no_outcome",
            "No worker has reported an outcome of this command.",
        )),
        (Ordered::NothingToShow, _) => Err(Problem::new(
            StatusCode::CONFLICT,
            "nothing_to_show",
            "The command did not come from a card, and its outcome has no instance.",
        )),
    }
}

async fn many(kind: OrderKind, by: By, request: &HttpRequest, payload: Payload, desk: &Desk) -> Answer {
    no_query(request)?;
    let Wish { commands, reason, if_state } =
        read(&json_body(request, payload, MAX_BODY_BYTES).await?, true)?;
    let by = By { reason, ..by };
    let order = Order { kind, commands: commands.clone(), if_state, by };
    let carried_out = write(desk.ledger.order(order)).await?;
    let (act_id, done) = (carried_out.act_id, carried_out.done());
    tracing::info!(
        act = kind.as_str(),
        act_id,
        done,
        asked = commands.len(),
        "operator ordered an act by the API"
    );
    let results = commands.into_iter().zip(carried_out.results);
    let results = results.map(|(command_id, ordered)| {
        let state = match ordered {
            Ordered::OtherState(state) => Some(state),
            _ => None,
        };
        Result { command_id, result: ordered.as_str(), state }
    });
    Ok(HttpResponse::Ok().json(Many { act_id, done, results: results.collect() }))
}

/// Whether a request says that it has a body.
fn has_body(request: &HttpRequest) -> bool {
    let headers = request.headers();
    let length = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    length || headers.contains_key(TRANSFER_ENCODING) || headers.contains_key(CONTENT_TYPE)
}

/// Reads a body strictly, so that a misspelt member is an error and not ignored.
fn read(body: &[u8], of_many: bool) -> std::result::Result<Wish, Problem> {
    let Members(members) = serde_json::from_slice(body)
        .map_err(|_| Problem::bad_body(None, "The body is not one JSON object."))?;
    let mut wish = Wish::default();
    for (at, (name, value)) in members.iter().enumerate() {
        if members[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(Fault::of(name, "Given more than once.").into());
        }
        let read = match &**name {
            "command_ids" if of_many => ids(value).map(|ids| wish.commands = ids),
            "reason" => reason(value).map(|text| wish.reason = text),
            "if_state" => state(value).map(|state| wish.if_state = state),
            _ => Err("Unknown member.".into()),
        };
        read.map_err(|message| Fault::of(name, message))?;
    }
    if of_many && wish.commands.is_empty() {
        return Err(Fault::of("command_ids", "Is missing.").into());
    }
    Ok(wish)
}

fn ids(value: &RawValue) -> Read<Vec<CommandId>> {
    let wrong = || format!("Must be a list of 1 to {MAX_ORDERED} command_ids.");
    let items = list(value).filter(|items| (1..=MAX_ORDERED).contains(&items.len())).ok_or_else(wrong)?;
    let mut seen = HashSet::with_capacity(items.len());
    let mut ids = Vec::with_capacity(items.len());
    for item in items {
        let id = text(item, 64).ok().flatten().and_then(|id| CommandId::parse(&id));
        let id = id.ok_or("One of them is not a UUID.")?;
        if !seen.insert(id) {
            return Err(format!("Has {id} more than once.").into());
        }
        ids.push(id);
    }
    Ok(ids)
}

fn reason(value: &RawValue) -> Read<Option<String>> {
    match text(value, usize::MAX)? {
        Some(reason) if reason.trim().is_empty() => Err("Is blank; omit it instead.".into()),
        Some(reason) if reason.chars().any(char::is_control) => Err("Contains a control character.".into()),
        Some(reason) if reason.chars().count() > MAX_REASON_CHARS => {
            Err(format!("Has more than {MAX_REASON_CHARS} characters.").into())
        }
        reason => Ok(reason),
    }
}

fn state(value: &RawValue) -> Read<Option<State>> {
    let words = || State::ALL.iter().copied().map(State::as_str).collect::<Vec<_>>().join(", ");
    match text(value, 64)? {
        None => Ok(None),
        Some(word) => word.parse().map(Some).map_err(|_| format!("Must be one of: {}.", words()).into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(body: &serde_json::Value, of_many: bool) -> String {
        let problem = read(body.to_string().as_bytes(), of_many).unwrap_err();
        let problem = serde_json::to_value(&problem).unwrap();
        format!("{}: {}", problem["member"].as_str().unwrap_or("-"), problem["message"].as_str().unwrap())
    }

    #[test]
    fn a_body_is_read_strictly() {
        let id = "019a0000-0000-7000-8000-000000000001";
        let body = json!({ "command_ids": [id], "reason": "队列满了", "if_state": "parked" });
        let wish = read(body.to_string().as_bytes(), true).unwrap();
        let expected = Wish {
            commands: vec![CommandId::parse(id).unwrap()],
            reason: Some("队列满了".to_owned()),
            if_state: Some(State::Parked),
        };
        assert_eq!(wish, expected);
        assert_eq!(read(b"{}", false).unwrap(), Wish::default());
        let all: Vec<String> = (0..=MAX_ORDERED).map(|n| CommandId::floor(n as i64).to_string()).collect();
        for (body, of_many, expected) in [
            (json!([]), true, "-: The body is not one JSON object."),
            (json!({}), true, "command_ids: Is missing."),
            (json!({ "command_ids": [] }), true, "command_ids: Must be a list of 1 to 1000 command_ids."),
            (json!({ "command_ids": all }), true, "command_ids: Must be a list of 1 to 1000 command_ids."),
            (json!({ "command_ids": [4711] }), true, "command_ids: One of them is not a UUID."),
            (json!({ "command_ids": [id] }), false, "command_ids: Unknown member."),
            (json!({ "reasons": "x" }), false, "reasons: Unknown member."),
            (json!({ "reason": " " }), false, "reason: Is blank; omit it instead."),
            (json!({ "reason": "a\u{1b}[1m" }), false, "reason: Contains a control character."),
            (json!({ "reason": "x".repeat(501) }), false, "reason: Has more than 500 characters."),
            (
                json!({ "if_state": "gone" }),
                false,
                "if_state: Must be one of: pending, published, parked, rejected, unrouted.",
            ),
        ] {
            assert_eq!(told(&body, of_many), expected);
        }
        let twice = told(&json!({ "command_ids": [id, id] }), true);
        assert_eq!(twice, format!("command_ids: Has {id} more than once."));
    }
}
