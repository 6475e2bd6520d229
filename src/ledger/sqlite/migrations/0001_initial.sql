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

-- What operators did, by command line or API.
CREATE TABLE operator_acts (
    id       INTEGER PRIMARY KEY,
    acted_at INTEGER NOT NULL,
    seq      INTEGER NOT NULL,
    act      TEXT    NOT NULL
) STRICT;

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
    strange       INTEGER NOT NULL              -- 1 if its sender was not known to be the approval center
) STRICT;
CREATE INDEX refusals_by_kind ON refusals (strange, id);
