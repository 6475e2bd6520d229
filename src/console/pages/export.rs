//! What a filter shows, as a file: CSV for people, JSON Lines for programs. It is read and sent page by page, and is an
//! act.

use std::{fmt::Write, sync::Arc};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{CONTENT_DISPOSITION, HeaderValue},
    },
    web,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use super::{Desk, Halt, Viewer, query};
use crate::{
    console::{contexts::write, filters},
    ledger::{ActKind, Filter, KeptRefusal, Ledger, LookError, NewAct, Record, RefusalFilter},
    telemetry::taming::Tamed,
};

/// Entries read at a time.
const SLICE: usize = 500;

/// Entries in one file. Who wants more narrows the filter, or uses the command line.
const MOST: usize = 100_000;

/// Commands that are read at the same time.
const AT_ONCE: usize = 8;

#[derive(Clone, Copy)]
enum Form {
    Csv,
    JsonLines,
}

impl Form {
    fn kind(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::JsonLines => "application/jsonl",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
        }
    }
}

/// `GET /decisions.csv`.
pub(super) async fn decisions_csv(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    decisions(viewer, &request, desk, Form::Csv).await
}

/// `GET /decisions.jsonl`.
pub(super) async fn decisions_jsonl(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    decisions(viewer, &request, desk, Form::JsonLines).await
}

/// `GET /refusals.csv`.
pub(super) async fn refusals_csv(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    refusals(viewer, &request, desk, Form::Csv).await
}

/// `GET /refusals.jsonl`.
pub(super) async fn refusals_jsonl(
    viewer: Viewer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    refusals(viewer, &request, desk, Form::JsonLines).await
}

async fn decisions(
    viewer: Viewer,
    request: &HttpRequest,
    desk: web::Data<Desk>,
    form: Form,
) -> Result<HttpResponse, Halt> {
    let pairs = query(request);
    let filter = match filters::commands(&pairs, &viewer.zone) {
        Ok(filter) => Filter { limit: SLICE, ..filter },
        Err(problem) => return Err(bad(viewer, &problem.to_string())),
    };
    record(viewer, &desk, "decisions", &pairs).await?;
    let whole = matches!(form, Form::Csv).then(|| desk.ledger.clone());
    let source = Source {
        ledger: desk.ledger.clone(),
        read: move |ledger: &dyn Ledger, before: Option<u64>| {
            let before = before.or(filter.before);
            completed(whole.clone(), ledger.list(Filter { before, ..filter.clone() }))
        },
        place: |one: &Record| one.seq,
    };
    Ok(sent("decisions", form, DECISION_COLUMNS, source, decision_cells))
}

/// Adds the messages of the commands, which lists do not have.
async fn completed(
    ledger: Option<Arc<dyn Ledger>>,
    listing: impl Future<Output = Result<Vec<Record>, LookError>>,
) -> Result<Vec<Record>, LookError> {
    let rows = listing.await?;
    let Some(ledger) = ledger else { return Ok(rows) };
    let whole = |row: Record| {
        let finding = ledger.find(row.command_id);
        async move { Ok(finding.await?.unwrap_or(row)) }
    };
    stream::iter(rows).map(whole).buffered(AT_ONCE).try_collect().await
}

async fn refusals(
    viewer: Viewer,
    request: &HttpRequest,
    desk: web::Data<Desk>,
    form: Form,
) -> Result<HttpResponse, Halt> {
    let pairs = query(request);
    let filter = match filters::refusals(&desk.reasons.words, &pairs, &viewer.zone) {
        Ok(filter) => RefusalFilter { limit: SLICE, ..filter },
        Err(problem) => return Err(bad(viewer, &problem.to_string())),
    };
    record(viewer, &desk, "refusals", &pairs).await?;
    let source = Source {
        ledger: desk.ledger.clone(),
        read: move |ledger: &dyn Ledger, before: Option<u64>| {
            let before = before.or(filter.before);
            ledger.refusals(RefusalFilter { before, ..filter.clone() })
        },
        place: |one: &KeptRefusal| one.id,
    };
    Ok(sent("refusals", form, REFUSAL_COLUMNS, source, refusal_cells))
}

