-- The ledger in PostgreSQL. Times are milliseconds since 1970, unless a comment says otherwise.
-- Every later version only adds to this one: an old and a new program use the same tables at the same time.

-- One row. An accept locks it until it commits, so the order of commits is the order of the log.
CREATE TABLE countersign.log (
    id         integer PRIMARY KEY CHECK (id = 1),
    head       bigint  NOT NULL,                -- the highest place in the log
    wall_ms    bigint  NOT NULL,                -- PostgreSQL's clock at the last accept
    elapsed_ms bigint  NOT NULL,                -- the log's clock, which a clock that is set back does not turn back
    id_lead_ms bigint  NOT NULL                 -- how far the time within a command_id was ahead of received_at at the most
) WITH (fillfactor = 10);
INSERT INTO countersign.log VALUES (1, 0, (extract(epoch FROM clock_timestamp()) * 1000)::bigint, 0, 1000);

-- The log. `seq` is 1, 2, 3 ... without gaps.
CREATE TABLE countersign.commands (
    seq            bigint  PRIMARY KEY,
    command_id     uuid    NOT NULL,
    at_ms          bigint  NOT NULL,            -- when it was accepted, by the log's clock
    received_at    bigint  NOT NULL,            -- by the clock of the machine that received it
    endpoint       text    NOT NULL,
    action         text    NOT NULL,            -- approve, reject, custom
    action_type    text    NOT NULL,            -- the platform's word
    user_id        text    NOT NULL,
    approval_code  text,
    instance_id    text,
    task_id        text,
    message_id     text,                        -- of the card that it came from
    task_key       bigint  NOT NULL,            -- commands with the same one are published in order
    fingerprint    bytea   NOT NULL,            -- 32 bytes: the same callback
    fingerprint8   bigint  NOT NULL,            -- its first 8 bytes
    decision_key   bytea   NOT NULL,            -- 16 bytes: the same operator on the same task
    decision_key8  bigint  NOT NULL,            -- its first 8 bytes
    message        bytea   NOT NULL,            -- the rendered body, as it is published
    UNIQUE (command_id) INCLUDE (seq)           -- finds the places of a span of time without reading the rows
);
-- By the order of the log and not by its times: in a copied ledger these fall where a clock was set back.
CREATE INDEX commands_by_fingerprint ON countersign.commands (fingerprint8, seq);
CREATE INDEX commands_by_decision ON countersign.commands (decision_key8, seq);

-- One row. Everything at or below `published_through` is published unless an exception says otherwise; published rows at
-- or below `pruned_through` are gone. The holder of the term publishes, until the lease expires.
CREATE TABLE countersign.relay (
    id                integer PRIMARY KEY CHECK (id = 1),
    published_through bigint  NOT NULL,
    pruned_through    bigint  NOT NULL,
    holder            text,
    term              uuid,
    server            bigint,                   -- when the server started on which the term began, in microseconds
    expires_at        bigint  NOT NULL          -- by PostgreSQL's clock
) WITH (fillfactor = 10);
INSERT INTO countersign.relay VALUES (1, 0, 0, NULL, NULL, NULL, 0);

-- Commands that are not in the state their place in the log says.
CREATE TABLE countersign.exceptions (
    seq             bigint  PRIMARY KEY,
    state           text    NOT NULL CHECK (state IN ('retrying', 'parked', 'requeued')),
    attempts        integer NOT NULL,
    next_attempt_at bigint  NOT NULL,
    changed_at      bigint  NOT NULL,
    note            text    NOT NULL
);
CREATE INDEX exceptions_due ON countersign.exceptions (next_attempt_at, seq) WHERE state <> 'parked';

-- Fingerprints that have a round are duplicates for ever.
CREATE TABLE countersign.rounds (
    fingerprint bytea PRIMARY KEY,
    command_id  uuid  NOT NULL
);

-- What people and their programs changed, by whom and why.
CREATE TABLE countersign.acts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         bigint NOT NULL,                 -- when it began
    changed_at bigint NOT NULL,                 -- when it changed something last
    act        text   NOT NULL,
    via        text   NOT NULL,                 -- cli, api, console, signal
    name       text,                            -- of the user, or of the API token
    sudo_user  text,
    host       text,
    peer       text,
    reason     text,                            -- in the actor's words
    count      bigint NOT NULL,                 -- how many commands or contexts it changed
    detail     text                             -- a JSON object
);
CREATE INDEX acts_by_time ON countersign.acts (at);

