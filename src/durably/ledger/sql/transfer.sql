-- Moving a ledger: what is read of both, and what is written to the new one. A table's key comes
-- first in its rows; a range of runs is everything about the runs with ids in it.

-- name: read_runs
SELECT id, tags, key, agent, queue, state, priority, attempt, failures, crashes, max_attempts,
       meta, usage, waiting_kind, waiting_on, output, error, worker_id, fingerprint,
       cancel_requested_at, scheduled_at, inserted_at, attempted_at, finished_at, thread, parent_id,
       tells_end, budget, cost_nanousd, stream, model, tokens, own_nanousd, waited_ms, executed_ms
FROM durably_runs WHERE id > :after AND id <= :upto ORDER BY id;

-- name: write_runs (postgres)
COPY durably_runs (id, tags, key, agent, queue, state, priority, attempt, failures, crashes,
                   max_attempts, meta, usage, waiting_kind, waiting_on, output, error, worker_id,
                   fingerprint, cancel_requested_at, scheduled_at, inserted_at, attempted_at,
                   finished_at, thread, parent_id, tells_end, budget, cost_nanousd, stream, model,
                   tokens, own_nanousd, waited_ms, executed_ms)
FROM STDIN;

-- name: read_inputs
SELECT run_id, prompt, args
FROM durably_inputs WHERE run_id > :after AND run_id <= :upto ORDER BY run_id;

-- name: write_inputs (postgres)
COPY durably_inputs (run_id, prompt, args) FROM STDIN;

-- name: read_messages
SELECT run_id, seq, kind, attempt, body, inserted_at
FROM durably_messages WHERE run_id > :after AND run_id <= :upto ORDER BY run_id, seq;

-- name: write_messages (postgres)
COPY durably_messages (run_id, seq, kind, attempt, body, inserted_at) FROM STDIN;

-- name: read_effects
SELECT run_id, response, call, step, tool_name, tool_call_id, args, policy, on_doubt, state, asked,
       attempt, idempotency_key, result, error, resolved_by, started_at, finished_at, ask, request,
       approved, asked_at, expires_at, on_expiry, awaits, escalate_queue
FROM durably_effects WHERE run_id > :after AND run_id <= :upto
ORDER BY run_id, response, call, step;

-- name: write_effects (postgres)
COPY durably_effects (run_id, response, call, step, tool_name, tool_call_id, args, policy,
                      on_doubt, state, asked, attempt, idempotency_key, result, error, resolved_by,
                      started_at, finished_at, ask, request, approved, asked_at, expires_at,
                      on_expiry, awaits, escalate_queue)
FROM STDIN;

-- name: read_decisions
SELECT run_id, id, response, call, step, decision, by, note, args_before, args_after, at
FROM durably_decisions WHERE run_id > :after AND run_id <= :upto ORDER BY run_id, id;

-- name: write_decisions (postgres)
COPY durably_decisions (run_id, id, response, call, step, decision, by, note, args_before,
                        args_after, at)
FROM STDIN;

-- name: read_signals
SELECT run_id, id, name, payload, by, signal_id, sent_at, taken_response, taken_call, taken_step
FROM durably_signals WHERE run_id > :after AND run_id <= :upto ORDER BY run_id, id;

-- name: write_signals (postgres)
COPY durably_signals (run_id, id, name, payload, by, signal_id, sent_at, taken_response, taken_call,
                      taken_step)
FROM STDIN;

-- name: read_notices
SELECT run_id, id, response, call, step, kind, attempt, reason, made_at, due_at, tries, taken_by,
       sent_at, error
FROM durably_notices WHERE run_id > :after AND run_id <= :upto ORDER BY run_id, id;

-- name: write_notices (postgres)
COPY durably_notices (run_id, id, response, call, step, kind, attempt, reason, made_at, due_at,
                      tries, taken_by, sent_at, error)
FROM STDIN;

-- name: read_attempts
SELECT run_id, attempt, worker_id, started_at, ended_at, outcome, error, traceback, fingerprint
FROM durably_attempts WHERE run_id > :after AND run_id <= :upto ORDER BY run_id, attempt;

-- name: write_attempts (postgres)
COPY durably_attempts (run_id, attempt, worker_id, started_at, ended_at, outcome, error, traceback,
                       fingerprint)
FROM STDIN;

-- name: read_events
SELECT run_id, id, kind, attempt, data, at
FROM durably_events WHERE run_id > :after AND run_id <= :upto ORDER BY run_id, id;

