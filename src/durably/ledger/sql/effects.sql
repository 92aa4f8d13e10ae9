-- Effects: one tool call each. Fenced writes select from the run's row: no run, no write. Until it
-- is committed nobody can take the run (see hold_run).

-- name: insert_intent
-- A call that is in doubt and may run again, or was approved, becomes this attempt's call.
INSERT INTO durably_effects (run_id, response, call, step, tool_name, tool_call_id, args,
                             policy, on_doubt, state, attempt, idempotency_key, started_at)
SELECT r.id, :response, :call, :step, :tool_name, :tool_call_id, :args, :policy, :on_doubt, 'started',
       r.attempt, :idempotency_key, durably_now()
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing' /*postgres: FOR NO KEY UPDATE*/
ON CONFLICT (run_id, response, call, step) DO UPDATE
SET state = 'started', attempt = excluded.attempt, started_at = excluded.started_at,
    asked = FALSE, result = NULL, error = NULL, finished_at = NULL
WHERE durably_effects.state = 'in_doubt'
   OR (durably_effects.state = 'awaiting' AND durably_effects.approved)
RETURNING run_id;

-- name: record_outcome
-- One that says what is recorded already changes nothing, so that it leaves no second event.
INSERT INTO durably_effects (run_id, response, call, step, tool_name, tool_call_id, args,
                             policy, on_doubt, state, asked, attempt, idempotency_key, result, error,
                             started_at, finished_at)
SELECT r.id, :response, :call, :step, :tool_name, :tool_call_id, :args, :policy, :on_doubt, :state,
       :asked, r.attempt, :idempotency_key, :result, :error,
       durably_after(CAST(:began_seconds AS DOUBLE PRECISION)),
       CASE WHEN :state = 'done' OR :state = 'failed' OR :state = 'denied'
            THEN durably_after(CAST(:ended_seconds AS DOUBLE PRECISION)) END
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing' /*postgres: FOR NO KEY UPDATE*/
ON CONFLICT (run_id, response, call, step) DO UPDATE
SET state = excluded.state, asked = excluded.asked, result = excluded.result,
    error = COALESCE(excluded.error, durably_effects.error), finished_at = excluded.finished_at
WHERE NOT (durably_effects.state = 'done' OR durably_effects.state = 'failed'
           OR durably_effects.state = 'denied')
  AND (durably_effects.state <> excluded.state OR durably_effects.asked <> excluded.asked
       OR COALESCE(durably_effects.error, '')
          <> COALESCE(excluded.error, durably_effects.error, ''))
RETURNING run_id;

-- name: close_call (postgres)
-- In one round trip what record_outcome and insert_event do.
WITH outcome AS (
/*statement record_outcome*/),
event AS (
    INSERT INTO durably_events (run_id, kind, attempt, data, at)
    SELECT run_id, 'effect', CAST(:attempt AS INTEGER), CAST(:event AS JSON), durably_now()
    FROM outcome)
SELECT run_id FROM outcome;

