//! The words of the pages: one struct, one value of it for each language. A missing phrase does not compile.
//!
//! Words of the closed lists (states, reasons, verdicts) are shown as they are: they are what logs, metrics and the
//! command line say. What they mean is said beside them.

mod en;
mod zh;

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

/// A fault of the table on `/health`.
#[derive(Debug, Clone, Copy)]
pub(in crate::console) struct FaultWords {
    pub(in crate::console) name: &'static str,
    pub(in crate::console) approver: &'static str,
    pub(in crate::console) remedy: &'static str,
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
    nav_findings nav_acts nav_health times_are keys_note keys_off keys_on keys_help close copied copy
    live live_lost live_paused live_new pause resume
    home_title alarms nothing_wrong stages refused_last_hour none chart_title as_table col_from accepted newest
    no_decision_yet all_decisions look stage_accepted stage_pending stage_published stage_outcome stage_shown per_minute
    waiting oldest in_all
    alarm_not_ready alarm_broker alarm_blocked
    health_title ready not_ready checks check result remedy faults fault approver_sees now configuration credentials credential
    last_used never also check_ledger check_accepting check_broker check_topology check_reload check_parked
    check_outcomes check_findings ok fact_since fact_reload fact_restart fact_leader fact_head fact_cursor fact_size fact_free
    remedy_ledger remedy_draining remedy_broker remedy_topology remedy_reload remedy_parked remedy_outcomes remedy_findings
    unknown reload_none
    decisions_title col_time col_user col_action col_task col_endpoint col_state col_reason col_peer col_number any
    outcome filter clear paging newest_first_page older newer stopped search_on export cause since until card instance
    approve reject custom
    what_to_do reason_label timeline time_unknown facts command_json cli
    act_requeue act_park act_show_again warn_requeue warn_requeue_published warn_park warn_show_again
    event_accepted event_waiting event_refused event_published event_came_back event_reported event_report_refused event_shown
    event_requeued event_parked event_shown_again event_reconciled answered_200 waits_for_earlier
    state_pending state_published state_parked state_rejected state_unrouted
    fact_id fact_seq fact_approval_code fact_attempts fact_next_attempt fact_message fact_showing fact_event
    fact_status fact_size_bytes fact_stranger fact_search fact_context_task yes no
    refusals_title no_refusal they_read because no_detail stranger_note
    acts_title act actor count reason no_act detail by_cli by_signal
    parked_title nothing_waits showings_parked showings_remedy strays strays_remedy more_wait changed_meanwhile
    changed_state changed_gone unnamed_cause group_remedy_parked group_remedy_rejected group_remedy_unrouted cancel which
    confirm_wrong_count confirm_no_reason
    findings_title verdict no_finding verdict_unseen verdict_not_found verdict_contradicted verdict_ended
    never_compared
    context_title context_expired context_data context_acts context_operators context_actions context_expires
    context_registered context_endpoint anybody fact_round fact_business_key
    error_title not_found_title not_found_message no_such_decision no_such_refusal no_such_context not_permitted
    foreign_page failed_read failed_write failed_late next_doctor body_unread act_illegal act_no_outcome act_nothing_to_show
    why_nothing_unread why_is_decision why_refused why_card why_around why_peer why_text
    example_user example_time example_task example_id example_peer why_ends;
    told:
    bad_parameter: Two, pending_is: Two, parked_is: Two, rejected_is: One, unrouted_is: One, outcomes_parked_is: One,
    strays_is: One, findings_is: One, chart_label: Two, reported: Two, report_superseded: One, report_refused: Two, shown_on: Two,
    came_back: Two, by: Two, published_to: Two, attempt: Two, pruned: One, searched_all: One, searched_back_to: One, group_is: Three,
    requeue_these: One, requeue_warning: One, type_count: One, requeued: Two, findings_overview: Two,
    decision_heading: Three, refusal_heading: One, why_heading: One, why_they_read: One, why_because: One, why_do: One,
    why_strangers: Two, why_nothing_else: One, why_accepted: Two, why_shown_after: One, remedy_of: fn(&str) -> Option<&'static str>,
    fault_words: fn(&str) -> Option<FaultWords>,
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
