-- Waits: what a tool's own code waits for that is no person: a time, a signal, another run.

-- name: insert_wait
-- Over at once where what it waits for is here already.
INSERT INTO durably_effects (run_id, response, call, step, tool_name, tool_call_id, args, policy,
                             state, attempt, idempotency_key, result, error, resolved_by,
                             started_at, finished_at, ask, request, expires_at, awaits)
SELECT r.id, :response, :call, :step, :tool_name, :tool_call_id, :args, :policy, :state, r.attempt,
       :idempotency_key, :result, :error, :resolved_by, durably_now(),
       CASE WHEN :state <> 'awaiting' THEN durably_now() END, :ask, :request,
       CASE WHEN :state = 'awaiting'
            THEN COALESCE(:until,
                          CASE WHEN CAST(:within_seconds AS DOUBLE PRECISION) IS NOT NULL
                               THEN durably_after(CAST(:within_seconds AS DOUBLE PRECISION)) END)
            END,
       :awaits
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing'
ON CONFLICT (run_id, response, call, step) DO NOTHING
RETURNING *;

-- name: settle_wait
-- A child that was retried after it failed may still complete.
UPDATE durably_effects
SET state = :state, result = :result, error = :error, resolved_by = :resolved_by,
    finished_at = durably_now(), expires_at = NULL
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND (state = 'awaiting' OR (state = 'failed' AND ask = 'child' AND :state = 'done'))
RETURNING *;

-- name: find_wait
SELECT * FROM durably_effects
WHERE run_id = :run_id AND ask = :ask AND awaits = :awaits AND state = 'awaiting'
ORDER BY started_at, response, call, step LIMIT 1;

-- name: find_child_waits
-- Also those that are over: a child may be retried. Several, if a tool names one child twice.
SELECT * FROM durably_effects
WHERE run_id = :run_id AND ask = 'child' AND awaits = :awaits ORDER BY response, call, step;

-- name: get_wait
SELECT e.*, e.expires_at <= durably_now() AS due FROM durably_effects e
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step;

-- name: list_expired
-- Of waits and of what people are asked alike; who decides about each is `ledger.expiry`. What is
-- asked by a run that is going is not due before that is suspended: it must not stand in the way.
SELECT r.key AS run_key, e.response, e.call, e.step FROM durably_effects e
JOIN durably_runs r ON r.id = e.run_id
WHERE e.expires_at IS NOT NULL AND e.expires_at <= durably_now()
  AND (NOT e.asked OR r.state NOT IN ('scheduled', 'available', 'executing', 'retryable'))
ORDER BY e.expires_at LIMIT :limit;

-- name: stop_expiry
UPDATE durably_effects SET expires_at = NULL
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND expires_at IS NOT NULL
RETURNING *;

-- name: wake_waiting_run
-- Something that the run waits for, beside people or without any, has come.
UPDATE durably_runs
SET state = 'available', waiting_kind = NULL, waiting_on = NULL
WHERE id = :run_id AND state = 'suspended' AND waiting_kind IN ('effects', 'waits')
RETURNING *;

-- name: insert_signal
-- The same signal sent again, by its id, is there already.
INSERT INTO durably_signals (run_id, name, payload, by, signal_id, sent_at)
VALUES (:run_id, :name, :payload, :by, :signal_id, durably_now())
ON CONFLICT (run_id, signal_id) DO NOTHING
RETURNING *;

-- name: take_signal
-- The first that nobody has taken, for the wait that it is recorded with.
UPDATE durably_signals
SET taken_response = :response, taken_call = :call, taken_step = :step
WHERE id = (SELECT id FROM durably_signals
            WHERE run_id = :run_id AND name = :name AND taken_step IS NULL ORDER BY id LIMIT 1)
RETURNING *;

-- name: list_signals
SELECT * FROM durably_signals WHERE run_id = :run_id ORDER BY id;

-- name: expect_ends
-- A run with children: they must learn of its end.
UPDATE durably_runs SET tells_end = TRUE WHERE id = :run_id AND NOT tells_end;

-- name: list_open_children
SELECT * FROM durably_runs
WHERE parent_id = :run_id AND state NOT IN ('completed', 'discarded', 'cancelled') ORDER BY id;

-- name: list_children
SELECT * FROM durably_runs WHERE parent_id = :run_id ORDER BY id;
