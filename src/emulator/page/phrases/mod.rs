//! The words of the page, one value of [`Phrases`] for each language: a missing phrase does not compile.

mod en;
mod zh;

use super::super::demo::Manner;

/// The languages of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lang {
    Zh,
    En,
}

impl Lang {
    pub(super) fn parse(tag: &str) -> Option<Self> {
        let primary = tag.split(['-', '_']).next().unwrap_or_default();
        if primary.eq_ignore_ascii_case("zh") {
            Some(Self::Zh)
        } else if primary.eq_ignore_ascii_case("en") {
            Some(Self::En)
        } else {
            None
        }
    }

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Zh => "zh",
            Self::En => "en",
        }
    }

    pub(super) const fn phrases(self) -> &'static Phrases {
        match self {
            Self::Zh => &zh::ZH,
            Self::En => &en::EN,
        }
    }
}

/// What stands on the page. Names say where.
pub(super) struct Phrases {
    pub(super) html_lang: &'static str,
    pub(super) title: &'static str,
    pub(super) emulator: &'static str,
    pub(super) skip: &'static str,
    pub(super) other_lang: &'static str,
    pub(super) theme: &'static str,
    pub(super) theme_auto: &'static str,
    pub(super) theme_light: &'static str,
    pub(super) theme_dark: &'static str,
    pub(super) console: &'static str,
    pub(super) live: &'static str,
    pub(super) live_off: &'static str,
    pub(super) newer: &'static str,
    pub(super) broker_up: &'static str,
    pub(super) broker_away: &'static str,
    pub(super) broker_cut: &'static str,
    pub(super) cut_off: &'static str,
    pub(super) reconnect: &'static str,
    pub(super) worker_now: &'static str,

    pub(super) phone: &'static str,
    pub(super) user: &'static str,
    pub(super) switch: &'static str,
    pub(super) pending: &'static str,
    pub(super) done: &'static str,
    pub(super) carbons: &'static str,
    pub(super) started: &'static str,
    pub(super) bot: &'static str,
    pub(super) nothing_pending: &'static str,
    pub(super) nothing_here: &'static str,
    pub(super) no_cards: &'static str,
    pub(super) approve: &'static str,
    pub(super) reject: &'static str,
    pub(super) reason: &'static str,
    pub(super) reason_needed: &'static str,
    pub(super) by: &'static str,
    pub(super) keeps_buttons: &'static str,
    pub(super) new_request: &'static str,
    pub(super) new_card: &'static str,
    pub(super) empty_hint: &'static str,
    pub(super) see_what_happened: &'static str,
    older: fn(usize) -> String,

    pub(super) happened: &'static str,
    pub(super) nothing_happened: &'static str,
    pub(super) tap: &'static str,
    pub(super) taps: &'static str,
    pub(super) all_taps: &'static str,
    pub(super) permalink: &'static str,
    pub(super) gone: &'static str,

    pub(super) step_tap: &'static str,
    pub(super) step_request: &'static str,
    pub(super) step_answer: &'static str,
    pub(super) step_command: &'static str,
    pub(super) step_worker: &'static str,
    pub(super) step_card: &'static str,
    pub(super) state_done: &'static str,
    pub(super) state_waiting: &'static str,
    pub(super) state_failed: &'static str,
    pub(super) state_none: &'static str,

    pub(super) tapped: &'static str,
    pub(super) replayed: fn(u64) -> String,
    pub(super) edited: fn(u64) -> String,
    pub(super) changed: &'static str,
    pub(super) on_card: &'static str,
    pub(super) in_list: &'static str,
    pub(super) by_search: &'static str,