-- The commands that acts changed, as long as they are here.
CREATE TABLE countersign.act_commands (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act_id bigint NOT NULL,
    seq    bigint NOT NULL,
    at     bigint NOT NULL
);
CREATE INDEX act_commands_of ON countersign.act_commands (seq, id);
CREATE INDEX act_commands_by_act ON countersign.act_commands (act_id);

-- The contexts that acts changed.
CREATE TABLE countersign.act_contexts (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    act_id bigint NOT NULL,
    tag    bigint NOT NULL                      -- the first 64 bits of the SHA-256 of the key
);
CREATE INDEX act_contexts_by_act ON countersign.act_contexts (act_id);
CREATE INDEX act_contexts_by_tag ON countersign.act_contexts (tag);

-- Refused callbacks, redacted; the oldest of each kind are dropped.
CREATE TABLE countersign.refusals (
    id                   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refused_at           bigint  NOT NULL,
    endpoint             text    NOT NULL,
    reason               text    NOT NULL,
    detail               text,
    peer                 text,
    body_bytes           bigint  NOT NULL,
    action_type          text,
    user_id              text,
    approval_code        text,
    instance_id          text,
    task_id              text,
    message_id           text,
    stranger             boolean NOT NULL,      -- its sender was not known to be the approval center
    search_id            text,
    context_instance_id  text,                  -- what the context named, which nothing may prove
    context_task_id      text,
    context_round        text,
    context_business_key text
);
CREATE INDEX refusals_by_kind ON countersign.refusals (stranger, id);