fn bad(viewer: Viewer, message: &str) -> Halt {
    let t = viewer.t();
    viewer.halt(StatusCode::BAD_REQUEST, t.error_title, message)
}

/// Nothing leaves unless it is written down that it did.
async fn record(viewer: Viewer, desk: &Desk, what: &str, pairs: &[(String, String)]) -> Result<(), Halt> {
    let filter: serde_json::Map<_, _> = pairs
        .iter()
        .map(|(name, value)| (name.clone(), value.chars().take(200).collect::<String>().into()))
        .collect();
    let detail = json!({ "what": what, "filter": filter });
    let act =
        NewAct { kind: ActKind::Export, by: viewer.actor.clone().into(), detail: Some(detail), count: 0 };
    let t = viewer.t();
    match write(desk.ledger.record(act)).await {
        Ok(()) => Ok(()),
        Err(_problem) => Err(viewer.halt(StatusCode::SERVICE_UNAVAILABLE, t.error_title, t.failed_write)),
    }
}

struct Source<Read, Place> {
    ledger: Arc<dyn Ledger>,
    read: Read,
    place: Place,
}

fn sent<T, Read, Place, Reading>(
    what: &str,
    form: Form,
    columns: &'static [&'static str],
    source: Source<Read, Place>,
    cells: fn(&T) -> Vec<String>,
) -> HttpResponse
where
    T: serde::Serialize + 'static,
    Read: Fn(&dyn Ledger, Option<u64>) -> Reading + 'static,
    Place: Fn(&T) -> u64 + 'static,
    Reading: Future<Output = Result<Vec<T>, LookError>>,
{
    // Spreadsheets take a file without a byte order mark for one of the system's old encoding.
    let head = match form {
        Form::Csv => {
            let mut head = "\u{feff}".to_owned();
            line(&mut head, columns.iter().copied());
            head
        }
        Form::JsonLines => String::new(),
    };
    let state = (source, Some(head), None::<u64>, 0_usize, false);
    let pieces = stream::unfold(state, move |(source, head, before, count, ended)| async move {
        if let Some(head) = head.filter(|head| !head.is_empty()) {
            return Some((
                Ok::<_, std::io::Error>(web::Bytes::from(head)),
                (source, None, before, count, ended),
            ));
        }
        if ended {
            return None;
        }
        let found = match (source.read)(&*source.ledger, before).await {
            Ok(found) => found,
            // The connection breaks, so that half a file is not taken for the whole.
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an export ended early");
                let broken = Err(std::io::Error::other("the ledger cannot be read"));
                return Some((broken, (source, None, before, count, true)));
            }
        };
        let mut piece = String::new();
        for one in &found {
            match form {
                Form::Csv => line(&mut piece, cells(one).iter().map(String::as_str)),
                Form::JsonLines => {
                    piece.push_str(&serde_json::to_string(one).expect("texts and numbers always render"));
                    piece.push('\n');
                }
            }
        }
        let before = found.last().map(&source.place);
        let count = count + found.len();
        let ended = found.len() < SLICE || count >= MOST;
        if piece.is_empty() {
            return None;
        }
        Some((Ok(web::Bytes::from(piece)), (source, None, before, count, ended)))
    });
    let name = format!("attachment; filename=\"{what}.{}\"", form.extension());
    let name = HeaderValue::from_str(&name).expect("it is ASCII");
    HttpResponse::Ok()
        .content_type(form.kind())
        .insert_header((CONTENT_DISPOSITION, name))
        .streaming(Box::pin(pieces))
}