-- name: write_events (postgres)
COPY durably_events (run_id, id, kind, attempt, data, at) FROM STDIN;

-- name: read_queues (sqlite)
SELECT queue, paused, runs_at_once, changed_at FROM durably_queues ORDER BY queue;

-- name: read_queues (postgres)
SELECT queue, paused, runs_at_once, changed_at FROM durably_queues ORDER BY queue COLLATE "C";

-- name: write_queues (postgres)
COPY durably_queues (queue, paused, runs_at_once, changed_at) FROM STDIN;

-- name: read_budgets (sqlite)
SELECT scope, name, limits, spent_requests, spent_tokens, spent_tool_calls, spent_nanousd, changed_at
FROM durably_budgets ORDER BY scope, name;

-- name: read_budgets (postgres)
SELECT scope, name, limits, spent_requests, spent_tokens, spent_tool_calls, spent_nanousd, changed_at
FROM durably_budgets ORDER BY scope COLLATE "C", name COLLATE "C";

-- name: write_budgets (postgres)
COPY durably_budgets (scope, name, limits, spent_requests, spent_tokens, spent_tool_calls,
                      spent_nanousd, changed_at)
FROM STDIN;

-- name: read_actions
SELECT id, at, by, action, run_key, subject, data FROM durably_actions ORDER BY id;

-- name: write_actions (postgres)
COPY durably_actions (id, at, by, action, run_key, subject, data) FROM STDIN;

-- name: read_jobs (sqlite)
-- The jobs that there are to be.
SELECT id, key, queue, priority, scheduled_at FROM durably_runs
WHERE id > :after AND id <= :upto AND state IN ('available', 'scheduled', 'retryable')
ORDER BY id;

-- name: read_jobs (postgres)
-- The jobs that there are, for runs that wait for one.
SELECT r.id, j.args ->> 'key', j.queue, j.priority, timezone('UTC', j.scheduled_at)
FROM durably_runs r JOIN oban_jobs j ON j.id = r.job_id
WHERE r.id > :after AND r.id <= :upto AND r.state IN ('available', 'scheduled', 'retryable')
  AND j.state IN ('available', 'scheduled') AND j.worker = 'durably.RunAgent'
ORDER BY r.id;

-- name: runs_without_job (postgres)
SELECT id FROM durably_runs
WHERE id > :after AND id <= :upto AND state IN ('available', 'scheduled', 'retryable')
ORDER BY id;

-- name: list_tables (sqlite)
SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'durably%';

-- name: count_moved
SELECT (SELECT count(*) FROM durably_runs) AS runs,
       (SELECT count(*) FROM durably_inputs) AS inputs,
       (SELECT count(*) FROM durably_messages) AS messages,
       (SELECT count(*) FROM durably_effects) AS effects,
       (SELECT count(*) FROM durably_decisions) AS decisions,
       (SELECT count(*) FROM durably_signals) AS signals,
       (SELECT count(*) FROM durably_notices) AS notices,
       (SELECT count(*) FROM durably_attempts) AS attempts,
       (SELECT count(*) FROM durably_events) AS events;

-- name: count_states
SELECT state, count(*) AS runs FROM durably_runs GROUP BY state ORDER BY state;

-- name: end_of_range (sqlite)
SELECT max(id) AS upto
FROM (SELECT id FROM durably_runs WHERE id > :after ORDER BY id LIMIT :limit);

-- name: highest_ids (sqlite)
-- Also of rows that were deleted: a watcher's cursor may be one of them.
SELECT COALESCE(max(CASE name WHEN 'durably_runs' THEN seq END), 0) AS runs,
       COALESCE(max(CASE name WHEN 'durably_events' THEN seq END), 0) AS events,
       COALESCE(max(CASE name WHEN 'durably_decisions' THEN seq END), 0) AS decisions,
       COALESCE(max(CASE name WHEN 'durably_signals' THEN seq END), 0) AS signals,
       COALESCE(max(CASE name WHEN 'durably_notices' THEN seq END), 0) AS notices,
       COALESCE(max(CASE name WHEN 'durably_actions' THEN seq END), 0) AS actions
FROM sqlite_sequence;

-- name: list_unmovable (sqlite)
-- PostgreSQL's text has no NUL, and another key would make other idempotency keys.
SELECT key FROM durably_runs
WHERE instr(key, char(0)) OR instr(agent, char(0)) OR instr(queue, char(0))
ORDER BY id LIMIT 3;

