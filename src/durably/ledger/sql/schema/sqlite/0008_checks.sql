-- Made anew, with checks that cost less: for a list of three or more, as in `state IN (...)`, SQLite
-- makes a table at each check, and of a partial index at each change of a row.
ALTER TABLE durably_effects RENAME TO durably_effects_before;

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

INSERT INTO durably_effects (
    run_id, response, call, step, tool_name, tool_call_id, args, policy, on_doubt, state, asked,
    attempt, idempotency_key, result, error, resolved_by, started_at, finished_at, ask, request,
    approved, asked_at, expires_at, on_expiry, awaits, escalate_queue)
SELECT
    run_id, response, call, step, tool_name, tool_call_id, args, policy, on_doubt, state, asked,
    attempt, idempotency_key, result, error, resolved_by, started_at, finished_at, ask, request,
    approved, asked_at, expires_at, on_expiry, awaits, escalate_queue
FROM durably_effects_before;

DROP TABLE durably_effects_before;

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
