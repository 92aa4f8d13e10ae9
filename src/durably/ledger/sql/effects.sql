-- Effects: one tool call each. Fenced writes select from the run's row: no run, no write.

-- name: insert_intent
-- A call that is in doubt and may run again becomes this attempt's call.
INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args, policy,
                             on_doubt, state, attempt, idempotency_key, started_at)
SELECT r.id, :response, :call, :tool_name, :tool_call_id, :args, :policy, :on_doubt, 'started',
       r.attempt, :idempotency_key, durably_now()
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing'
ON CONFLICT (run_id, response, call) DO UPDATE
SET state = 'started', attempt = excluded.attempt, started_at = excluded.started_at,
    asked = FALSE, result = NULL, error = NULL, finished_at = NULL
WHERE durably_effects.state = 'in_doubt'
RETURNING *;

-- name: record_outcome
-- One that says what is recorded already changes nothing, so that it leaves no second event.
INSERT INTO durably_effects (run_id, response, call, tool_name, tool_call_id, args, policy,
                             on_doubt, state, asked, attempt, idempotency_key, result, error,
                             started_at, finished_at)
SELECT r.id, :response, :call, :tool_name, :tool_call_id, :args, :policy, :on_doubt, :state,
       :asked, r.attempt, :idempotency_key, :result, :error, durably_now(),
       CASE WHEN :state IN ('done', 'failed', 'denied') THEN durably_now() END
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing'
ON CONFLICT (run_id, response, call) DO UPDATE
SET state = excluded.state, asked = excluded.asked, result = excluded.result,
    error = COALESCE(excluded.error, durably_effects.error), finished_at = excluded.finished_at
WHERE durably_effects.state NOT IN ('done', 'failed', 'denied')
  AND (durably_effects.state <> excluded.state OR durably_effects.asked <> excluded.asked
       OR COALESCE(durably_effects.error, '')
          <> COALESCE(excluded.error, durably_effects.error, ''))
RETURNING *;

-- name: doubt_effect
-- Never inserts: a call whose record is gone was withdrawn, and is in no doubt. What is recorded
-- already is not recorded again.
UPDATE durably_effects
SET state = 'in_doubt', asked = :asked, result = :result, error = COALESCE(:error, error)
WHERE run_id = :run_id AND response = :response AND call = :call
  AND (state = 'started'
       OR (state = 'in_doubt' AND (asked <> :asked OR (result IS NOT NULL) <> :told)))
  AND EXISTS (SELECT 1 FROM durably_runs r
              WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing')
RETURNING *;

-- name: withdraw_intent
-- Nothing happened: the call is as if it had never been tried.
DELETE FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call AND attempt = :attempt
  AND state = 'started'
  AND EXISTS (SELECT 1 FROM durably_runs r
              WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing')
RETURNING run_id;

-- name: doubt_effects
-- An attempt is over: what it started and did not finish may have happened.
UPDATE durably_effects SET state = 'in_doubt'
WHERE run_id = :run_id AND state = 'started' AND attempt <= :attempt
RETURNING *;

-- name: settle_late
-- Fenced by the attempt that made the call, not by the run's: evidence may come late.
UPDATE durably_effects
SET state = :state, result = :result, error = :error, asked = FALSE, finished_at = durably_now(),
    resolved_by = 'late evidence'
WHERE run_id = :run_id AND response = :response AND call = :call AND attempt = :attempt
  AND state IN ('started', 'in_doubt')
RETURNING *;

-- name: withdraw_late
-- Evidence that nothing happened; of a call that the model was told about, the record stays.
DELETE FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call AND attempt = :attempt
  AND state IN ('started', 'in_doubt') AND result IS NULL
RETURNING run_id;

-- name: resolve_effect
UPDATE durably_effects
SET state = :state, result = :result, error = :error, asked = FALSE, resolved_by = :resolved_by,
    finished_at = durably_now()
WHERE run_id = :run_id AND response = :response AND call = :call
  AND state IN ('in_doubt', 'awaiting')
RETURNING *;

-- name: forget_effect
DELETE FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call
  AND state = 'in_doubt'
RETURNING *;

-- name: get_effect
SELECT * FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call;

-- name: list_effects
SELECT * FROM durably_effects WHERE run_id = :run_id ORDER BY response, call;

-- name: list_inbox
SELECT r.key AS run_key, e.* FROM durably_runs r
JOIN durably_effects e ON e.run_id = r.id
WHERE r.state = 'suspended' AND e.asked AND e.state IN ('in_doubt', 'awaiting')
ORDER BY e.started_at;
