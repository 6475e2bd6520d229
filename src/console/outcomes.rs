//! The JSON API for operators: retry of an outcome that the approval center refused.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use serde::Serialize;

use super::{
    Desk,
    api::{command_id, no_query, no_such_command},
    contexts::write,
    permission::Operator,
    problem::Problem,
};
use crate::{
    command::CommandId,
    ledger::{ShowAgain, ShowingState},
};

#[derive(Serialize)]
struct Ordered {
    command_id: CommandId,
    showing: ShowingState,
}

/// `POST /api/v1/commands/{command_id}/show-again`: recorded as an operator's action, and carried out within seconds.
pub(super) async fn show_again(
    Operator(actor): Operator,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Problem> {
    no_query(&request)?;
    let command_id = command_id(&request, &desk).await?;
    match write(desk.ledger.show_again(command_id, actor.into())).await? {
        ShowAgain::Ordered => {
            tracing::info!(%command_id, "operator requested that an outcome is shown again");
            Ok(HttpResponse::Accepted().json(Ordered { command_id, showing: ShowingState::Waiting }))
        }
        ShowAgain::UnknownCommand => Err(no_such_command()),
        ShowAgain::NoOutcome => Err(Problem::new(
            StatusCode::CONFLICT,
            "no_outcome",
            "No worker has reported an outcome of this command.",
        )),
        ShowAgain::NothingToShow => Err(Problem::new(
            StatusCode::CONFLICT,
            "nothing_to_show",
            "The command did not come from a card, and its outcome has no instance.",
        )),
    }
}
