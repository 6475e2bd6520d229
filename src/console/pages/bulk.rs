//! One act on many commands: a form with what was shown, a number to type, and what became of it.
//!
//! What is confirmed is what was shown: the places in the log are in the form. One that has changed since is left alone
//! and named afterwards.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use askama::Template;

use super::{
    Changer, Desk, Frame, Halt, Phrases, Viewer, acting, chosen, decision_href, look, query, see_other,
};
use crate::{
    command::Seq,
    console::filters::digits,
    ledger::{By, Filter, MAX_ORDERED, Order, OrderKind, Ordered, Record, State},
};

/// The states that wait for an operator.
pub(super) const STATES: [State; 3] = [State::Parked, State::Rejected, State::Unrouted];

/// Commands of each state that the page takes in, and the most that one confirmation requeues.
pub(super) const MOST: usize = MAX_ORDERED;

/// Commands that the page of a confirmation names.
const NAMED: usize = 100;

/// A command that is named with a link.
struct Named {
    href: String,
    name: String,
}

/// A command on which nothing was done, and why.
#[derive(Debug, Clone)]
struct Changed {
    href: String,
    name: String,
    why: Ordered,
}

/// What became of a confirmation.
#[derive(Debug, Clone)]
pub(super) struct Done {
    kind: OrderKind,
    done: usize,
    changed: Vec<Changed>,
}

/// The last results, so that reloading a page repeats nothing. The acts themselves are in the ledger.
#[derive(Debug, Default)]
pub(in crate::console) struct Results(Mutex<VecDeque<(u64, Done)>>);

impl Results {
    const KEPT: usize = 50;

    fn keep(&self, done: Done) -> u64 {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(1, |(last, _)| last + 1);
        kept.push_back((number, done));
        if kept.len() > Self::KEPT {
            kept.pop_front();
        }
        number
    }

    pub(super) fn find(&self, number: u64) -> Option<Done> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(one, _)| *one == number).map(|(_, done)| done.clone())
    }
}

pub(super) struct ChangedRow {
    pub(super) href: String,
    pub(super) name: String,
    pub(super) why: String,
}

pub(super) struct ResultView {
    pub(super) text: String,
    pub(super) changed: Vec<ChangedRow>,
}

pub(super) fn told(done: Done, t: &'static Phrases) -> ResultView {
    let words = match done.kind {
        OrderKind::Requeue | OrderKind::Park => t.requeued,
        OrderKind::ShowAgain => t.shown_again,
    };
    let text = words(&done.done.to_string(), &done.changed.len().to_string());
    let why = |changed: Changed| ChangedRow {
        href: changed.href,
        name: changed.name,
        why: match changed.why {
            Ordered::OtherState(state) => (t.changed_state)(t.state(state), state.as_str()),
            Ordered::Done | Ordered::UnknownCommand => t.changed_gone.to_owned(),
            Ordered::NoOutcome => t.act_no_outcome.to_owned(),
            Ordered::NothingToShow => t.act_nothing_to_show.to_owned(),
        },
    };
    ResultView { text, changed: done.changed.into_iter().take(NAMED).map(why).collect() }
}

#[derive(Template)]
#[template(path = "confirm.html", config = "src/console/pages/askama.toml")]
struct ConfirmPage {
    f: Frame,
    t: &'static Phrases,
    heading: String,
    warning: String,
    wrong: Option<&'static str>,
    action: &'static str,
    state: &'static str,
    seqs: String,
    count: usize,
    reason: String,
    type_label: String,
    button: String,
    some: Vec<Named>,
}

/// `GET /parked/requeue`: what would be requeued, and a form to confirm it.
pub(super) async fn confirm_requeue(
    Confirmer(viewer): Confirmer,
    request: HttpRequest,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let pairs = query(&request);
    let Some(state) = waiting_state(chosen(&pairs, "state")) else { return Ok(see_other("/parked")) };
    let (endpoint, note) = (chosen(&pairs, "endpoint"), chosen(&pairs, "note"));
    let records = look!(viewer, waiting(&desk, state, MOST));
    let is_of_group = |record: &&Record| {
        record.endpoint == endpoint && record.note.as_deref().unwrap_or_default().trim() == note
    };
    let seqs: Vec<Seq> = records.iter().filter(is_of_group).map(|record| record.seq).collect();
    if seqs.is_empty() {
        return Ok(see_other("/parked"));
    }
    let asked = Asked { wanted: Wanted::Requeue(state), seqs };
    Ok(viewer.page(&confirm_page(&viewer, &asked, "", None)))
}

