//! Each rule of the design, broken on purpose: what goes wrong then is found.

use super::{Bounds, Budget, Durability, Rule, checker::explore};

const ORDER: &str = "of its task is not";
const UNPUBLISHED: &str = "INVARIANT 3";
const BEHIND_THE_END: &str = "behind the end of the log";

/// Without the rules this goes wrong.
fn needed(rules: &'static [Rule], what: &str, bounds: Bounds) {
    let name = format!("without {rules:?}");
    let fault = explore(&name, Bounds { without: rules, ..bounds }).unwrap_or_default();
    // Shown by `--nocapture`.
    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("{fault}\n")).unwrap();
    assert!(fault.lines().next().is_some_and(|first| first.contains(what)), "{name}: {fault:?}");
}

/// Two decisions about one task, two terms of two replicas.
fn zombie() -> Bounds {
    let budget = Budget { terms: 2, refusals: 1, ..Budget::default() };
    Bounds { budget, ..Bounds::default() }
}

/// One replica, for another is not needed, and a failover that forgets.
fn forgetful() -> Bounds {
    let budget = Budget { terms: 2, failovers: 1, ..Budget::default() };
    Bounds { budget, replicas: 1, durability: Durability::Asynchronous, ..Bounds::default() }
}

#[test]
fn a_deposed_leader_that_settled_would_break_the_order() {
    needed(&[Rule::TermInSettlements], ORDER, zombie());
}

/// It would read the log without a command that its successor has made an exception, and take it for published.
#[test]
fn a_deposed_leader_that_read_would_break_the_order() {
    needed(&[Rule::TermInLooks], ORDER, zombie());
}

#[test]
fn a_machine_that_went_on_after_a_lost_connection_would_lose_commands() {
    // With a term of one server, the ledger would tell it that it is deposed.
    needed(&[Rule::LossEndsTheTerm, Rule::TermOfOneServer], BEHIND_THE_END, forgetful());
}

#[test]
fn a_failover_that_a_pooler_hid_would_lose_commands() {
    needed(&[Rule::TermOfOneServer], BEHIND_THE_END, Bounds { pooler: true, ..forgetful() });
    // Even a synchronous standby may lack how far the log was settled. The machine would never settle it again.
    let standby = Bounds { pooler: true, durability: Durability::Standby, ..forgetful() };
    needed(&[Rule::TermOfOneServer], "nothing changes any more", standby);
}

#[test]
fn a_machine_that_outlived_its_term_would_lose_commands() {
    needed(&[Rule::NewMachine], BEHIND_THE_END, forgetful());
}

#[test]
fn a_head_that_outlived_its_term_would_lose_commands() {
    needed(&[Rule::NewHead], BEHIND_THE_END, forgetful());
}

#[test]
fn fresh_commands_that_outlived_their_term_would_be_published_in_place_of_others() {
    needed(&[Rule::NewFresh], UNPUBLISHED, Bounds { lag: 1, tasks: vec![1, 2, 3], ..forgetful() });
}

#[test]
fn fresh_commands_of_another_connection_than_the_machines_would_break_the_order() {
    for pooler in [false, true] {
        let bounds = Bounds { lag: 1, tasks: vec![1, 1, 1], pooler, ..forgetful() };
        needed(&[Rule::AnyLossEndsTheTerm], ORDER, bounds);
    }
}

/// A crash of the primary shows commits that nobody was promised; the standby may lack them.
#[test]
fn a_term_that_began_before_the_standby_had_it_would_give_a_decision_two_ids() {
    let budget = Budget { terms: 2, failovers: 2, unanswered: 1, ..Budget::default() };
    needed(&[Rule::LeaseWaits], "two ids", Bounds { budget, tasks: vec![1], ..Bounds::default() });
}

#[test]
fn an_exception_that_the_standby_lacked_would_hide_a_late_return() {
    let budget = Budget { terms: 2, failovers: 1, late: 1, ..Budget::default() };
    needed(&[Rule::ExceptionsWait], "late return", Bounds { budget, tasks: vec![1], ..Bounds::default() });
}

/// The answer to a settlement is lost, and it comes when what it tells is true no longer.
#[test]
fn a_settlement_that_came_after_the_next_one_of_its_term_would_hide_a_late_return() {
    let budget = Budget { terms: 1, ends: 1, refusals: 1, late: 1, ..Budget::default() };
    let bounds = Bounds { budget, replicas: 1, tasks: vec![1], ..Bounds::default() };
    needed(&[Rule::LossEndsTheTerm], "late return", bounds);
}
