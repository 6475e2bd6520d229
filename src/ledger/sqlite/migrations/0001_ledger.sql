-- The log. Appended to by the writer alone; `seq` is 1, 2, 3 ... without gaps.
CREATE TABLE commands (
    seq           INTEGER PRIMARY KEY,
    command_id    BLOB    NOT NULL,             -- 16 bytes, UUIDv7
    received_at   INTEGER NOT NULL,             -- milliseconds since 1970, this machine's clock
    endpoint      TEXT    NOT NULL,
    action        TEXT    NOT NULL,             -- approve, reject, custom
    action_type   TEXT    NOT NULL,             -- the platform's word
    user_id       TEXT    NOT NULL,
    approval_code TEXT,
    instance_id   TEXT,
    task_id       TEXT,
    task_key      INTEGER NOT NULL,             -- commands with the same one are published in order
    fingerprint   BLOB    NOT NULL,             -- 32 bytes: the same callback
    decision_key  BLOB    NOT NULL,             -- 16 bytes: the same operator on the same task
    message       BLOB    NOT NULL              -- the rendered body, as it is published
) STRICT;

-- Grows at its right edge, as UUIDv7 does. There is no other index on the accept path.
CREATE UNIQUE INDEX commands_by_id ON commands (command_id);

-- Everything at or below `published_through` is published unless an exception says otherwise.
-- Published rows at or below `pruned_through` are gone.
CREATE TABLE cursor (
    id                INTEGER PRIMARY KEY CHECK (id = 1),
    published_through INTEGER NOT NULL,
    pruned_through    INTEGER NOT NULL,
    probed_at         INTEGER NOT NULL
) STRICT;
INSERT INTO cursor VALUES (1, 0, 0, 0);

-- Commands that are not in the state their place in the log says.
CREATE TABLE exceptions (
    seq             INTEGER PRIMARY KEY,
    state           TEXT    NOT NULL CHECK (state IN ('retrying', 'parked', 'requeued')),
    attempts        INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,           -- milliseconds since 1970
    changed_at      INTEGER NOT NULL,
    note            TEXT    NOT NULL
) STRICT;
CREATE INDEX exceptions_due ON exceptions (next_attempt_at) WHERE state <> 'parked';

