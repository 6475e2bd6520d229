-- What a refused callback was about, beyond what 0001 keeps of it.
ALTER TABLE refusals ADD COLUMN search_id TEXT;             -- the member `id`
ALTER TABLE refusals ADD COLUMN context_instance_id TEXT;   -- what the context named, which nothing may prove
ALTER TABLE refusals ADD COLUMN context_task_id TEXT;
ALTER TABLE refusals ADD COLUMN context_round TEXT;
ALTER TABLE refusals ADD COLUMN context_business_key TEXT;

-- When the cursor moved: commands after `after` and up to `through` were confirmed by the broker, unless they had an
-- exception. One row a second at the most: later moves within the second widen it.
CREATE TABLE publish_marks (
    through  INTEGER PRIMARY KEY,
    after    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,                  -- milliseconds since 1970: the first move of the row
    last_at  INTEGER NOT NULL,                  -- and the last
    exchange TEXT                               -- where they were published
) STRICT;
-- The marks say the same, and say it of every command.
DROP TABLE reconciliation_marks;

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
CREATE INDEX operator_acts_of ON operator_acts (seq, id);

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