-- name: doubt_effect
-- Never inserts: a call whose record is gone was withdrawn, and is in no doubt. What is recorded
-- already is not recorded again.
UPDATE durably_effects
SET state = 'in_doubt', asked = :asked, result = :result, error = COALESCE(:error, error),
    ask = CASE WHEN :asked THEN 'doubt' ELSE ask END,
    asked_at = CASE WHEN :asked AND (NOT asked OR asked_at IS NULL) THEN durably_now()
                    ELSE asked_at END
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND (state = 'started'
       OR (state = 'in_doubt' AND (asked <> :asked OR (result IS NOT NULL) <> :told)))
  AND EXISTS (SELECT 1 FROM durably_runs r
              WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing')
RETURNING *;

-- name: withdraw_intent
-- Nothing happened: the call is as if it had never been tried.
DELETE FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step AND attempt = :attempt
  AND state = 'started' AND NOT approved
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
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step AND attempt = :attempt
  AND state IN ('started', 'in_doubt')
RETURNING *;

-- name: withdraw_late
-- Evidence that nothing happened; of a call that the model was told about, the record stays.
DELETE FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step AND attempt = :attempt
  AND state IN ('started', 'in_doubt') AND result IS NULL AND NOT approved
RETURNING run_id;

-- name: return_approved
-- The same for a call that somebody approved: nobody need be asked again.
UPDATE durably_effects SET state = 'awaiting', asked = FALSE, error = NULL
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND state IN ('started', 'in_doubt') AND result IS NULL AND approved
  AND (attempt = :attempt OR CAST(:attempt AS INTEGER) IS NULL)
RETURNING run_id;

-- name: ask_person
-- A call waits for a person; also one that this attempt has not recorded before.
INSERT INTO durably_effects (run_id, response, call, step, tool_name, tool_call_id, args,
                             policy, on_doubt, state, asked, attempt, idempotency_key, started_at, ask,
                             request, asked_at, expires_at, on_expiry, escalate_queue)
SELECT r.id, :response, :call, :step, :tool_name, :tool_call_id, :args, :policy, :on_doubt, 'awaiting',
       TRUE, r.attempt, :idempotency_key, durably_now(), :ask, :request, durably_now(),
       CASE WHEN CAST(:within_seconds AS DOUBLE PRECISION) IS NOT NULL
            THEN durably_after(CAST(:within_seconds AS DOUBLE PRECISION)) END,
       :on_expiry, :escalate_queue
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt AND r.state = 'executing' /*postgres: FOR NO KEY UPDATE*/
ON CONFLICT (run_id, response, call, step) DO NOTHING
RETURNING run_id;

-- name: approve_effect
UPDATE durably_effects
SET approved = TRUE, asked = FALSE, args = :args, resolved_by = :resolved_by, expires_at = NULL
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND state = 'awaiting' AND asked AND ask = 'approval'
RETURNING *;

-- name: decide_effect
-- A denial, an answer, an expiry: settled by whoever says so first.
UPDATE durably_effects
SET state = :state, result = :result, error = :error, asked = FALSE, resolved_by = :resolved_by,
    finished_at = durably_now(), expires_at = NULL
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND state = 'awaiting' AND asked
RETURNING *;

-- name: resolve_effect
UPDATE durably_effects
SET state = :state, result = :result, error = :error, asked = FALSE, resolved_by = :resolved_by,
    finished_at = durably_now(), expires_at = NULL
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND state IN ('in_doubt', 'awaiting')
RETURNING *;

-- name: forget_effect
-- Not of a call that the model was told about: it would not run again, and nothing would say so.
DELETE FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step
  AND state = 'in_doubt' AND result IS NULL AND NOT approved
RETURNING run_id;

-- name: get_effect
SELECT * FROM durably_effects
WHERE run_id = :run_id AND response = :response AND call = :call AND step = :step;

-- name: list_effects
SELECT * FROM durably_effects WHERE run_id = :run_id ORDER BY response, call, step;

-- name: list_inbox (sqlite)
-- In the order of its index, so that a page looks only at what is on it.
SELECT r.key AS run_key, r.agent, r.queue, r.tags, r.parent_id, r.waiting_kind, r.waiting_on,
       a.worker_id AS called_by, e.*
FROM durably_effects e
CROSS JOIN durably_runs r ON r.id = e.run_id
LEFT JOIN durably_attempts a ON a.run_id = e.run_id AND a.attempt = e.attempt
WHERE r.state = 'suspended' AND e.asked AND e.state IN ('in_doubt', 'awaiting')
  AND COALESCE(e.asked_at, e.started_at) >= :since
  AND (COALESCE(e.asked_at, e.started_at), e.run_id, e.response, e.call, e.step)
      > (:since, :run_id, :response, :call, :step)
  AND (CAST(:agent AS TEXT) IS NULL OR r.agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR r.queue = :queue)
  AND (CAST(:kind AS TEXT) IS NULL OR COALESCE(e.ask, 'doubt') = :kind)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(r.tags) THEN r.tags END) WHERE value = :tag))
ORDER BY COALESCE(e.asked_at, e.started_at), e.run_id, e.response, e.call, e.step
LIMIT :limit;

-- name: list_inbox (postgres)
SELECT r.key AS run_key, r.agent, r.queue, r.tags, r.parent_id, r.waiting_kind, r.waiting_on,
       a.worker_id AS called_by, e.*
FROM durably_effects e
JOIN durably_runs r ON r.id = e.run_id
LEFT JOIN durably_attempts a ON a.run_id = e.run_id AND a.attempt = e.attempt
WHERE r.state = 'suspended' AND e.asked AND e.state IN ('in_doubt', 'awaiting')
  AND COALESCE(e.asked_at, e.started_at) >= :since
  AND (COALESCE(e.asked_at, e.started_at), e.run_id, e.response, e.call, e.step)
      > (:since, :run_id, :response, :call, :step)
  AND (CAST(:agent AS TEXT) IS NULL OR r.agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR r.queue = :queue)
  AND (CAST(:kind AS TEXT) IS NULL OR COALESCE(e.ask, 'doubt') = :kind)
  AND (CAST(:tag AS TEXT) IS NULL OR r.tags @> jsonb_build_array(CAST(:tag AS TEXT)))
ORDER BY COALESCE(e.asked_at, e.started_at), e.run_id, e.response, e.call, e.step
LIMIT :limit;