    pub(super) view_decrypted: &'static str,
    pub(super) view_plain: &'static str,
    pub(super) view_sent: &'static str,
    pub(super) view_hex: &'static str,
    pub(super) view_curl: &'static str,
    pub(super) views: &'static str,
    pub(super) copy: &'static str,
    pub(super) copied: &'static str,
    pub(super) token_masked: &'static str,
    pub(super) not_kept: &'static str,
    pub(super) hex_sealed: &'static str,
    pub(super) hex_plain: &'static str,
    pub(super) iv: &'static str,
    pub(super) ciphertext: &'static str,
    pub(super) plaintext: &'static str,
    pub(super) padding: &'static str,
    pub(super) offset: &'static str,
    pub(super) part: &'static str,
    pub(super) bytes: &'static str,
    pub(super) text: &'static str,
    pub(super) more_bytes: &'static str,
    pub(super) replay: &'static str,
    pub(super) edit: &'static str,
    pub(super) edit_title: &'static str,
    pub(super) edit_hint: &'static str,
    pub(super) send: &'static str,
    pub(super) cancel: &'static str,
    pub(super) body: &'static str,

    pub(super) on_its_way: &'static str,
    pub(super) no_answer: &'static str,
    pub(super) patience: fn(u64) -> String,
    pub(super) approver_reads: &'static str,
    pub(super) same_as: fn(u64) -> String,
    pub(super) first_tap: &'static str,
    pub(super) overtakes: &'static str,

    pub(super) no_command: &'static str,
    pub(super) waits_for_broker: &'static str,
    pub(super) waits_for_worker: &'static str,
    pub(super) not_followed: &'static str,
    pub(super) cannot_follow: &'static str,
    pub(super) waits_for_queue: &'static str,
    pub(super) routing_key: &'static str,
    pub(super) headers: &'static str,
    pub(super) in_console: &'static str,
    pub(super) why_in_console: &'static str,

    pub(super) worker_does: &'static str,
    pub(super) worker_hint: &'static str,
    pub(super) applied: &'static str,
    pub(super) refused: &'static str,
    pub(super) failed: &'static str,
    pub(super) silent: &'static str,
    pub(super) worker_silent: &'static str,
    pub(super) no_report: &'static str,
    /// What the worker did, and its words.
    pub(super) said: fn(&str, &str) -> String,

    pub(super) unchanged: &'static str,
    pub(super) card: &'static str,
    pub(super) task: &'static str,
    pub(super) by_next_status: &'static str,
    pub(super) by_failure: &'static str,
    pub(super) by_call: &'static str,
    pub(super) turned: fn(&str, &str, &str) -> String,
    pub(super) turned_from: fn(&str, &str) -> String,
    pub(super) shows_buttons: &'static str,
    pub(super) shows_detail: &'static str,
    pub(super) status_approved: &'static str,
    pub(super) status_rejected: &'static str,
    pub(super) status_processed: &'static str,
    pub(super) status_pending: &'static str,

    pub(super) scenarios: &'static str,
    pub(super) scenarios_hint: &'static str,
    pub(super) run: &'static str,
    pub(super) run_again: &'static str,
    pub(super) expected: &'static str,
    pub(super) seen: &'static str,
    pub(super) check: &'static str,
    pub(super) as_expected: &'static str,
    pub(super) not_as_expected: &'static str,
    pub(super) same_as_command: &'static str,
    pub(super) not_run: &'static str,
    pub(super) needs_broker: &'static str,
    pub(super) takes: fn(u8) -> String,
    pub(super) running: &'static str,
    pub(super) result: fn(usize, usize) -> String,
    pub(super) all_scenarios: &'static str,
    pub(super) kept_pending: &'static str,
    pub(super) kept_published: &'static str,
    pub(super) kept_parked: &'static str,
    pub(super) no_answer_in_time: &'static str,
    pub(super) nobody_there: &'static str,
    pub(super) back: &'static str,
    pub(super) problem: &'static str,
    pub(super) forbidden: &'static str,
}

impl Phrases {
    pub(super) fn older_here(&self, count: &usize) -> String {
        (self.older)(*count)
    }

    pub(super) const fn manner(&self, manner: Manner) -> &'static str {
        match manner {
            Manner::Applied => self.applied,
            Manner::Refused => self.refused,
            Manner::Failed => self.failed,
            Manner::Silent => self.silent,
        }
    }
}

/// Milliseconds as seconds, with what is needed of a fraction.
fn seconds(ms: u64) -> String {
    if ms.is_multiple_of(1000) { (ms / 1000).to_string() } else { format!("{:.1}", ms as f64 / 1000.0) }
}
