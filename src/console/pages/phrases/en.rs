//! English.

use super::{FaultWords, Phrases};

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
    why_next: "Next:",
    theme_auto: "Theme: auto",
    theme_light: "Theme: light",
    theme_dark: "Theme: dark",
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
    refused_last_hour: "Refused in the last hour:",
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
    per_minute: "a minute",
    waiting: "waiting",
    oldest: "oldest",
    in_all: "in all",
    alarm_not_ready: "No callback can be kept now: approvers read that the system is busy or unavailable.",
    alarm_broker: "RabbitMQ is not connected. Decisions are kept and published when it is back.",
    alarm_blocked: "RabbitMQ blocks publishing: it has too little memory or disk.",
    health_title: "Health",
    ready: "Ready: callbacks are kept.",
    not_ready: "Not ready: callbacks cannot be kept now.",
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
    check_reload: "Last reload",
    check_parked: "Commands for an operator",
    check_outcomes: "Outcomes not shown",
    check_findings: "Findings",
    ok: "ok",
    fact_since: "Configuration in force since",
    fact_reload: "Last reload",
    fact_restart: "Keys that need a restart",
    fact_leader: "Publishing replica",
    fact_head: "Head of the log",
    fact_cursor: "Published through",
    fact_size: "Ledger size",
    fact_free: "Free on its disk",
    remedy_ledger: "Check the disk and the log: countersign doctor.",
    remedy_draining: "The service is being stopped. Callbacks go to another replica, or are tried again.",
    remedy_broker: "Bring RabbitMQ back, or fix amqp.url. Nothing is lost meanwhile.",
    remedy_topology: "countersign topology check, then declare what is missing.",
    remedy_reload: "The earlier configuration stays in force. countersign config check names the faults.",
    remedy_parked: "See Parked.",
    remedy_outcomes: "The decisions are carried out; only the approvers do not see it. See Parked.",
    remedy_findings: "See Findings.",
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
    col_number: "No.",
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
    approve: "approve",
    reject: "reject",
    custom: "custom",
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
    event_refused: "refused by the broker",
    event_published: "published",
    event_came_back: "came back",
    event_reported: "reported",
    event_report_refused: "report refused",
    event_shown: "shown",
    event_requeued: "requeued",
    event_parked: "parked",
    event_shown_again: "shown again",
    event_reconciled: "compared with the approval center",
    answered_200: "answered 200",
    waits_for_earlier: "an earlier command of its task is not published yet",
    state_pending: "It is kept and will be published; RabbitMQ has not confirmed it yet.",
    state_published: "RabbitMQ has it in a queue. What happens next is up to a worker.",
    state_parked: "It is kept and is not published until an operator requeues it.",
    state_rejected: "A worker rejected it, or its queue dropped it. Nobody carries it out until it is requeued.",
    state_unrouted: "No queue was bound for it. Nobody carries it out until it is requeued.",
    fact_id: "command_id",
    fact_seq: "Place in the log",
    fact_approval_code: "Definition",
    fact_attempts: "Refused by the broker, times",
    fact_next_attempt: "Next attempt",
    fact_message: "Worker's words",
    fact_showing: "Showing",
    fact_event: "Outcome",
    fact_status: "Card status",
    fact_size_bytes: "Bytes of the body",
    fact_stranger: "Stranger",
    fact_search: "Task of the search",
    fact_context_task: "Named by the context",
    yes: "yes",
    no: "no",
    refusals_title: "Refusals",
    no_refusal: "No refused callback matches. Only the newest are kept (ledger.refusals_kept).",
    they_read: "They read",
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
    showings_parked: "Outcomes that the approval center rejected:",
    showings_remedy: "The decisions are carried out; the approvers do not see it. Fix what the note of a showing says, then show \
                      them again.",
    strays: "Strays:",
    strays_remedy: "Dead letters that are no command of this ledger. Look at them, then remove them.",
    more_wait: "There are more than are listed here. Requeue these first.",
    changed_meanwhile: "Changed meanwhile, and left alone:",
    changed_state: "is now",
    changed_gone: "is no longer in the ledger",
    unnamed_cause: "no cause noted",
    group_remedy_parked: "Fix what the cause says, then requeue.",
    group_remedy_rejected: "See why the workers reject them or the queue drops them, then requeue.",
    group_remedy_unrouted: "Bind a queue for their routing key, then requeue.",
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
    why_refused: "REFUSED",
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
    bad_parameter: |name, message| format!("{name}: {message}"),
    pending_is: |count, oldest| {
        format!(
            "{}, oldest {oldest}: not confirmed by RabbitMQ",
            plural(count, "decision pending", "decisions pending")
        )
    },
    parked_is: |count, cause| format!("{}{cause}", plural(count, "command parked", "commands parked")),
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
        format!("{} by the approval center", plural(count, "outcome rejected", "outcomes rejected"))
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
    refusal_heading: |reason| format!("Refused: {reason}"),
    why_heading: |asked| format!("Asked: {asked}"),
    why_they_read: |sentence| format!("They read: {sentence}"),
    why_because: |cause| format!("Because: {cause}"),
    why_do: |remedy| format!("Do: {remedy}"),
    why_strangers: |count, peer| {
        format!("Cannot be attributed: {count} unauthenticated from {peer}. Their bodies name nobody.")
    },
    why_nothing_else: |what| format!("Nothing else reached us for {what}."),
    why_accepted: |state, meaning| format!("Now {state}. {meaning}"),
    why_shown_after: |outcome| format!("The worker reported: {outcome}."),
    remedy_of,
    fault_words,
};