-- Fingerprints that have a round are duplicates for ever.
CREATE TABLE rounds (
    fingerprint BLOB PRIMARY KEY,
    command_id  BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What people and their programs changed, by whom and why.
CREATE TABLE acts (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,                -- milliseconds since 1970: when it began
    changed_at INTEGER NOT NULL,                -- and when it changed something last
    act        TEXT    NOT NULL,
    via        TEXT    NOT NULL,                -- cli, api, console, signal
    name       TEXT,                            -- of the user, or of the API token
    sudo_user  TEXT,
    host       TEXT,
    peer       TEXT,
    reason     TEXT,                            -- in the actor's words
    count      INTEGER NOT NULL,                -- how many commands or contexts it changed
    detail     TEXT                             -- a JSON object
) STRICT;
CREATE INDEX acts_by_time ON acts (at);

-- The commands that acts changed, as long as they are here.
CREATE TABLE act_commands (
    id     INTEGER PRIMARY KEY,
    act_id INTEGER NOT NULL,
    seq    INTEGER NOT NULL,
    at     INTEGER NOT NULL                     -- milliseconds since 1970
) STRICT;
CREATE INDEX act_commands_of ON act_commands (seq, id);
CREATE INDEX act_commands_by_act ON act_commands (act_id);

-- The contexts that acts changed. No index by tag: registering would write to a page of it for each context.
CREATE TABLE act_contexts (
    id     INTEGER PRIMARY KEY,
    act_id INTEGER NOT NULL,
    tag    INTEGER NOT NULL                     -- the first 64 bits of the SHA-256 of the key
) STRICT;
CREATE INDEX act_contexts_by_act ON act_contexts (act_id);

-- Refused callbacks, redacted; the oldest of each kind are dropped.
CREATE TABLE refusals (
    id            INTEGER PRIMARY KEY,
    refused_at    INTEGER NOT NULL,
    endpoint      TEXT    NOT NULL,
    reason        TEXT    NOT NULL,
    detail        TEXT,
    peer          TEXT,
    body_bytes    INTEGER NOT NULL,
    action_type   TEXT,
    user_id       TEXT,
    approval_code TEXT,
    instance_id   TEXT,
    task_id       TEXT,
    message_id    TEXT,
    strange       INTEGER NOT NULL,             -- 1 if its sender was not known to be the approval center
    search_id            TEXT,                  -- the member `id`
    context_instance_id  TEXT,                  -- what the context named, which nothing may prove
    context_task_id      TEXT,
    context_round        TEXT,
    context_business_key TEXT
) STRICT;
CREATE INDEX refusals_by_kind ON refusals (strange, id);

-- What the third party registered beforehand: which task a context or a bot message means, and who may do what with it.
-- Keyed by the text itself: one search finds the row with all that stands in it.
CREATE TABLE contexts (
    key           TEXT    NOT NULL PRIMARY KEY, -- an `action_context`, byte for byte
    message_id    INTEGER,                      -- all 64 bits of it, as a number with a sign
    expires_at    INTEGER,                      -- milliseconds since 1970
    registered_at INTEGER NOT NULL,             -- milliseconds since 1970
    instance_id   TEXT,
    task_id       TEXT,
    round         TEXT,
    business_key  TEXT,
    operators     TEXT,                         -- a JSON list of texts
    actions       TEXT,                         -- a JSON list of texts
    approval_code TEXT,
    endpoint      TEXT,
    data          TEXT,                         -- JSON, as it was sent
    act_id        INTEGER                       -- the act that registered it last
) STRICT, WITHOUT ROWID;

-- A message shows one card, so it means one context.
CREATE UNIQUE INDEX contexts_by_message ON contexts (message_id) WHERE message_id IS NOT NULL;

-- For pruning: of acts, and of contexts.
CREATE INDEX contexts_by_act ON contexts (act_id) WHERE act_id IS NOT NULL;
CREATE INDEX contexts_by_expiry ON contexts (expires_at) WHERE expires_at IS NOT NULL;

-- How far published commands have been compared with what the approval center shows.
CREATE TABLE reconciliation (
    id              INTEGER PRIMARY KEY CHECK (id = 1),
    skipped_through INTEGER NOT NULL,           -- commands up to here were too old when their turn came
    asked_through   INTEGER NOT NULL,           -- those after them and up to here were asked for
    passed_at       INTEGER,                    -- when a pass last came to its end; milliseconds since 1970
    seen            INTEGER NOT NULL,           -- how many decisions the center showed
    ended           INTEGER NOT NULL,           -- how many it will never show, for a sound reason
    untellable      INTEGER NOT NULL            -- how many could not be asked for
) STRICT;
INSERT INTO reconciliation VALUES (1, 0, 0, NULL, 0, 0, 0);

-- Commands whose decision the center did not show when it was asked last.
CREATE TABLE findings (
    seq             INTEGER PRIMARY KEY,
    verdict         TEXT    NOT NULL CHECK (verdict IN ('unseen', 'not_found', 'contradicted', 'ended', 'unpublished')),
    task_status     TEXT,                       -- the platform's words
    instance_status TEXT,
    checks          INTEGER NOT NULL,           -- how often the center was asked
    found_at        INTEGER NOT NULL,           -- milliseconds since 1970
    checked_at      INTEGER NOT NULL,
    next_check_at   INTEGER                     -- NULL: not asked again by itself
) STRICT;
CREATE INDEX findings_due ON findings (next_check_at) WHERE next_check_at IS NOT NULL;

-- What workers reported of commands: the last word of each.
CREATE TABLE outcomes (
    seq         INTEGER PRIMARY KEY,            -- of the command
    reported_at INTEGER NOT NULL,               -- milliseconds since 1970
    superseded  INTEGER NOT NULL,               -- how many other reports came before
    outcome     TEXT    NOT NULL CHECK (outcome IN ('applied', 'refused', 'failed')),
    status      TEXT,                           -- of the card, in the platform's words, if the worker said so
    message     TEXT,
    instance    TEXT                            -- JSON, as it was sent; the last one that was
) STRICT;

-- Where an outcome is to be shown, and how far that has come. A later report starts again, with a larger id.
CREATE TABLE showings (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    seq             INTEGER NOT NULL,           -- of the command
    surface         TEXT    NOT NULL CHECK (surface IN ('card', 'instance')),
    target          TEXT    NOT NULL,           -- the id of the bot message or of the instance
    state           TEXT    NOT NULL CHECK (state IN ('waiting', 'shown', 'parked')),
    attempts        INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,           -- milliseconds since 1970
    changed_at      INTEGER NOT NULL,           -- milliseconds since 1970
    note            TEXT,
    UNIQUE (seq, surface)
) STRICT;
CREATE INDEX showings_waiting ON showings (next_attempt_at, id) WHERE state = 'waiting';
CREATE INDEX showings_in_order ON showings (surface, target, id) WHERE state = 'waiting';
CREATE INDEX showings_waiting_of ON showings (seq) WHERE state = 'waiting';
CREATE INDEX showings_parked ON showings (seq) WHERE state = 'parked';

-- The update_time with which an instance was synchronised last: the platform ignores what is not larger.
CREATE TABLE instance_versions (
    instance_id TEXT    NOT NULL PRIMARY KEY,
    update_time INTEGER NOT NULL,
    seq         INTEGER NOT NULL                -- the last command by which it was
) STRICT, WITHOUT ROWID;
CREATE INDEX instance_versions_by_seq ON instance_versions (seq);

-- When the cursor moved: commands after `after` and up to `through` were confirmed by the broker, unless they had an
-- exception. One row a second at the most: later moves within the second widen it.
CREATE TABLE publish_marks (
    through  INTEGER PRIMARY KEY,
    after    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,                  -- milliseconds since 1970: the first move of the row
    last_at  INTEGER NOT NULL,                  -- and the last
    exchange TEXT                               -- where they were published
) STRICT;

-- What the broker said of commands that left the log's order. The first and the newest rows of each command are kept.
CREATE TABLE publish_events (
    id       INTEGER PRIMARY KEY,
    seq      INTEGER NOT NULL,                  -- of the command
    at       INTEGER NOT NULL,                  -- milliseconds since 1970
    event    TEXT    NOT NULL CHECK (event IN ('waiting', 'refused', 'published')),
    attempt  INTEGER,                           -- of 'refused': its number since the last requeue
    passed   INTEGER NOT NULL,                  -- 1 if the cursor had passed the command before: it was published once already
    words    TEXT,                              -- of 'refused': the broker's
    exchange TEXT                               -- of 'published'
) STRICT;
CREATE INDEX publish_events_of ON publish_events (seq, id);

-- How many milliseconds the time within a command_id was ahead of received_at at the most, if more than a second: ids only
-- grow, whatever happens to the clock.
CREATE TABLE id_lead (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    ms  INTEGER NOT NULL
) STRICT;
INSERT INTO id_lead VALUES (1, 1000);

-- Reports of workers that were refused, of commands that are here. The newest of each command are kept.
CREATE TABLE refused_reports (
    id      INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL,                   -- of the command
    at      INTEGER NOT NULL,                   -- milliseconds since 1970
    outcome TEXT    NOT NULL CHECK (outcome IN ('applied', 'refused', 'failed')),
    reason  TEXT    NOT NULL
) STRICT;
CREATE INDEX refused_reports_of ON refused_reports (seq, id);

-- When a callback came in by a credential last: what tells that an old one may be taken out.
CREATE TABLE credential_uses (
    endpoint     TEXT    NOT NULL,
    tag          INTEGER NOT NULL,              -- 16 bits of a hash of token and key: enough to tell four apart
    known_since  INTEGER NOT NULL,              -- milliseconds since 1970: when it was configured
    last_used_at INTEGER,                       -- NULL: never since then
    PRIMARY KEY (endpoint, tag)
) STRICT, WITHOUT ROWID;

-- Published commands that came back: from the queue of dead letters, or because no queue was bound. The newest of each
-- command are kept.
CREATE TABLE dead_letters (
    id      INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL,                   -- of the command
    came_at INTEGER NOT NULL,                   -- milliseconds since 1970
    died_at INTEGER,                            -- the same, by the broker's clock, to the second
    why     TEXT    NOT NULL CHECK (why IN ('rejected', 'delivery_limit', 'expired', 'overflowed', 'unrouted')),
    queue   TEXT,                               -- that it was in
    is_open INTEGER NOT NULL                    -- 1 until it is requeued or a worker reports an outcome
) STRICT;
CREATE INDEX dead_letters_of ON dead_letters (seq, id);
CREATE UNIQUE INDEX dead_letters_open ON dead_letters (seq) WHERE is_open = 1;

-- Dead letters that are no command of this ledger. Kept until an operator removes them; only so many are taken.
CREATE TABLE strays (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    came_at     INTEGER NOT NULL,               -- milliseconds since 1970
    why         TEXT,                           -- as above, if the broker said so
    queue       TEXT,
    reason      TEXT,                           -- why countersign itself refused it: a worker's report
    message_id  TEXT,
    type        TEXT,
    routing_key TEXT    NOT NULL,
    body        BLOB    NOT NULL
) STRICT;
