-- The ledger's tables. Times are ISO 8601 UTC text with microseconds, so that they sort and read
-- as they are. JSON columns are text. Every table is prefixed: the file may be the application's.

CREATE TABLE durably_runs (
    id                  INTEGER PRIMARY KEY AUTOINCREMENT,
    key                 TEXT NOT NULL UNIQUE,
    agent               TEXT NOT NULL,
    queue               TEXT NOT NULL,
    state               TEXT NOT NULL CHECK (state IN ('scheduled', 'available', 'executing',
                            'retryable', 'suspended', 'completed', 'discarded', 'cancelled')),
    priority            INTEGER NOT NULL DEFAULT 0 CHECK (priority BETWEEN 0 AND 9),
    attempt             INTEGER NOT NULL DEFAULT 0,
    failures            INTEGER NOT NULL DEFAULT 0,
    crashes             INTEGER NOT NULL DEFAULT 0,
    max_attempts        INTEGER NOT NULL CHECK (max_attempts > 0),
    tags                TEXT NOT NULL DEFAULT '[]',
    meta                TEXT NOT NULL DEFAULT '{}',
    usage               TEXT NOT NULL DEFAULT '{}',
    waiting_kind        TEXT,
    waiting_on          TEXT,
    output              TEXT,
    error               TEXT,
    worker_id           TEXT,
    fingerprint         TEXT,
    cancel_requested_at TEXT,
    scheduled_at        TEXT NOT NULL,
    inserted_at         TEXT NOT NULL,
    attempted_at        TEXT,
    finished_at         TEXT,
    thread              TEXT,
    parent_id           INTEGER REFERENCES durably_runs (id) ON DELETE SET NULL,
    tells_end           INTEGER NOT NULL DEFAULT 0 CHECK (tells_end IN (0, 1)),
    budget              TEXT,
    cost_nanousd        INTEGER NOT NULL DEFAULT 0,
    stream              INTEGER CHECK (stream IN (0, 1)),
    model               TEXT,
    tokens              INTEGER NOT NULL DEFAULT 0,
    own_nanousd         INTEGER NOT NULL DEFAULT 0,
    waited_ms           INTEGER,
    executed_ms         INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'suspended') = (waiting_kind IS NOT NULL)),
    CHECK ((state = 'executing') = (worker_id IS NOT NULL))
) STRICT;

CREATE INDEX durably_runs_available ON durably_runs (queue, priority, scheduled_at, id)
    WHERE state = 'available';
CREATE INDEX durably_runs_due ON durably_runs (queue, scheduled_at, priority)
    WHERE state IN ('scheduled', 'retryable');
CREATE INDEX durably_runs_held ON durably_runs (worker_id) WHERE state = 'executing';
CREATE INDEX durably_runs_suspended ON durably_runs (id) WHERE state = 'suspended';
-- Covering: statistics look at no row of a run. Nothing of it changes while a run is
-- going, and what has not ended is not in it.
CREATE INDEX durably_runs_finished
    ON durably_runs (finished_at, state, agent, queue, model, failures, crashes, tokens, own_nanousd,
                     waited_ms, executed_ms)
    WHERE finished_at IS NOT NULL;
CREATE INDEX durably_runs_state ON durably_runs (state, id);
CREATE INDEX durably_runs_fingerprint ON durably_runs (fingerprint, inserted_at)
    WHERE fingerprint IS NOT NULL;
CREATE INDEX durably_runs_thread ON durably_runs (thread, id) WHERE thread IS NOT NULL;
CREATE INDEX durably_runs_line ON durably_runs (thread, id)
    WHERE thread IS NOT NULL AND finished_at IS NULL;
CREATE INDEX durably_runs_parent ON durably_runs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX durably_runs_untold ON durably_runs (id)
    WHERE tells_end AND state IN ('completed', 'discarded', 'cancelled');
CREATE INDEX durably_runs_waiting ON durably_runs (waiting_kind, id) WHERE waiting_kind IS NOT NULL;

-- What a run was asked, apart from the row that every step updates: a large prompt is written once.
CREATE TABLE durably_inputs (
    run_id      INTEGER PRIMARY KEY REFERENCES durably_runs (id) ON DELETE CASCADE,
    prompt      TEXT NOT NULL,
    args        TEXT NOT NULL DEFAULT '{}'
) STRICT;

