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

-- Where the cursor stood, and when: what lies below was published by then.
CREATE TABLE reconciliation_marks (
    marked_at INTEGER PRIMARY KEY,              -- milliseconds since 1970
    through   INTEGER NOT NULL
) STRICT;

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