/// `GET /parked/show-again`: which outcomes would be shown again, and a form to confirm it.
pub(super) async fn confirm_show_again(
    Confirmer(viewer): Confirmer,
    desk: web::Data<Desk>,
) -> Result<HttpResponse, Halt> {
    let seqs = look!(viewer, desk.ledger.parked_showings(MOST));
    if seqs.is_empty() {
        return Ok(see_other("/parked"));
    }
    let asked = Asked { wanted: Wanted::ShowAgain, seqs };
    Ok(viewer.page(&confirm_page(&viewer, &asked, "", None)))
}

/// Who may see the form: those who may use it.
pub(super) struct Confirmer(Viewer);

impl actix_web::FromRequest for Confirmer {
    type Error = Halt;
    type Future = std::future::Ready<Result<Self, Halt>>;

    fn from_request(request: &HttpRequest, _payload: &mut actix_web::dev::Payload) -> Self::Future {
        std::future::ready(super::admitted(request, crate::console::access::Need::Act).map(Self))
    }
}

pub(super) fn waiting(
    desk: &Desk,
    state: State,
    limit: usize,
) -> impl Future<Output = Result<Vec<Record>, crate::ledger::LookError>> + use<> {
    desk.ledger.list(Filter { state: Some(state), limit, ..Filter::default() })
}

fn waiting_state(word: &str) -> Option<State> {
    STATES.into_iter().find(|state| state.as_str() == word)
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// To requeue those that are still in this state.
    Requeue(State),
    ShowAgain,
}

impl Wanted {
    fn kind(self) -> OrderKind {
        match self {
            Self::Requeue(_) => OrderKind::Requeue,
            Self::ShowAgain => OrderKind::ShowAgain,
        }
    }

    fn state(self) -> Option<State> {
        match self {
            Self::Requeue(state) => Some(state),
            Self::ShowAgain => None,
        }
    }

    /// Where the form goes.
    fn action(self) -> &'static str {
        match self {
            Self::Requeue(_) => "/parked/requeue",
            Self::ShowAgain => "/parked/show-again",
        }
    }
}

/// What is to be done, and with which commands.
struct Asked {
    wanted: Wanted,
    seqs: Vec<Seq>,
}

impl Asked {
    fn read(kind: OrderKind, pairs: &[(String, String)]) -> Option<Self> {
        let wanted = match kind {
            OrderKind::Requeue => Wanted::Requeue(waiting_state(chosen(pairs, "state"))?),
            OrderKind::ShowAgain => Wanted::ShowAgain,
            OrderKind::Park => return None,
        };
        let seqs: Option<Vec<Seq>> = chosen(pairs, "seqs").split(' ').map(digits).collect();
        let mut seqs = seqs?;
        seqs.sort_unstable();
        seqs.dedup();
        let are_places = seqs.iter().all(|seq| (1..=i64::MAX as u64).contains(seq));
        ((1..=MOST).contains(&seqs.len()) && are_places).then_some(Self { wanted, seqs })
    }
}

fn confirm_page(viewer: &Viewer, asked: &Asked, reason: &str, wrong: Option<&'static str>) -> ConfirmPage {
    let t = viewer.t();
    let count = asked.seqs.len();
    let word = count.to_string();
    let seqs: Vec<_> = asked.seqs.iter().map(Seq::to_string).collect();
    let (these, warning) = match asked.wanted {
        Wanted::Requeue(_) => (t.requeue_these, t.requeue_warning),
        Wanted::ShowAgain => (t.show_these_again, t.show_again_warning),
    };
    ConfirmPage {
        t,
        heading: these(&word),
        warning: warning(&word),
        wrong,
        action: asked.wanted.action(),
        state: asked.wanted.state().map_or("", State::as_str),
        count,
        reason: reason.to_owned(),
        type_label: (t.type_count)(&word),
        button: these(&word),
        some: seqs
            .iter()
            .take(NAMED)
            .map(|seq| Named { href: format!("/decisions/{seq}"), name: seq.clone() })
            .collect(),
        seqs: seqs.join(" "),
        f: viewer.frame.clone(),
    }
}

/// `POST /parked/requeue`.
pub(super) async fn requeue(
    Changer(viewer): Changer,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    confirmed(OrderKind::Requeue, viewer, &desk, &body).await
}