-- One row per message, appended, never rewritten: the history is the checkpoint.
CREATE TABLE durably_messages (
    run_id      INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    seq         INTEGER NOT NULL,
    kind        TEXT NOT NULL CHECK (kind IN ('request', 'response')),
    attempt     INTEGER NOT NULL,
    body        TEXT NOT NULL,
    inserted_at TEXT NOT NULL,
    PRIMARY KEY (run_id, seq)
) STRICT;

-- One tool call, or one step or wait inside it: intent, then outcome. Its identity is the position of
-- its response and of the call in it, since providers repeat tool call ids, and the step's name.
-- Not `state IN (...)`: for a list of three or more SQLite makes a table at each check.
CREATE TABLE durably_effects (
    run_id          INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    response        INTEGER NOT NULL,
    call            INTEGER NOT NULL,
    step            TEXT NOT NULL DEFAULT '',
    tool_name       TEXT NOT NULL,
    tool_call_id    TEXT NOT NULL,
    args            TEXT NOT NULL,
    policy          TEXT NOT NULL CHECK (policy = 'read' OR policy = 'idempotent' OR policy = 'once'
                        OR policy = 'transactional' OR policy = 'waits'),
    on_doubt        TEXT CHECK (on_doubt = 'ask' OR on_doubt = 'tell' OR on_doubt = 'retry'),
    state           TEXT NOT NULL CHECK (state = 'started' OR state = 'done' OR state = 'failed'
                        OR state = 'in_doubt' OR state = 'awaiting' OR state = 'denied'),
    asked           INTEGER NOT NULL DEFAULT 0,
    attempt         INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    result          TEXT,
    error           TEXT,
    resolved_by     TEXT,
    started_at      TEXT NOT NULL,
    finished_at     TEXT,
    ask             TEXT CHECK (ask = 'approval' OR ask = 'answer' OR ask = 'question'
                        OR ask = 'doubt' OR ask = 'timer' OR ask = 'signal' OR ask = 'child'),
    request         TEXT,
    approved        INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    asked_at        TEXT,
    expires_at      TEXT,
    on_expiry       TEXT CHECK (on_expiry = 'deny' OR on_expiry = 'escalate' OR on_expiry = 'wait'),
    awaits          TEXT,
    escalate_queue  TEXT,
    PRIMARY KEY (run_id, response, call, step)
) STRICT;

CREATE INDEX durably_effects_open ON durably_effects (run_id)
    WHERE state = 'started' OR state = 'in_doubt' OR state = 'awaiting';
CREATE INDEX durably_effects_expiring ON durably_effects (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX durably_effects_awaits ON durably_effects (run_id, ask, awaits)
    WHERE awaits IS NOT NULL AND state = 'awaiting';
-- The inbox in its order.
CREATE INDEX durably_effects_asked
    ON durably_effects (COALESCE(asked_at, started_at), run_id, response, call, step)
    WHERE asked AND state IN ('in_doubt', 'awaiting');
CREATE INDEX durably_effects_doubt ON durably_effects (run_id) WHERE state = 'in_doubt';

CREATE TABLE durably_attempts (
    run_id      INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    attempt     INTEGER NOT NULL,
    worker_id   TEXT NOT NULL,
    started_at  TEXT NOT NULL,
    ended_at    TEXT,
    outcome     TEXT,
    error       TEXT,
    traceback   TEXT,
    fingerprint TEXT,
    PRIMARY KEY (run_id, attempt)
) STRICT;

CREATE TABLE durably_events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id  INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    kind    TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    data    TEXT NOT NULL DEFAULT '{}',
    at      TEXT NOT NULL
) STRICT;

CREATE INDEX durably_events_run ON durably_events (run_id, id);
CREATE INDEX durably_events_deltas ON durably_events (run_id, id) WHERE kind = 'delta';

CREATE TABLE durably_workers (
    id            TEXT PRIMARY KEY,
    name          TEXT NOT NULL,
    pid           INTEGER NOT NULL,
    queues        TEXT NOT NULL,
    lease_seconds REAL NOT NULL,
    started_at    TEXT NOT NULL,
    heartbeat_at  TEXT NOT NULL,
    expires_at    TEXT NOT NULL
) STRICT;

