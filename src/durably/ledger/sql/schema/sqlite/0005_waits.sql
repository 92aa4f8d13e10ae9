-- Steps and waits inside a tool's call, runs that belong together, budgets, and what people are told.
ALTER TABLE durably_runs ADD COLUMN thread TEXT;
ALTER TABLE durably_runs ADD COLUMN parent_id INTEGER REFERENCES durably_runs (id) ON DELETE SET NULL;
ALTER TABLE durably_runs ADD COLUMN tells_end INTEGER NOT NULL DEFAULT 0 CHECK (tells_end IN (0, 1));
ALTER TABLE durably_runs ADD COLUMN budget TEXT;
ALTER TABLE durably_runs ADD COLUMN cost_nanousd INTEGER NOT NULL DEFAULT 0;

CREATE INDEX durably_runs_thread ON durably_runs (thread, id) WHERE thread IS NOT NULL;
CREATE INDEX durably_runs_line ON durably_runs (thread, id)
    WHERE thread IS NOT NULL AND finished_at IS NULL;
CREATE INDEX durably_runs_parent ON durably_runs (parent_id) WHERE parent_id IS NOT NULL;
CREATE INDEX durably_runs_untold ON durably_runs (id)
    WHERE tells_end AND state IN ('completed', 'discarded', 'cancelled');
CREATE INDEX durably_runs_waiting ON durably_runs (waiting_kind, id) WHERE waiting_kind IS NOT NULL;

-- Made anew: a step of a call is a row of its own.
ALTER TABLE durably_effects RENAME TO durably_effects_before;

CREATE TABLE durably_effects (
    run_id          INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    response        INTEGER NOT NULL,
    call            INTEGER NOT NULL,
    step            TEXT NOT NULL DEFAULT '',
    tool_name       TEXT NOT NULL,
    tool_call_id    TEXT NOT NULL,
    args            TEXT NOT NULL,
    policy          TEXT NOT NULL CHECK (policy IN ('read', 'idempotent', 'once', 'transactional',
                        'waits')),
    on_doubt        TEXT CHECK (on_doubt IN ('ask', 'tell', 'retry')),
    state           TEXT NOT NULL CHECK (state IN ('started', 'done', 'failed', 'in_doubt',
                        'awaiting', 'denied')),
    asked           INTEGER NOT NULL DEFAULT 0,
    attempt         INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,
    result          TEXT,
    error           TEXT,
    resolved_by     TEXT,
    started_at      TEXT NOT NULL,
    finished_at     TEXT,
    ask             TEXT CHECK (ask IN ('approval', 'answer', 'question', 'doubt', 'timer',
                        'signal', 'child')),
    request         TEXT,
    approved        INTEGER NOT NULL DEFAULT 0 CHECK (approved IN (0, 1)),
    asked_at        TEXT,
    expires_at      TEXT,
    on_expiry       TEXT CHECK (on_expiry IN ('deny', 'escalate', 'wait')),
    awaits          TEXT,
    escalate_queue  TEXT,
    PRIMARY KEY (run_id, response, call, step)
) STRICT;

INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args, policy, on_doubt,
                             state, asked, attempt, idempotency_key, result, error, resolved_by,
                             started_at, finished_at, ask, request, approved, asked_at, expires_at,
                             on_expiry)
SELECT run_id, response, call, tool_name, tool_call_id, args, policy, on_doubt, state, asked, attempt,
       idempotency_key, result, error, resolved_by, started_at, finished_at, ask, request, approved,
       asked_at, expires_at, on_expiry
FROM durably_effects_before;

DROP TABLE durably_effects_before;

CREATE INDEX durably_effects_open ON durably_effects (run_id)
    WHERE state IN ('started', 'in_doubt', 'awaiting');
CREATE INDEX durably_effects_expiring ON durably_effects (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX durably_effects_awaits ON durably_effects (run_id, ask, awaits)
    WHERE awaits IS NOT NULL AND state = 'awaiting';

-- Made anew: a decision may also be about the run itself, such as about its budget.
ALTER TABLE durably_decisions RENAME TO durably_decisions_before;

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

INSERT INTO durably_decisions (id, run_id, response, call, decision, by, note, args_before, args_after,
                               at)
SELECT id, run_id, response, call, decision, by, note, args_before, args_after, at
FROM durably_decisions_before;

DROP TABLE durably_decisions_before;

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