/// `POST /parked/show-again`.
pub(super) async fn show_again(
    Changer(viewer): Changer,
    desk: web::Data<Desk>,
    body: web::Bytes,
) -> Result<HttpResponse, Halt> {
    confirmed(OrderKind::ShowAgain, viewer, &desk, &body).await
}

async fn confirmed(kind: OrderKind, viewer: Viewer, desk: &Desk, body: &[u8]) -> Result<HttpResponse, Halt> {
    let t = viewer.t();
    let pairs = acting::form(body).unwrap_or_default();
    let Some(asked) = Asked::read(kind, &pairs) else {
        return Err(viewer.halt(StatusCode::BAD_REQUEST, t.error_title, t.body_unread));
    };
    let again = |viewer: &Viewer, wrong| {
        let page = confirm_page(viewer, &asked, chosen(&pairs, "reason"), Some(wrong));
        Ok(viewer.answer(StatusCode::UNPROCESSABLE_ENTITY, &page))
    };
    let Some(reason) = acting::reason(&pairs) else { return again(&viewer, t.confirm_no_reason) };
    if chosen(&pairs, "typed").trim() != asked.seqs.len().to_string() {
        return again(&viewer, t.confirm_wrong_count);
    }
    let by = By { actor: viewer.actor.clone(), reason: Some(reason) };
    let done = carried_out(viewer, desk, &asked, by).await?;
    tracing::info!(
        act = kind.as_str(),
        done = done.done,
        changed = done.changed.len(),
        "operator acted on several commands in the console"
    );
    Ok(see_other(&format!("/parked/results/{}", desk.results.keep(done))))
}

/// Acts on those that are still in the state that was confirmed, as one act.
async fn carried_out(viewer: Viewer, desk: &Desk, asked: &Asked, by: By) -> Result<Done, Halt> {
    let (mut commands, mut places, mut changed) = (Vec::new(), Vec::new(), Vec::new());
    for &seq in &asked.seqs {
        match look!(viewer, desk.ledger.id_at(seq)) {
            Some(id) => {
                commands.push(id);
                places.push(seq);
            }
            None => {
                let why = Ordered::UnknownCommand;
                changed.push(Changed { href: "/decisions".to_owned(), name: seq.to_string(), why });
            }
        }
    }
    if commands.is_empty() {
        return Ok(Done { kind: asked.wanted.kind(), done: 0, changed });
    }
    let (kind, if_state) = (asked.wanted.kind(), asked.wanted.state());
    let order = Order { kind, commands: commands.clone(), if_state, by };
    let (_, carried_out) = acting::ordered(viewer, desk, order).await?;
    let done = carried_out.done();
    for ((id, seq), why) in commands.into_iter().zip(places).zip(carried_out.results) {
        if why != Ordered::Done {
            changed.push(Changed { href: decision_href(id), name: seq.to_string(), why });
        }
    }
    Ok(Done { kind, done, changed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(pairs: &[(&str, &str)]) -> Option<Vec<Seq>> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Asked::read(OrderKind::Requeue, &pairs).map(|asked| asked.seqs)
    }

    #[test]
    fn what_is_confirmed_is_a_list_of_places() {
        assert_eq!(asked(&[("state", "parked"), ("seqs", "7 5 7")]), Some(vec![5, 7]));
        let many: Vec<_> = (1..=MOST as u64 + 1).map(|seq| seq.to_string()).collect();
        for (state, seqs) in [
            ("published", "5"),
            ("pending", "5"),
            ("", "5"),
            ("parked", ""),
            ("parked", "0"),
            ("parked", "5,7"),
            ("parked", "-5"),
            ("parked", "9223372036854775808"),
            ("parked", &many.join(" ")),
        ] {
            assert_eq!(asked(&[("state", state), ("seqs", seqs)]), None, "{state} {seqs:.20}");
        }
    }

    #[test]
    fn the_last_results_are_kept() {
        let results = Results::default();
        let done = |done| Done { kind: OrderKind::Requeue, done, changed: Vec::new() };
        for count in 1..=60 {
            assert_eq!(results.keep(done(count)), count as u64);
        }
        assert_eq!(results.find(60).unwrap().done, 60);
        assert!(results.find(11).is_some() && results.find(10).is_none() && results.find(61).is_none());
    }
}