-- What was decided for a queue at run time, for every worker; a queue without a row is as usual.
CREATE TABLE durably_queues (
    queue        TEXT PRIMARY KEY,
    paused       INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
    runs_at_once INTEGER CHECK (runs_at_once > 0),
    changed_at   TEXT NOT NULL
) STRICT;

-- Where the runs of this ledger were moved to (`durably transfer`); one row at most. While it is
-- there, triggers of that command refuse every write.
CREATE TABLE durably_moved (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    transfer_id TEXT NOT NULL,
    url         TEXT NOT NULL,
    ledger_id   TEXT NOT NULL,
    stage       TEXT NOT NULL CHECK (stage IN ('copying', 'opening', 'moved')),
    moved_at    TEXT NOT NULL
) STRICT;

-- Appended, never changed: who decided what about which call, or about the run, when, and why.
CREATE TABLE durably_decisions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id      INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    response    INTEGER,
    call        INTEGER,
    step        TEXT NOT NULL DEFAULT '',
    decision    TEXT NOT NULL CHECK (decision IN ('approved', 'denied', 'answered', 'resolved',
                    'expired', 'escalated', 'raised')),
    by          TEXT NOT NULL,
    note        TEXT NOT NULL DEFAULT '',
    args_before TEXT,
    args_after  TEXT,
    at          TEXT NOT NULL
) STRICT;

CREATE INDEX durably_decisions_run ON durably_decisions (run_id, id);

-- What was sent to a run; taken once, by the wait that it is recorded with.
CREATE TABLE durably_signals (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id         INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    name           TEXT NOT NULL,
    payload        TEXT NOT NULL,
    by             TEXT NOT NULL,
    signal_id      TEXT,
    sent_at        TEXT NOT NULL,
    taken_response INTEGER,
    taken_call     INTEGER,
    taken_step     TEXT,
    UNIQUE (run_id, signal_id)
) STRICT;

CREATE INDEX durably_signals_untaken ON durably_signals (run_id, name, id) WHERE taken_step IS NULL;

-- What people have to be told of: a row for each time that a run begins to wait for them. Sent, and
-- sent again, by workers with hooks until every hook has taken it. `kind` and `attempt` say which
-- asking it is about: a call may be asked about again.
CREATE TABLE durably_notices (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id     INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    response   INTEGER,
    call       INTEGER,
    step       TEXT NOT NULL DEFAULT '',
    kind       TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    reason     TEXT NOT NULL CHECK (reason IN ('waiting', 'escalated')),
    made_at    TEXT NOT NULL,
    due_at     TEXT,
    tries      INTEGER NOT NULL DEFAULT 0,
    taken_by   TEXT NOT NULL DEFAULT '[]',
    sent_at    TEXT,
    error      TEXT
) STRICT;

CREATE INDEX durably_notices_run ON durably_notices (run_id, id);
CREATE INDEX durably_notices_due ON durably_notices (due_at) WHERE due_at IS NOT NULL;

-- Limits that runs share, and what was spent of them; a run's own are in its row.
CREATE TABLE durably_budgets (
    scope            TEXT NOT NULL CHECK (scope IN ('thread', 'tag')),
    name             TEXT NOT NULL,
    limits           TEXT NOT NULL,
    spent_requests   INTEGER NOT NULL DEFAULT 0,
    spent_tokens     INTEGER NOT NULL DEFAULT 0,
    spent_tool_calls INTEGER NOT NULL DEFAULT 0,
    spent_nanousd    INTEGER NOT NULL DEFAULT 0,
    changed_at       TEXT NOT NULL,
    PRIMARY KEY (scope, name)
) STRICT;

-- Appended, never changed: what somebody did, to what, and when. It outlives the run.
CREATE TABLE durably_actions (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      TEXT NOT NULL,
    by      TEXT NOT NULL,
    action  TEXT NOT NULL,
    run_key TEXT,
    subject TEXT NOT NULL DEFAULT '',
    data    TEXT NOT NULL DEFAULT '{}'
) STRICT;

CREATE INDEX durably_actions_run ON durably_actions (run_key, id) WHERE run_key IS NOT NULL;
CREATE INDEX durably_actions_at ON durably_actions (at);
