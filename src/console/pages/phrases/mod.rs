//! The words of the pages: one struct, one value of it for each language. A missing phrase does not compile.
//!
//! `words` has the words of the closed lists (states, reasons, verdicts), `faults` what can go wrong, `causes` what the
//! ledger keeps in English.

mod causes;
mod en;
mod faults;
mod words;
mod zh;

pub(in crate::console) use faults::{Fault, FaultWords};

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::console) enum Language {
    /// Simplified Chinese.
    Zh,
    /// English.
    En,
}

impl Language {
    #[cfg(test)]
    pub(in crate::console) const ALL: [Self; 2] = [Self::Zh, Self::En];

    /// In `?lang`, in the cookie and in the page.
    pub(in crate::console) fn code(self) -> &'static str {
        self.phrases().code
    }

    pub(in crate::console) fn parse(code: &str) -> Option<Self> {
        match code {
            "zh" => Some(Self::Zh),
            "en" => Some(Self::En),
            _ => None,
        }
    }

    /// The first of the header that there is; English otherwise.
    pub(in crate::console) fn accepted(header: &str) -> Self {
        let mut best = (0, Self::En);
        for range in header.split(',') {
            let (tag, rest) = range.split_once(';').unwrap_or((range, ""));
            let primary = tag.trim().split('-').next().unwrap_or_default().to_ascii_lowercase();
            let Some(language) = Self::parse(&primary) else { continue };
            let weight = match rest.trim().strip_prefix("q=").map(str::parse::<f32>) {
                None => 1000,
                // Between 0 and 1000, or nonsense that wants nothing.
                Some(weight) => (weight.unwrap_or(0.0).clamp(0.0, 1.0) * 1000.0) as u32,
            };
            if weight > best.0 {
                best = (weight, language);
            }
        }
        best.1
    }

    pub(in crate::console) fn other(self) -> Self {
        match self {
            Self::Zh => Self::En,
            Self::En => Self::Zh,
        }
    }

    pub(in crate::console) fn phrases(self) -> &'static Phrases {
        match self {
            Self::Zh => &zh::PHRASES,
            Self::En => &en::PHRASES,
        }
    }
}

