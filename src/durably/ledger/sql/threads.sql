-- Threads: runs that continue one conversation, in a line by id. All open runs of a thread but the first
-- wait in it: for their turn, or to be seen by the run that is going. Whatever changes who is first holds
-- the thread's lock, so that nobody joins a line at the moment at which it is looked through.

-- name: list_thread_runs (sqlite)
-- As `list_runs`, by the thread's own index.
SELECT * FROM durably_runs
WHERE thread = :thread
  AND (:state IS NULL OR state = :state)
  AND (:agent IS NULL OR agent = :agent)
  AND (:queue IS NULL OR queue = :queue)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(tags) THEN tags END) WHERE value = :tag))
  AND (:before IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit;

-- name: list_thread_runs (postgres)
SELECT * FROM durably_runs
WHERE thread = :thread
  AND (CAST(:state AS TEXT) IS NULL OR state = :state)
  AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR queue = :queue)
  AND (CAST(:tag AS TEXT) IS NULL OR tags @> jsonb_build_array(CAST(:tag AS TEXT)))
  AND (CAST(:before AS BIGINT) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit;

-- name: lock_thread (sqlite)
-- The one writer is alone with the file already.
SELECT 1 WHERE FALSE;

-- name: lock_thread (postgres)
SELECT pg_advisory_xact_lock(hashtextextended(:thread, 1));

-- name: first_in_line
SELECT * FROM durably_runs WHERE thread = :thread AND finished_at IS NULL ORDER BY id LIMIT 1;

-- name: last_in_line
SELECT * FROM durably_runs
WHERE thread = :thread AND finished_at IS NULL AND id < :before ORDER BY id DESC LIMIT 1;

-- name: find_follower
-- A later run that has begun, or may at any moment.
SELECT * FROM durably_runs
WHERE thread = :thread AND id > :run_id
  AND (attempt > 0
       OR (finished_at IS NULL
           AND COALESCE(waiting_kind, '') NOT IN ('thread', 'interrupt', 'steer', 'steered')))
ORDER BY id LIMIT 1;

-- name: release_run
-- Whose turn it is, if it waits for it. One that is not due yet holds its place.
UPDATE durably_runs
SET state = CASE WHEN scheduled_at > durably_now() THEN 'scheduled' ELSE 'available' END,
    waiting_kind = NULL, waiting_on = NULL
WHERE id = (SELECT id FROM durably_runs WHERE thread = :thread AND finished_at IS NULL
            ORDER BY id LIMIT 1)
  AND state = 'suspended' AND waiting_kind IN ('thread', 'interrupt', 'steer')
RETURNING *;

-- name: list_steers
-- Messages for the run that is going, and not seen by it yet.
SELECT r.id, r.key, i.prompt FROM durably_runs r JOIN durably_inputs i ON i.run_id = r.id
WHERE r.thread = :thread AND r.finished_at IS NULL AND r.id > :run_id AND r.waiting_kind = 'steer'
ORDER BY r.id;

-- name: take_steer
UPDATE durably_runs SET waiting_kind = 'steered', waiting_on = :waiting_on
WHERE id = :run_id AND state = 'suspended' AND waiting_kind = 'steer'
RETURNING *;

-- name: find_shared_end (sqlite)
-- The end of a run, and the first of those that steered it and have not ended with it.
SELECT s.id AS steer_id, r.* FROM durably_runs s
JOIN durably_runs r ON r.key = json_extract(
    CASE WHEN json_valid(s.waiting_on) THEN s.waiting_on END, '$.steers')
WHERE s.thread = :thread AND s.finished_at IS NULL AND s.waiting_kind = 'steered'
  AND r.finished_at IS NOT NULL
ORDER BY s.id LIMIT 1;

-- name: find_shared_end (postgres)
SELECT s.id AS steer_id, r.* FROM durably_runs s
JOIN durably_runs r ON r.key = s.waiting_on ->> 'steers'
WHERE s.thread = :thread AND s.finished_at IS NULL AND s.waiting_kind = 'steered'
  AND r.finished_at IS NOT NULL
ORDER BY s.id LIMIT 1;

-- name: share_end
-- Only a parent must still learn of it: for the thread it is over with the run that it steered.
UPDATE durably_runs
SET state = :state, output = :output, error = :error, finished_at = durably_now(),
    waiting_kind = NULL, waiting_on = NULL, tells_end = parent_id IS NOT NULL
WHERE id = :run_id AND state = 'suspended' AND waiting_kind = 'steered'
RETURNING *;

-- name: list_interrupts
SELECT * FROM durably_runs WHERE waiting_kind = 'interrupt' ORDER BY id LIMIT :limit;

-- name: interrupted
UPDATE durably_runs SET waiting_kind = 'thread'
WHERE id = :run_id AND state = 'suspended' AND waiting_kind = 'interrupt'
RETURNING *;

-- name: list_earlier_runs
SELECT id, key, state, attempt, inserted_at FROM durably_runs
WHERE thread = :thread AND id < :before ORDER BY id;

-- name: list_earlier_messages
SELECT m.* FROM durably_runs r JOIN durably_messages m ON m.run_id = r.id
WHERE r.thread = :thread AND r.id < :before ORDER BY r.id, m.seq;

-- name: list_last_effects
-- Only a run that did not complete can have left calls without answers, those of its last response.
SELECT e.* FROM durably_runs r JOIN durably_effects e ON e.run_id = r.id
WHERE r.thread = :thread AND r.id < :before AND r.state <> 'completed' AND e.step = ''
  AND e.response = (SELECT max(m.seq) FROM durably_messages m
                    WHERE m.run_id = r.id AND m.kind = 'response')
ORDER BY e.run_id, e.response, e.call;

-- name: list_unanswered_prompts
-- Of runs that began, and ended before a model had answered.
SELECT r.id, i.prompt FROM durably_runs r JOIN durably_inputs i ON i.run_id = r.id
WHERE r.thread = :thread AND r.id < :before AND r.attempt > 0
  AND NOT EXISTS (SELECT 1 FROM durably_messages m WHERE m.run_id = r.id)
ORDER BY r.id;
