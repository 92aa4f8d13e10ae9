-- What people are asked about a call, and what they decided.
ALTER TABLE durably_effects ADD COLUMN ask TEXT
    CHECK (ask IN ('approval', 'answer', 'question', 'doubt'));
ALTER TABLE durably_effects ADD COLUMN request TEXT;
ALTER TABLE durably_effects ADD COLUMN approved INTEGER NOT NULL DEFAULT 0
    CHECK (approved IN (0, 1));
ALTER TABLE durably_effects ADD COLUMN asked_at TEXT;
ALTER TABLE durably_effects ADD COLUMN expires_at TEXT;
ALTER TABLE durably_effects ADD COLUMN on_expiry TEXT
    CHECK (on_expiry IN ('deny', 'escalate', 'wait'));

CREATE INDEX durably_effects_expiring ON durably_effects (expires_at)
    WHERE expires_at IS NOT NULL AND asked;

-- Appended, never changed: who decided what about which call, when, and why.
CREATE TABLE durably_decisions (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id      INTEGER NOT NULL REFERENCES durably_runs (id) ON DELETE CASCADE,
    response    INTEGER NOT NULL,
    call        INTEGER NOT NULL,
    decision    TEXT NOT NULL CHECK (decision IN ('approved', 'denied', 'answered', 'resolved',
                    'expired', 'escalated')),
    by          TEXT NOT NULL,
    note        TEXT NOT NULL DEFAULT '',
    args_before TEXT,
    args_after  TEXT,
    at          TEXT NOT NULL
) STRICT;

CREATE INDEX durably_decisions_run ON durably_decisions (run_id, id);