-- What the third party registered beforehand.
CREATE TABLE countersign.contexts (
    key           bytea  PRIMARY KEY,           -- an `action_context`, byte for byte: a text may hold no zero byte
    message_id    bigint,                       -- all 64 bits of it, as a number with a sign
    expires_at    bigint,
    registered_at bigint NOT NULL,
    instance_id   text,
    task_id       text,
    round         text,
    business_key  text,
    operators     text,                         -- a JSON list of texts
    actions       text,                         -- a JSON list of texts
    approval_code text,
    endpoint      text,
    data          text,                         -- JSON, as it was sent
    act_id        bigint                        -- the act that registered it last
);
CREATE INDEX contexts_by_act ON countersign.contexts (act_id) WHERE act_id IS NOT NULL;
CREATE UNIQUE INDEX contexts_by_message ON countersign.contexts (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX contexts_by_expiry ON countersign.contexts (expires_at) WHERE expires_at IS NOT NULL;

-- How far published commands have been compared with what the approval center shows.
CREATE TABLE countersign.reconciliation (
    id              integer PRIMARY KEY CHECK (id = 1),
    skipped_through bigint  NOT NULL,
    asked_through   bigint  NOT NULL,
    passed_at       bigint,
    seen            bigint  NOT NULL,
    ended           bigint  NOT NULL,
    untellable      bigint  NOT NULL
);
INSERT INTO countersign.reconciliation VALUES (1, 0, 0, NULL, 0, 0, 0);

-- Commands whose decision the center did not show when it was asked last.
CREATE TABLE countersign.findings (
    seq             bigint  PRIMARY KEY,
    verdict         text    NOT NULL CHECK (verdict IN ('unseen', 'not_found', 'contradicted', 'ended', 'unpublished')),
    task_status     text,
    instance_status text,
    checks          integer NOT NULL,
    found_at        bigint  NOT NULL,
    checked_at      bigint  NOT NULL,
    next_check_at   bigint
);
CREATE INDEX findings_due ON countersign.findings (next_check_at) WHERE next_check_at IS NOT NULL;

-- What workers reported of commands: the last report of each.
CREATE TABLE countersign.outcomes (
    seq         bigint  PRIMARY KEY,
    reported_at bigint  NOT NULL,
    superseded  integer NOT NULL,
    outcome     text    NOT NULL CHECK (outcome IN ('applied', 'refused', 'failed')),
    status      text,
    message     text,
    instance    text                            -- JSON, as it was sent; the last one that was
);

-- Where an outcome is to be shown, and how far that has come. A later report starts again, with a larger id.
CREATE TABLE countersign.showings (
    id              bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq             bigint  NOT NULL,
    surface         text    NOT NULL CHECK (surface IN ('card', 'instance')),
    target          text    NOT NULL,
    state           text    NOT NULL CHECK (state IN ('waiting', 'shown', 'parked')),
    attempts        integer NOT NULL,
    next_attempt_at bigint  NOT NULL,
    changed_at      bigint  NOT NULL,
    note            text,
    UNIQUE (seq, surface)
);
CREATE INDEX showings_waiting ON countersign.showings (next_attempt_at, id) WHERE state = 'waiting';
CREATE INDEX showings_in_order ON countersign.showings (surface, target, id) WHERE state = 'waiting';
CREATE INDEX showings_parked ON countersign.showings (seq) WHERE state = 'parked';

-- The update_time with which an instance was synchronised last: the platform ignores what is not larger.
CREATE TABLE countersign.instance_versions (
    instance_id text   PRIMARY KEY,
    update_time bigint NOT NULL,
    seq         bigint NOT NULL
);
CREATE INDEX instance_versions_by_seq ON countersign.instance_versions (seq);

-- When the cursor moved: commands after `after` and up to `through` were confirmed by the broker.
CREATE TABLE countersign.publish_marks (
    through  bigint PRIMARY KEY,
    after    bigint NOT NULL,
    first_at bigint NOT NULL,
    last_at  bigint NOT NULL,
    exchange text
);

-- What the broker said of commands that left the log's order.
CREATE TABLE countersign.publish_events (
    id       bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq      bigint  NOT NULL,
    at       bigint  NOT NULL,
    event    text    NOT NULL CHECK (event IN ('waiting', 'refused', 'published')),
    attempt  integer,
    passed   boolean NOT NULL,                  -- the cursor had passed the command before: it was published once already
    words    text,
    exchange text
);
CREATE INDEX publish_events_of ON countersign.publish_events (seq, id);

-- Reports of workers that were refused. The newest of each command are kept.
CREATE TABLE countersign.refused_reports (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq     bigint NOT NULL,
    at      bigint NOT NULL,
    outcome text   NOT NULL CHECK (outcome IN ('applied', 'refused', 'failed')),
    reason  text   NOT NULL
);
CREATE INDEX refused_reports_of ON countersign.refused_reports (seq, id);

-- When a callback came in by a credential last.
CREATE TABLE countersign.credential_uses (
    endpoint     text    NOT NULL,
    tag          integer NOT NULL,
    known_since  bigint  NOT NULL,
    last_used_at bigint,
    PRIMARY KEY (endpoint, tag)
);

-- Published commands that came back: from the queue of dead letters, or because no queue was bound. The newest of each
-- command are kept.
CREATE TABLE countersign.dead_letters (
    id      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq     bigint  NOT NULL,
    came_at bigint  NOT NULL,
    died_at bigint,                             -- by the broker's clock, to the second
    why     text    NOT NULL CHECK (why IN ('rejected', 'delivery_limit', 'expired', 'overflowed', 'unrouted')),
    queue   text,                               -- that it was in
    is_open boolean NOT NULL                    -- until it is requeued or a worker reports an outcome
);
CREATE INDEX dead_letters_of ON countersign.dead_letters (seq, id);
CREATE UNIQUE INDEX dead_letters_open ON countersign.dead_letters (seq) WHERE is_open;

-- Dead letters that are no command of this ledger. Kept until an operator removes them; only so many are taken.
CREATE TABLE countersign.strays (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    came_at     bigint NOT NULL,
    why         text,                           -- as above, if the broker said so
    queue       text,
    reason      text,                           -- why countersign itself refused it: a worker's report
    message_id  text,
    type        text,
    routing_key text   NOT NULL,
    body        bytea  NOT NULL
);

-- One row, if this ledger was copied from another (`countersign ledger copy`). Until that is finished, nothing else may
-- use it.
CREATE TABLE countersign.copied (
    id          integer PRIMARY KEY CHECK (id = 1),
    source      text    NOT NULL,               -- where the other one is, for people
    content     text    NOT NULL,               -- changes whenever the other one does
    ahead_ms    bigint  NOT NULL,               -- received_at of its commands less at_ms
    doing       text    NOT NULL,               -- the table that is being copied
    place       bytea,                          -- the key of the last row of it
    rows        bigint  NOT NULL,
    begun_at    bigint  NOT NULL,
    finished_at bigint
);

-- Tells one server from another, and from itself after a restart: a term that began on one ends with it. Behind a pooler a
-- failover ends no connection of its clients.
CREATE FUNCTION countersign.server_v1() RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint';

-- Refuses unless the server keeps commits as demanded. ZS001 is known to the program.
CREATE FUNCTION countersign.durable_v1(needs_standby boolean, trust_storage boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF NOT trust_storage AND current_setting('fsync') = 'off' THEN
        RAISE EXCEPTION 'fsync is off, so a crash of PostgreSQL''s machine would lose decisions; ledger.trust_storage = true accepts that'
            USING ERRCODE = 'ZS001';
    ELSIF needs_standby AND current_setting('synchronous_standby_names') = '' THEN
        RAISE EXCEPTION 'synchronous_standby_names is empty, and ledger.durability is "standby"' USING ERRCODE = 'ZS001';
    END IF;
END
$$;

-- What becomes of one command of a batch.
CREATE TYPE countersign.verdict_v1 AS (
    kind        text,                           -- accepted, kept, duplicate, conflicting
    seq         bigint,                         -- of the command itself, if it is in the log
    other       uuid,                           -- that it is a duplicate of, or conflicts with
    contradicts uuid,
    repeats     uuid
);

-- Keeps a batch of commands, or finds that they were kept before; its own are looked for only if it is sent `again`. No two
-- of a batch may have the same fingerprint or the same decision key. That a statement of its own locks the log is essential:
-- the snapshot of the next one is younger than the lock, so it sees every accept that committed before.
--
-- Every lookup is LATERAL with a LIMIT, so that it is made by an index for each command. A join would be planned as a scan
-- while the table is small, and that plan is kept until statistics are gathered, however much the log grows until then.
CREATE FUNCTION countersign.accept_v1(
    ids uuid[], received bigint[], endpoints text[], actions text[], action_types text[], user_ids text[],
    approval_codes text[], instance_ids text[], task_ids text[], message_ids text[], task_keys bigint[],
    fingerprints bytea[], fingerprints8 bigint[], decision_keys bytea[], decision_keys8 bigint[],
    windows bigint[], reaches bigint[], refuses boolean[], with_round boolean[], heads bytea[], tails bytea[],
    lead bigint, needs_standby boolean, trust_storage boolean,
    patience_ms bigint, again boolean
) RETURNS TABLE (kind text, seq bigint, other uuid, contradicts uuid, repeats uuid, server bigint)
LANGUAGE plpgsql AS $$
DECLARE
    setting  text;                              -- what set_config answers
    place    bigint;
    wall     bigint;
    last_ms  bigint;                            -- PostgreSQL's clock at the last accept
    elapsed  bigint;                            -- the log's clock then, and now
    now_ms   bigint;
    started  bigint := countersign.server_v1();
    verdicts countersign.verdict_v1[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'accept_v1 needs the isolation level read committed'
            USING HINT = 'Set default_transaction_isolation of this user to "read committed".';
    END IF;
    PERFORM countersign.durable_v1(needs_standby, trust_storage);
    setting := set_config('lock_timeout', patience_ms || 'ms', true);
    -- One plan fits all batches, and making it takes longer than carrying it out.
    setting := set_config('plan_cache_mode', 'force_generic_plan', true);
    -- A database may default to less, for others.
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        setting := set_config('synchronous_commit', 'on', true);
    END IF;
    -- Into single values: a variable of the table's type would wait for the table when the function is first called, and for ever.
    SELECT l.head, l.wall_ms, l.elapsed_ms INTO place, last_ms, elapsed FROM countersign.log l WHERE l.id = 1 FOR UPDATE;
    IF EXISTS (SELECT 1 FROM countersign.copied c WHERE c.finished_at IS NULL) THEN
        RAISE EXCEPTION 'a ledger is being copied into this one';
    END IF;
    wall := extract(epoch FROM clock_timestamp()) * 1000;
    now_ms := elapsed + greatest(0, wall - last_ms);

    WITH known AS (
        SELECT i.n, i.win, i.refuses, own.seq AS own_seq,
            CASE WHEN i.with_round THEN round.command_id WHEN same.age < i.win THEN same.command_id END AS duplicate_of,
            CASE WHEN NOT i.with_round THEN same.command_id END AS earlier,
            decision.command_id AS decided, decision.age AS decided_ago
        FROM unnest(
            ids, action_types, fingerprints, fingerprints8, decision_keys, decision_keys8, windows, reaches, refuses,
            with_round
        ) WITH ORDINALITY AS i (
            id, action_type, fingerprint, fingerprint8, decision_key, decision_key8, win, reach, refuses, with_round, n
        )
        LEFT JOIN LATERAL (
            SELECT c.seq FROM countersign.commands c WHERE again AND c.command_id = i.id LIMIT 1
        ) own ON true
        LEFT JOIN LATERAL (
            SELECT r.command_id FROM countersign.rounds r
            WHERE i.with_round AND r.fingerprint = i.fingerprint LIMIT 1
        ) round ON true
        LEFT JOIN LATERAL (
            SELECT c.command_id, now_ms - c.at_ms AS age FROM countersign.commands c
            WHERE c.fingerprint8 = i.fingerprint8 AND c.fingerprint = i.fingerprint AND NOT i.with_round
            ORDER BY c.seq DESC LIMIT 1
        ) same ON same.age < i.reach
        LEFT JOIN LATERAL (
            SELECT c.command_id, c.action_type, now_ms - c.at_ms AS age FROM countersign.commands c
            WHERE c.decision_key8 = i.decision_key8 AND c.decision_key = i.decision_key
            ORDER BY c.seq DESC LIMIT 1
        ) decision ON decision.age < i.reach AND decision.action_type <> i.action_type
    ),
    judged AS (
        SELECT k.*, CASE
            WHEN k.own_seq IS NOT NULL THEN 'kept'
            WHEN k.duplicate_of IS NOT NULL THEN 'duplicate'
            WHEN k.refuses AND k.decided_ago < k.win THEN 'conflicting'
            ELSE 'accepted' END AS verdict
        FROM known k
    ),
    placed AS (
        SELECT j.*, place + count(*) FILTER (WHERE j.verdict = 'accepted') OVER (ORDER BY j.n) AS new_seq FROM judged j
    )
    SELECT array_agg(CASE p.verdict
        WHEN 'accepted' THEN ROW(p.verdict, p.new_seq, NULL, p.decided, p.earlier)::countersign.verdict_v1
        WHEN 'kept' THEN ROW(p.verdict, p.own_seq, NULL, NULL, NULL)::countersign.verdict_v1
        WHEN 'duplicate' THEN ROW(p.verdict, NULL, p.duplicate_of, NULL, NULL)::countersign.verdict_v1
        ELSE ROW(p.verdict, NULL, p.decided, NULL, NULL)::countersign.verdict_v1 END ORDER BY p.n)
    INTO verdicts FROM placed p;

    INSERT INTO countersign.commands
    SELECT i.seq, i.id, now_ms, i.received_at, i.endpoint, i.action, i.action_type, i.user_id, i.approval_code,
        i.instance_id, i.task_id, i.message_id, i.task_key, i.fingerprint, i.fingerprint8, i.decision_key,
        i.decision_key8,
        i.head || convert_to(coalesce('"' || i.contradicts || '"', 'null') || ',"repeats":'
            || coalesce('"' || i.repeats || '"', 'null'), 'UTF8') || i.tail
    FROM ROWS FROM (
        unnest(
            ids, received, endpoints, actions, action_types, user_ids, approval_codes, instance_ids, task_ids,
            message_ids, task_keys, fingerprints, fingerprints8, decision_keys, decision_keys8, heads, tails
        ),
        unnest(verdicts)
    ) AS i (
        id, received_at, endpoint, action, action_type, user_id, approval_code, instance_id, task_id, message_id,
        task_key, fingerprint, fingerprint8, decision_key, decision_key8, head, tail,
        kind, seq, other, contradicts, repeats
    )
    WHERE i.kind = 'accepted';
    IF true = ANY (with_round) THEN
        INSERT INTO countersign.rounds
        SELECT i.fingerprint, i.id FROM ROWS FROM (unnest(fingerprints, ids, with_round), unnest(verdicts))
            AS i (fingerprint, id, with_round, kind, seq, other, contradicts, repeats)
        WHERE i.with_round AND i.kind = 'accepted';
    END IF;
    -- Also for a batch of duplicates alone: only a commit that writes waits for the standby, and after a crash of the
    -- primary a copy of what nobody was promised may be visible that no standby has.
    UPDATE countersign.log l SET wall_ms = wall, elapsed_ms = now_ms, id_lead_ms = greatest(l.id_lead_ms, lead),
        head = l.head + (SELECT count(*) FROM unnest(verdicts) v WHERE v.kind = 'accepted')
    WHERE l.id = 1;
    RETURN QUERY SELECT v.kind, v.seq, v.other, v.contradicts, v.repeats, started
        FROM unnest(verdicts) WITH ORDINALITY AS v (kind, seq, other, contradicts, repeats, n) ORDER BY v.n;
END
$$;
