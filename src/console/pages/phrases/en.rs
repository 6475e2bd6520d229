//! English.

use super::Phrases;

fn plural(count: &str, one: &str, many: &str) -> String {
    if count == "1" { format!("1 {one}") } else { format!("{count} {many}") }
}

pub(super) const PHRASES: Phrases = Phrases {
    code: "en",
    other_code: "zh",
    other_language: "中文",
    skip: "Skip to content",
    why_label: "Why? User, task, instance, id, time or peer",
    why_placeholder: "user, task, id, 10:31",
    why_button: "Why?",
    why_title: "Why?",
    why_help: "Ask with what you have: a user, a task, an id, a time, an address, or two of them.",
    why_next: "What to do:",
    theme_auto: "auto",
    theme_light: "light",
    theme_dark: "dark",
    logged_in_as: "Logged in as ",
    look_only: "look only",
    log_out: "Log out",
    log_in: "Log in",
    login_title: "Log in",
    login_note: "A token of admin.tokens, or admin.token. The login ends after 30 minutes without a request, after 12 hours, \
                 and when the token is changed.",
    login_wrong: "This is no token of this service.",
    login_too_often: "Too many attempts from this address. Try again in a minute.",
    login_not_here: "A login over plain HTTP could be read by others on the network, so there is none here. Use HTTPS and set \
                     admin.public_url, or a tunnel: ssh -L 9090:localhost:9090 HOST, then \
                     http://countersign.localhost:9090.",
    login_no_pages: "This token registers contexts. It opens no pages.",
    token: "Token",
    nav_label: "Pages",
    nav_home: "Overview",
    nav_decisions: "Decisions",
    nav_refusals: "Refusals",
    nav_parked: "Parked",
    nav_findings: "Findings",
    nav_acts: "Acts",
    nav_health: "Health",
    times_are: "Times are at",
    keys_note: "Keys: / Why, j k Enter, ?",
    keys_off: "Turn keys off",
    keys_on: "Turn keys on",
    keys_help: "/ asks Why. j and k go down and up in a list, Enter opens. ? shows this.",
    close: "Close",
    copied: "Copied",
    copy: "Copy",
    live: "Live",
    live_lost: "No connection to the service; trying again",
    live_paused: "Paused",
    live_new: "new",
    pause: "Pause",
    resume: "Resume",
    home_title: "Overview",
    alarms: "Needs attention",
    nothing_wrong: "Nothing waits for an operator.",
    stages: "Where decisions are",
    refused_last_hour: "Not accepted in the last hour:",
    none: "none",
    chart_title: "Accepted in the last hour, every 2 minutes",
    as_table: "As a table",
    col_from: "From",
    accepted: "Accepted",
    newest: "Newest decisions",
    no_decision_yet: "No decision has been accepted yet.",
    all_decisions: "All decisions",
    look: "Look",
    stage_accepted: "accepted",
    stage_pending: "pending",
    stage_published: "published",
    stage_outcome: "outcomes waiting",
    stage_shown: "not shown",
    per_minute: "",
    health_title: "Health",
    checks: "Checks",
    check: "Check",
    result: "Result",
    remedy: "What to do",
    faults: "Faults and what they mean",
    fault: "Fault",
    approver_sees: "The approver sees",
    now: "now",
    configuration: "Configuration and ledger",
    credentials: "Credentials",
    credential: "Credential",
    last_used: "Last used",
    never: "never",
    also: "For programs:",
    check_ledger: "Ledger",
    check_accepting: "Accepting callbacks",
    check_broker: "RabbitMQ",
    check_topology: "Exchanges and queues",
    check_reload: "Reload",
    check_parked: "Commands for an operator",
    check_outcomes: "Outcomes not shown",
    check_findings: "Findings",
    ok: "ok",
    fact_since: "Configuration in force since",
    fact_reload: "Last reload",
    fact_restart: "Keys that need a restart",
    fact_leader: "Publishing replica",
    fact_head: "Newest place in the ledger",
    fact_cursor: "Published through place",
    fact_size: "Ledger size",
    fact_free: "Free on its disk",
    unknown: "unknown",
    reload_none: "none since the start",
    decisions_title: "Decisions",
    col_time: "Time",
    col_user: "User",
    col_action: "Action",
    col_task: "Instance / task",
    col_endpoint: "Endpoint",
    col_state: "State",
    col_reason: "Reason",
    col_peer: "Peer",
    any: "any",
    outcome: "Outcome",
    filter: "Filter",
    clear: "Clear",
    paging: "Pages of the list",
    newest_first_page: "Newest",
    older: "Older",
    stopped: "The search took too long and stopped.",
    search_on: "Search on",
    newer: "Next",
    export: "Export this filter:",
    cause: "Cause",
    since: "From",
    until: "To",
    card: "Card",
    instance: "Instance",
    what_to_do: "What you can do",
    reason_label: "Reason (kept with the act)",
    timeline: "What happened",
    time_unknown: "time unknown",
    facts: "Details",
    command_json: "Command as JSON",
    cli: "Command line:",
    act_requeue: "Requeue",
    act_park: "Park",
    act_show_again: "Show again",
    warn_requeue: "Publishes the command again with the same message_id. Workers must act once per message_id.",
    warn_requeue_published: "RabbitMQ has confirmed this command already. Workers get it again, with the same message_id, and \
                             must act once per message_id.",
    warn_park: "Sets the command aside until somebody requeues it. Later commands of its task may be published before it.",
    warn_show_again: "Sends the outcome to the approval center again.",
    event_accepted: "accepted",
    event_waiting: "waiting",
    event_refused: "not taken by RabbitMQ",
    event_published: "published",
    event_came_back: "came back",
    event_reported: "reported",
    event_report_refused: "report not accepted",
    event_shown: "shown",
    event_requeued: "requeued",
    event_parked: "parked",
    event_shown_again: "shown again",
    event_reconciled: "compared with the approval center",
    answered_200: "answered 200",
    waits_for_earlier: "an earlier command of its task is not published yet",
    fact_id: "command_id",
    fact_seq: "Place in the ledger",
    fact_approval_code: "Definition",
    fact_attempts: "Not taken by RabbitMQ, times",
    fact_next_attempt: "Next attempt",
    fact_message: "Worker's words",
    fact_showing: "Showing",
    fact_event: "Outcome",
    fact_status: "Card status",
    fact_size_bytes: "Bytes of the body",
    fact_stranger: "From a stranger",
    fact_search: "The search points to the task",
    fact_context_task: "The context points to",
    yes: "yes",
    no: "no",
    refusals_title: "Refusals",
    no_refusal: "No refused callback matches. Only the newest are kept (ledger.refusals_kept).",
    they_read: "The approver saw",
    because: "Because",
    no_detail: "No cause was kept; the reason says it all.",
    stranger_note: "The sender knows none of our keys and tokens, so nothing of the content was kept.",
    acts_title: "Acts",
    act: "Act",
    actor: "Actor",
    count: "Number",
    reason: "Reason",
    no_act: "No act matches.",
    detail: "Detail",
    by_cli: "command line",
    by_signal: "signal",
    parked_title: "Parked",
    nothing_waits: "Nothing waits for you.",
    showings_parked: "Outcomes that the approval center did not accept:",
    showings_remedy: "The decisions are carried out; the approvers do not see it. Fix what the note of a showing says, then show \
                      them again.",
    strays: "Strays:",
    strays_remedy: "Dead letters that are no command of this ledger. Look at them, then remove them.",
    more_wait: "There are more than are listed here. Requeue these first.",
    changed_meanwhile: "Changed meanwhile, and left alone:",
    changed_gone: "is no longer in the ledger",
    unnamed_cause: "no cause noted",
    cancel: "Cancel",
    which: "Which",
    confirm_wrong_count: "The number typed is not the number of commands. Nothing was done.",
    confirm_no_reason: "Give a reason of 1 to 500 characters. Nothing was done.",
    findings_title: "Findings",
    verdict: "Verdict",
    no_finding: "The approval center shows every decision that was compared.",
    verdict_unseen: "The task is still pending there. See that a worker took the command and that the instance was synchronised \
                     with a larger update_time.",
    verdict_not_found: "The center has no such instance or task. Synchronise it under the ids of the callback and the definition's \
                        real code.",
    verdict_contradicted: "The center shows the other decision. Look at the third party's own record: it decides.",
    verdict_ended: "The task ended without this decision. Nothing to do.",
    never_compared: "Nothing has been compared yet. It is done with [approval_center], and by countersign reconcile.",
    context_title: "Registered context",
    context_expired: "It has expired: callbacks with it are refused as context_expired.",
    context_data: "Data",
    context_acts: "Acts on this context",
    context_operators: "Permitted users",
    context_actions: "Permitted actions",
    context_expires: "Expires",
    context_registered: "Registered",
    context_endpoint: "Endpoint",
    anybody: "any",
    fact_round: "Round",
    fact_business_key: "Business key",
    error_title: "This did not work",
    not_found_title: "Not found",
    not_found_message: "There is no such page.",
    no_such_decision: "The ledger holds no decision with this id; it may have been pruned.",
    no_such_refusal: "The ledger holds no refused callback with this number; only the newest are kept.",
    no_such_context: "No context is registered under this key, or it expired over a week ago.",
    not_permitted: "Your role does not permit this. Nothing was changed.",
    foreign_page: "This request did not come from a page of this service. Nothing was changed.",
    failed_read: "The ledger cannot be read now; the cause is in the log. Callbacks are still taken if /readyz says so.",
    failed_write: "The ledger cannot be written now; the cause is in the log.",
    failed_late: "The ledger did not answer in time. Narrow the filter by user, task or time, or use the command line.",
    next_doctor: "Next: countersign doctor",
    body_unread: "The form could not be read. Nothing was changed.",
    act_illegal: "The state of the command does not allow it any more. Nothing was changed.",
    act_no_outcome: "No worker has reported an outcome of it.",
    act_nothing_to_show: "It did not come from a card, and its outcome has no instance.",
    why_nothing_unread: "This is longer than any id. Ask with one or two of: a user, a task, an id, a time, an address.",
    why_is_decision: "a decision",
    why_card: "card",
    why_around: "±5 min",
    why_peer: "peer",
    why_text: "user, task or instance",
    example_user: "what became of a user's decisions",
    example_time: "what happened 5 minutes before and after",
    example_task: "a task or an instance",
    example_id: "a decision by its id, a card by its message_id",
    example_peer: "what an address sent",
    why_ends: "Older ones may have been pruned.",
    theme: "Theme",
    unit: "",
    per_minute_after: "a minute",
    in_all: "",
    in_all_after: "in all",
    group_remedy_parked: "Fix what the cause says, then requeue.",
    group_remedy_rejected: "See why the workers reject them or the queue drops them, then requeue.",
    group_remedy_unrouted: "Bind a queue for their routing key, then requeue.",
    unit_ms: "ms",
    unit_s: "s",
    unit_min: "min",
    unit_h: "h",
    unit_d: "d",
    comma: ", ",
    colon: ": ",
    space: " ",
    host_name: "Host name",
    console: "console",
    loopback: "this machine (no login)",
    configuration_word: "configuration",
    live_changed: "This page has changed; load it again",
    look_only_note: "A login that only looks cannot requeue, park or show again.",
    declined_last_day: "Not carried out by workers in the last 24 hours:",
    declined_remedy: "As a rule the approver was told that it was submitted. Ask the owners of the business system, and tell the approver if need be.",
    ready: "Ready: callbacks are kept, and nothing is wrong.",
    not_inspected: "not inspected yet",
    not_compared: "not compared yet",
    tell_topology: "It is inspected when RabbitMQ is connected; countersign topology check does so as well.",
    ledger_no_room: "the ledger's disk is low on space",
    ledger_not_durable: "the ledger's server does not keep commits as ledger.durability demands",
    ledger_timeout: "the ledger did not answer in time",
    ledger_unavailable: "the ledger cannot be written",
    check_workers: "Workers",
    check_waiting: "Decisions that wait",
    check_strays: "Strays",
    reload_applied: "applied",
    reload_failed: "failed",
    task: "Task",
    card_filter: "Card (message_id)",
    target: "On",
    event_repeated: "came again",
    done_requeue: "Requeued.",
    done_park: "Parked.",
    done_show_again: "It will be shown again.",
    see_decision: "See the decision",
    why_doctor: "If the approver did press, check that callbacks arrive:",
    why_no_names: "Ask with a user_id such as zhang3, not with a name.",
    why_nothing_around: "No other callback came in the 5 minutes before and after.",
    bad_parameter: |name, message| format!("{name}: {message}"),
    pending_is: |count, oldest| {
        format!(
            "{}, oldest {oldest}: not confirmed by RabbitMQ",
            plural(count, "decision pending", "decisions pending")
        )
    },
    rejected_is: |count| {
        format!(
            "{}: workers or queues gave them back",
            plural(count, "command rejected", "commands rejected")
        )
    },
    unrouted_is: |count| {
        format!("{}: no queue was bound", plural(count, "command unrouted", "commands unrouted"))
    },
    outcomes_parked_is: |count| {
        format!("{} by the approval center", plural(count, "outcome not accepted", "outcomes not accepted"))
    },
    strays_is: |count| {
        format!("{} of other systems or ledgers", plural(count, "dead letter", "dead letters"))
    },
    findings_is: |count| {
        format!("{} at the approval center", plural(count, "decision not visible", "decisions not visible"))
    },
    chart_label: |total, most| format!("{total} accepted in the last hour, at most {most} in 2 minutes"),
    reported: |outcome, words| {
        if words.is_empty() { format!("worker: {outcome}") } else { format!("worker: {outcome} \"{words}\"") }
    },
    report_superseded: |count| format!("after {} that it replaces", plural(count, "report", "reports")),
    report_refused: |outcome, reason| format!("{outcome}: {reason}"),
    shown_on: |surface, target| format!("{surface} {target}"),
    came_back: |why, queue| {
        if queue.is_empty() { why.to_owned() } else { format!("{why}, from the queue {queue}") }
    },
    by: |actor, reason| {
        if reason.is_empty() { format!("by {actor}") } else { format!("by {actor}: {reason}") }
    },
    published_to: |exchange, key| {
        if exchange.is_empty() {
            format!("routing key {key}")
        } else {
            format!("{exchange}, routing key {key}")
        }
    },
    attempt: |attempt, reason| format!("attempt {attempt}: {reason}"),
    pruned: |before| format!("Published decisions before {before} have been pruned."),
    searched_back_to: |at| format!("Searched back to {at}, then the time was over."),
    searched_all: |what| {
        if what.is_empty() {
            "The ledger holds no decision.".to_owned()
        } else {
            format!("No decision matches: {what}.")
        }
    },
    group_is: |count, endpoint, times| {
        format!("{}, endpoint {endpoint}, received {times}", plural(count, "command", "commands"))
    },
    requeue_these: |count| {
        if count == "1" {
            "Requeue this command".to_owned()
        } else {
            format!("Requeue these {count} commands")
        }
    },
    requeue_warning: |count| {
        format!(
            "Publishes {} again, with the same message_id. Workers must act once per message_id.",
            plural(count, "command", "commands")
        )
    },
    type_count: |count| format!("Type {count} to confirm"),
    requeued: |done, changed| {
        if changed == "0" {
            format!("{done} requeued.")
        } else {
            format!("{done} requeued, {changed} changed meanwhile.")
        }
    },
    findings_overview: |through, at| format!("Compared up to place {through} of the log; last pass {at}."),
    decision_heading: |user, action, task| format!("{user} {action} {task}"),
    refusal_heading: |reason| format!("Not accepted: {reason}"),
    why_heading: |asked| format!("Asked: {asked}"),
    why_they_read: |sentence| format!("The approver saw: {sentence}"),
    why_because: |cause| format!("Because: {cause}"),
    why_do: |remedy| format!("What to do: {remedy}"),
    why_strangers: |count, peer| {
        format!(
            "Besides, {} from {peer} could not be authenticated, so nobody can tell which user sent it.",
            plural(count, "request", "requests")
        )
    },
    why_nothing_else: |what| format!("Nothing else reached us for {what}."),
    parked_is: |count| plural(count, "command parked", "commands parked"),
    not_ready: |faults| format!("Not ready: no callback can be kept now. {faults}"),
    ready_but: |count, faults| {
        format!("Callbacks are kept; {}: {faults}", plural(count, "thing is wrong", "things are wrong"))
    },
    changed_state: |state, code| {
        if state == code { format!("is now {state}") } else { format!("is now {state} ({code})") }
    },
    why_accepted: |state, code, meaning| {
        if state == code {
            format!("Now {state}. {meaning}")
        } else {
            format!("Now {state} ({code}). {meaning}")
        }
    },
    alarm_note: |approver, remedy| format!("The approver sees: {approver}. {remedy}"),
    oldest_waits: |waited| format!("the oldest for {waited}"),
    topology_is: |objects| format!("missing or different: {objects}"),
    reload_at: |word, at| format!("{word}, {at}"),
    pair_is: |number| format!("pair {number}"),
    is_value: |name, value| format!("{name}: {value}"),
    and_others: |first, others| format!("{first} and {others} more"),
    because_of: |cause, reason| format!("{cause}: \"{reason}\""),
    repeated: |count| {
        format!(
            "The same callback came again {}; nothing was carried out twice. How long the answer took is not recorded: after 10 s (Lark: 5 s) the approver still saw that it failed.",
            plural(count, "time", "times")
        )
    },
    within: |span| format!("within {span}"),
    showing_is: |surface, id, state| format!("{surface} {id}: {state}"),
    shown_again: |done, changed| {
        if changed == "0" {
            format!("{done} will be shown again.")
        } else {
            format!("{done} will be shown again, {changed} will not.")
        }
    },
    show_these_again: |count| {
        if count == "1" {
            "Show this outcome again".to_owned()
        } else {
            format!("Show these {count} outcomes again")
        }
    },
    show_again_warning: |count| {
        format!("Sends {} to the approval center again.", plural(count, "outcome", "outcomes"))
    },
    why_nothing: |what| format!("No callback was found for {what}."),
    why_worker_said: |words| format!("The worker said: {words}"),
};