fn remedy_of(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "unauthenticated" => {
            "From the approval center: compare token and key of the definition and of the bot message with the endpoint's credentials (countersign doctor). From anybody else: nothing to do."
        }
        "malformed" => {
            "The cause names the field. If the approval center sent it, its format has changed: report it."
        }
        "action_not_allowed" => {
            "Add the action to `actions` of the endpoint or of the context, or leave its button out of action_configs."
        }
        "definition_not_allowed" => "Add the definition's code to `approval_codes` of the endpoint.",
        "context_invalid" => {
            "Compare the action_context of the task or bot message with `context` of the endpoint; countersign context verify reads a token."
        }
        "context_expired" => {
            "The card or task was older than its context permits: send it again, with a later expiry."
        }
        "operator_not_allowed" => {
            "The context permits others: compare its `operators` with the task's assignee."
        }
        "conflicting" => {
            "An earlier decision says the opposite; the cause has its id. Look there which one counts."
        }
        "declined" => {
            "The decision is kept. The worker said that it will not or could not do it; the cause has its words."
        }
        "body_too_large" => "Raise http.max_body_bytes if such bodies are to pass.",
        "too_slow" => {
            "Check the network and the proxies in front of countersign; http.body_read_timeout_ms is the limit."
        }
        "rate_limited" => {
            "The cause names the limit. If all callbacks come through a proxy, name it in http.trusted_proxies."
        }
        "overloaded" => "The ledger's disk is too slow for the load: countersign bench disk measures it.",
        "ledger_unavailable" => "Check the log and the ledger's disk: countersign doctor.",
        "shutting_down" => "countersign was being restarted: the approver may press again.",
        "not_found" | "method_not_allowed" => "Not a callback: nobody pressed a button. Nothing to do.",
        _ => return None,
    })
}

fn fault_words(id: &str) -> Option<FaultWords> {
    let (name, approver, remedy) = match id {
        "ledger" => (
            "The ledger cannot be written: disk full, read-only or gone",
            "The system cannot take decisions now",
            "Free or repair the disk; after a failed sync restart the service. countersign doctor.",
        ),
        "overloaded" => (
            "The writer's queue is full",
            "The system is busy; try again",
            "The disk is too slow for the load: countersign bench disk.",
        ),
        "draining" => (
            "The service is being stopped",
            "The system is restarting; try again",
            "Wait, or see that another replica is ready.",
        ),
        "broker" => (
            "RabbitMQ is away, or refuses user or virtual host",
            "Success",
            "Bring it back, or fix user, permission or URL and reload. Nothing is lost.",
        ),
        "blocked" => (
            "RabbitMQ has a memory or disk alarm",
            "Success",
            "Give it room; consumers that lag are the usual cause.",
        ),
        "topology" => (
            "An exchange, queue or binding is missing or different",
            "Success",
            "countersign topology check; declare it, then requeue what is unrouted.",
        ),
        "parked" => (
            "RabbitMQ refused commands too often, such as by a full queue",
            "Success",
            "Make room, then requeue what is parked.",
        ),
        "rejected" => (
            "Workers reject commands, or a policy drops them",
            "Success; nothing is carried out",
            "Fix worker or policy, then requeue what is rejected.",
        ),
        "unrouted" => (
            "No queue is bound for a routing key",
            "Success; nothing is carried out",
            "Bind a queue, then requeue what is unrouted.",
        ),
        "workers" => {
            ("No worker consumes the queue", "Success; nothing is carried out yet", "Start workers.")
        }
        "outcomes" => (
            "The approval center rejects outcomes",
            "The card keeps its earlier state",
            "Read the note of the showing, fix it, show again.",
        ),
        "findings" => (
            "The approval center does not show decisions",
            "The task is still to be decided",
            "See Findings: worker, synchronisation, ids.",
        ),
        "reload" => (
            "A reload was rejected",
            "Success",
            "The earlier configuration is in force: countersign config check.",
        ),
        _ => return None,
    };
    Some(FaultWords { name, approver, remedy })
}
