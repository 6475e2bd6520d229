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
    data          TEXT                          -- JSON, as it was sent
) STRICT, WITHOUT ROWID;

-- A message shows one card, so it means one context.
CREATE UNIQUE INDEX contexts_by_message ON contexts (message_id) WHERE message_id IS NOT NULL;

-- For pruning.
CREATE INDEX contexts_by_expiry ON contexts (expires_at) WHERE expires_at IS NOT NULL;
