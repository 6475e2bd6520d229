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

-- Where an outcome is to be shown, and how far that has come. A later report begins anew, with a larger id.
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