-- --- the new ledger's side

-- name: lock_tables (postgres)
-- Whoever writes there is waited for, and waits.
LOCK TABLE durably_transfer, durably_runs, durably_inputs, durably_messages, durably_effects,
           durably_decisions, durably_signals, durably_notices, durably_attempts, durably_events,
           durably_queues, durably_budgets, durably_actions, durably_workers
IN SHARE ROW EXCLUSIVE MODE;

-- name: look_around (postgres)
SELECT (SELECT count(*) FROM (SELECT 1 FROM durably_runs LIMIT 1) r) AS runs,
       (SELECT count(*) FROM durably_queues) AS queues,
       (SELECT count(*) FROM durably_budgets) AS budgets,
       (SELECT count(*) FROM (SELECT 1 FROM durably_actions LIMIT 1) a) AS actions,
       (SELECT min(source) FROM durably_transfer
        WHERE finished_at IS NULL AND id <> :transfer_id) AS other,
       (SELECT CAST(ledger_id AS TEXT) FROM durably_schema LIMIT 1) AS ledger_id;

-- name: begin_transfer (postgres)
INSERT INTO durably_transfer (id, source, began_at) VALUES (:transfer_id, :source, :began_at);

-- name: find_transfer (postgres)
SELECT copied_to, finished_at FROM durably_transfer WHERE id = :transfer_id;

-- name: join_transfer (postgres)
-- Before anything else of a batch: whoever takes the transfer back locks this table first, too, so
-- that neither waits for the other in a circle.
LOCK TABLE durably_transfer IN ROW EXCLUSIVE MODE;

-- name: lock_transfer (postgres)
SELECT copied_to, finished_at FROM durably_transfer WHERE id = :transfer_id FOR UPDATE;

-- name: advance_transfer (postgres)
UPDATE durably_transfer SET copied_to = :upto WHERE id = :transfer_id;

-- name: finish_transfer (postgres)
UPDATE durably_transfer SET finished_at = now() WHERE id = :transfer_id;

-- name: raise_ids (postgres)
-- What is new comes after all that there ever was.
SELECT setval(s.runs, GREATEST(CAST(:runs AS BIGINT), pg_sequence_last_value(s.runs), 1)),
       setval(s.events, GREATEST(CAST(:events AS BIGINT), pg_sequence_last_value(s.events), 1)),
       setval(s.decisions,
              GREATEST(CAST(:decisions AS BIGINT), pg_sequence_last_value(s.decisions), 1)),
       setval(s.signals,
              GREATEST(CAST(:signals AS BIGINT), pg_sequence_last_value(s.signals), 1)),
       setval(s.notices,
              GREATEST(CAST(:notices AS BIGINT), pg_sequence_last_value(s.notices), 1)),
       setval(s.actions,
              GREATEST(CAST(:actions AS BIGINT), pg_sequence_last_value(s.actions), 1))
FROM (SELECT CAST(pg_get_serial_sequence(quote_ident(:schema) || '.durably_runs', 'id')
                  AS regclass) AS runs,
             CAST(pg_get_serial_sequence(quote_ident(:schema) || '.durably_events', 'id')
                  AS regclass) AS events,
             CAST(pg_get_serial_sequence(quote_ident(:schema) || '.durably_decisions', 'id')
                  AS regclass) AS decisions,
             CAST(pg_get_serial_sequence(quote_ident(:schema) || '.durably_signals', 'id')
                  AS regclass) AS signals,
             CAST(pg_get_serial_sequence(quote_ident(:schema) || '.durably_notices', 'id')
                  AS regclass) AS notices,
             CAST(pg_get_serial_sequence(quote_ident(:schema) || '.durably_actions', 'id')
                  AS regclass) AS actions) s;

-- name: analyze_moved (postgres)
ANALYZE durably_runs, durably_inputs, durably_messages, durably_effects, durably_decisions,
        durably_signals, durably_notices, durably_attempts, durably_events;

-- name: delete_moved_jobs (postgres)
DELETE FROM oban_jobs WHERE id IN (SELECT job_id FROM durably_runs WHERE job_id IS NOT NULL);

-- name: empty_tables (postgres)
TRUNCATE durably_runs, durably_inputs, durably_messages, durably_effects, durably_decisions,
         durably_signals, durably_notices, durably_attempts, durably_events, durably_queues,
         durably_budgets, durably_actions;

-- name: forget_transfer (postgres)
DELETE FROM durably_transfer WHERE id = :transfer_id;