macro_rules! phrases {
    (texts: $($text:ident)+; told: $($told:ident: $type:ty,)+) => {
        /// All of them.
        pub(in crate::console) struct Phrases {
            $(pub(in crate::console) $text: &'static str,)+
            $(pub(in crate::console) $told: $type,)+
        }
    };
}

/// Tells of one thing.
type One = fn(&str) -> String;
/// Tells of two.
type Two = fn(&str, &str) -> String;
/// Tells of three.
type Three = fn(&str, &str, &str) -> String;

phrases! {
    texts:
    code other_code other_language skip why_label why_placeholder why_button why_title why_help why_next
    theme_auto theme_light theme_dark logged_in_as look_only log_out log_in login_title login_note login_wrong
    login_too_often login_not_here login_no_pages token nav_label nav_home nav_decisions nav_refusals nav_parked
    nav_findings nav_acts nav_health times_are keys_note keys_off keys_on keys_help close copied copy live
    live_lost live_paused live_new pause resume home_title alarms nothing_wrong stages refused_last_hour none
    chart_title as_table col_from accepted newest no_decision_yet all_decisions look stage_accepted
    stage_pending stage_published stage_outcome stage_shown per_minute health_title ready checks check result
    remedy faults fault approver_sees now configuration credentials credential last_used never also check_ledger
    check_accepting check_broker check_topology check_reload check_parked check_outcomes check_findings ok
    fact_since fact_reload fact_restart fact_leader fact_head fact_cursor fact_size fact_free unknown
    reload_none decisions_title col_time col_user col_action col_task col_endpoint col_state col_reason col_peer
    any outcome filter clear paging newest_first_page older newer stopped search_on export cause since until
    card instance what_to_do reason_label timeline time_unknown facts command_json cli act_requeue act_park
    act_show_again warn_requeue warn_requeue_published warn_park warn_show_again event_accepted event_waiting
    event_refused event_published event_came_back event_reported event_report_refused event_shown event_requeued
    event_parked event_shown_again event_reconciled answered_200 waits_for_earlier fact_id fact_seq
    fact_approval_code fact_attempts fact_next_attempt fact_message fact_showing fact_event fact_status
    fact_size_bytes fact_stranger fact_search fact_context_task yes no refusals_title no_refusal they_read
    because no_detail stranger_note acts_title act actor count reason no_act detail by_cli by_signal
    parked_title nothing_waits showings_parked showings_remedy strays strays_remedy more_wait changed_meanwhile
    changed_gone unnamed_cause cancel which confirm_wrong_count confirm_no_reason findings_title verdict
    no_finding verdict_unseen verdict_not_found verdict_contradicted verdict_ended never_compared context_title
    context_expired context_data context_acts context_operators context_actions context_expires
    context_registered context_endpoint anybody fact_round fact_business_key error_title not_found_title
    not_found_message no_such_decision no_such_refusal no_such_context not_permitted foreign_page failed_read
    failed_write failed_late next_doctor body_unread act_illegal act_no_outcome act_nothing_to_show
    why_nothing_unread why_is_decision why_card why_around why_peer why_text example_user example_time
    example_task example_id example_peer why_ends theme unit per_minute_after in_all in_all_after group_remedy_parked group_remedy_rejected group_remedy_unrouted unit_ms unit_s unit_min unit_h unit_d comma colon space
    host_name console loopback configuration_word live_changed look_only_note declined_last_day declined_remedy
    not_inspected not_compared tell_topology ledger_no_room ledger_not_durable ledger_timeout ledger_unavailable
    check_workers check_waiting check_strays reload_applied reload_failed task card_filter target event_repeated
    done_requeue done_park done_show_again see_decision why_doctor why_no_names why_nothing_around;
    told:
    bad_parameter: Two, pending_is: Two, rejected_is: One, unrouted_is: One, outcomes_parked_is: One, strays_is:
    One, findings_is: One, chart_label: Two, reported: Two, report_superseded: One, report_refused: Two,
    shown_on: Two, came_back: Two, by: Two, published_to: Two, attempt: Two, pruned: One, searched_all: One,
    searched_back_to: One, group_is: Three, requeue_these: One, requeue_warning: One, type_count: One, requeued:
    Two, findings_overview: Two, decision_heading: Three, refusal_heading: One, why_heading: One, why_they_read:
    One, why_because: One, why_do: One, why_strangers: Two, why_nothing_else: One, parked_is: One, not_ready:
    One, ready_but: Two, changed_state: Two, why_accepted: Three, alarm_note: Two, oldest_waits: One,
    topology_is: One, reload_at: Two, pair_is: One, is_value: Two, and_others: Two, because_of: Two, repeated:
    One, within: One, showing_is: Three, shown_again: Two, show_these_again: One, show_again_warning: One,
    why_nothing: One, why_worker_said: One,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_the_one_that_the_browser_likes_best() {
        for (header, language) in [
            ("zh-CN,zh;q=0.9,en;q=0.8", Language::Zh),
            ("en-US,en;q=0.9,zh;q=0.8", Language::En),
            ("en;q=0.3, zh-Hans;q=0.4", Language::Zh),
            ("fr, zh;q=0.1", Language::Zh),
            ("zh;q=0, *", Language::En),
            ("ja,ko", Language::En),
            ("zh;q=NaN", Language::En),
            ("", Language::En),
        ] {
            assert_eq!(Language::accepted(header), language, "{header}");
        }
        for language in Language::ALL {
            assert_eq!(Language::parse(language.code()), Some(language));
            assert_eq!(language.phrases().other_code, language.other().code());
        }
    }
}