/// A line of CSV (RFC 4180).
fn line<'a>(text: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    for (place, cell) in cells.into_iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push('"');
        // A spreadsheet would run it: what begins like a formula becomes a text.
        if cell.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠', '\t', '\r']) {
            text.push('\'');
        }
        write!(text, "{}", Tamed(cell.replace('"', "\"\""))).expect("writing to a String cannot fail");
        text.push('"');
    }
    text.push_str("\r\n");
}

const DECISION_COLUMNS: &[&str] = &[
    "seq",
    "command_id",
    "received_at",
    "state",
    "endpoint",
    "action",
    "user_id",
    "approval_code",
    "instance_id",
    "task_id",
    "message_id",
    "comment",
    "outcome",
    "worker_message",
    "showing",
    "note",
];

fn decision_cells(one: &Record) -> Vec<String> {
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    let command = one.command.as_ref().and_then(|command| serde_json::from_str::<Value>(command.get()).ok());
    let member = |name: &str| {
        let value = command.as_ref().and_then(|command| command.get("data").unwrap_or(command).get(name));
        value.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    vec![
        one.seq.to_string(),
        one.command_id.to_string(),
        one.received_at.to_string(),
        one.state.as_str().to_owned(),
        one.endpoint.clone(),
        one.action.clone(),
        one.user_id.clone(),
        or_empty(&one.approval_code),
        or_empty(&one.instance_id),
        or_empty(&one.task_id),
        member("message_id"),
        member("reason"),
        one.outcome.as_ref().map(|outcome| outcome.outcome.as_str().to_owned()).unwrap_or_default(),
        one.outcome.as_ref().map(|outcome| or_empty(&outcome.message)).unwrap_or_default(),
        one.outcome.as_ref().map(|outcome| outcome.showing.as_str().to_owned()).unwrap_or_default(),
        or_empty(&one.note),
    ]
}

const REFUSAL_COLUMNS: &[&str] = &[
    "id",
    "refused_at",
    "reason",
    "detail",
    "endpoint",
    "peer",
    "action_type",
    "user_id",
    "approval_code",
    "instance_id",
    "task_id",
    "search_id",
    "message_id",
    "stranger",
    "body_bytes",
];

fn refusal_cells(one: &KeptRefusal) -> Vec<String> {
    let KeptRefusal { id, refused } = one;
    let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
    vec![
        id.to_string(),
        refused.refused_at.to_string(),
        refused.reason.clone(),
        or_empty(&refused.detail),
        refused.endpoint.clone(),
        or_empty(&refused.peer),
        or_empty(&refused.action_type),
        or_empty(&refused.user_id),
        or_empty(&refused.approval_code),
        or_empty(&refused.instance_id),
        or_empty(&refused.task_id),
        or_empty(&refused.search_id),
        or_empty(&refused.message_id),
        refused.stranger.to_string(),
        refused.body_bytes.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        let of = |cell: &str| {
            let mut text = String::new();
            line(&mut text, [cell]);
            text
        };
        for (cell, written) in [
            ("zhang3", "\"zhang3\"\r\n"),
            ("a\"b,c", "\"a\"\"b,c\"\r\n"),
            ("=1+1", "\"'=1+1\"\r\n"),
            (" =1", "\"' =1\"\r\n"),
            ("+86", "\"'+86\"\r\n"),
            ("-1", "\"'-1\"\r\n"),
            ("@SUM(A1)", "\"'@SUM(A1)\"\r\n"),
            ("＝1", "\"'＝1\"\r\n"),
            ("\t=1", "\"'\\t=1\"\r\n"),
            ("\r\n=1", "\"'\\r\\n=1\"\r\n"),
            ("a\n=1", "\"a\\n=1\"\r\n"),
            ("a\u{202e}b", "\"a\\u{202e}b\"\r\n"),
            ("", "\"\"\r\n"),
        ] {
            assert_eq!(of(cell), written, "{cell:?}");
        }
    }
}
