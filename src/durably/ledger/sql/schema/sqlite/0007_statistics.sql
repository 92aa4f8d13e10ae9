-- What statistics and search are answered from, and the record of what people and programs did.
ALTER TABLE durably_runs ADD COLUMN model TEXT;
ALTER TABLE durably_runs ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE durably_runs ADD COLUMN own_nanousd INTEGER NOT NULL DEFAULT 0;
ALTER TABLE durably_runs ADD COLUMN waited_ms INTEGER;
ALTER TABLE durably_runs ADD COLUMN executed_ms INTEGER NOT NULL DEFAULT 0;

-- Of the runs that there are: what can still be said. When a run was due that failed since, nobody
-- knows any more; it is taken for due when it was enqueued.
UPDATE durably_runs SET
    tokens = CASE WHEN json_valid(usage) THEN
        max(0, COALESCE(json_extract(usage, '$.input_tokens'), 0)
               + COALESCE(json_extract(usage, '$.output_tokens'), 0)
               - COALESCE(json_extract(usage, '$.from_children.tokens'), 0)) ELSE 0 END,
    own_nanousd = CASE WHEN json_valid(usage) THEN
        max(0, cost_nanousd - COALESCE(json_extract(usage, '$.from_children.nanousd'), 0))
        ELSE cost_nanousd END,
    model = (SELECT CASE WHEN json_valid(m.body) THEN
                    COALESCE(json_extract(m.body, '$.provider_name') || ':', '')
                    || COALESCE(json_extract(m.body, '$.model_name'), 'unknown') END
             FROM durably_messages m WHERE m.run_id = durably_runs.id AND m.kind = 'response'
             ORDER BY m.seq DESC LIMIT 1),
    waited_ms = (SELECT max(0, CAST(round((julianday(a.started_at) - julianday(
                        CASE WHEN durably_runs.scheduled_at <= a.started_at
                             THEN durably_runs.scheduled_at ELSE durably_runs.inserted_at END))
                        * 86400000) AS INTEGER))
                 FROM durably_attempts a WHERE a.run_id = durably_runs.id
                 ORDER BY a.attempt LIMIT 1),
    executed_ms = (SELECT COALESCE(sum(CAST(round((julianday(a.ended_at) - julianday(a.started_at))
                                                 * 86400000) AS INTEGER)), 0)
                   FROM durably_attempts a
                   WHERE a.run_id = durably_runs.id AND a.ended_at IS NOT NULL);

-- Made anew, and covering: statistics look at no row of a run. Nothing of it changes while a run is
-- going, and what has not ended is not in it.
DROP INDEX durably_runs_finished;
CREATE INDEX durably_runs_finished
    ON durably_runs (finished_at, state, agent, queue, model, failures, crashes, tokens, own_nanousd,
                     waited_ms, executed_ms)
    WHERE finished_at IS NOT NULL;

-- The inbox in its order.
CREATE INDEX durably_effects_asked
    ON durably_effects (COALESCE(asked_at, started_at), run_id, response, call, step)
    WHERE asked AND state IN ('in_doubt', 'awaiting');
CREATE INDEX durably_effects_doubt ON durably_effects (run_id) WHERE state = 'in_doubt';

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
