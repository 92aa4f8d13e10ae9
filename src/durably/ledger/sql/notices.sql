-- Notices: the outbox of what people have to be told. Written in the transaction that makes something
-- wait, taken up for a time by one worker after the other, until every hook has taken it.

-- name: insert_call_notices
-- One for each call that a person is asked about, unless they have been told of this asking or are
-- about to be. One that was dropped or given up does not count.
INSERT INTO durably_notices (run_id, response, call, step, kind, attempt, reason, made_at, due_at)
SELECT e.run_id, e.response, e.call, e.step, COALESCE(e.ask, 'doubt'), e.attempt, 'waiting',
       durably_now(), durably_now()
FROM durably_effects e
WHERE e.run_id = :run_id AND e.asked AND e.state IN ('in_doubt', 'awaiting')
  AND COALESCE(e.ask, 'doubt') IN ('approval', 'answer', 'question', 'doubt')
  AND NOT EXISTS (SELECT 1 FROM durably_notices n
                  WHERE n.run_id = e.run_id AND n.response = e.response AND n.call = e.call
                    AND n.step = e.step AND n.kind = COALESCE(e.ask, 'doubt')
                    AND n.attempt = e.attempt
                    AND (n.sent_at IS NOT NULL OR n.due_at IS NOT NULL))
ORDER BY e.response, e.call, e.step
RETURNING id;

-- name: insert_notice
INSERT INTO durably_notices (run_id, response, call, step, kind, attempt, reason, made_at, due_at)
VALUES (:run_id, :response, :call, :step, :kind, :attempt, :reason, durably_now(), durably_now())
RETURNING id;

-- name: forget_notices
DELETE FROM durably_notices WHERE run_id = :run_id RETURNING id;

-- name: find_due_notice
SELECT id FROM durably_notices WHERE due_at IS NOT NULL AND due_at <= durably_now() LIMIT 1;

-- name: claim_notices (sqlite)
UPDATE durably_notices SET due_at = durably_after(:seconds), tries = tries + 1
WHERE id IN (SELECT id FROM durably_notices
             WHERE due_at IS NOT NULL AND due_at <= durably_now()
             ORDER BY due_at, id LIMIT :limit)
RETURNING *;

-- name: claim_notices (postgres)
-- What another worker is taking up at this moment is passed over.
WITH due AS MATERIALIZED (
    SELECT id FROM durably_notices
    WHERE due_at IS NOT NULL AND due_at <= durably_now()
    ORDER BY due_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
UPDATE durably_notices SET due_at = durably_after(:seconds), tries = tries + 1
WHERE id IN (SELECT id FROM due)
RETURNING *;

-- name: find_waiting_call
-- The asking that a notice is about, as the inbox shows it; nothing if it is over.
SELECT r.key AS run_key, r.agent, r.queue, r.tags, r.parent_id, e.*
FROM durably_runs r JOIN durably_effects e ON e.run_id = r.id
WHERE r.id = :run_id AND r.state = 'suspended'
  AND e.response = :response AND e.call = :call AND e.step = :step
  AND e.asked AND e.state IN ('in_doubt', 'awaiting')
  AND COALESCE(e.ask, 'doubt') = :kind AND e.attempt = :attempt;

-- name: find_waiting_run
SELECT * FROM durably_runs
WHERE id = :run_id AND state = 'suspended' AND waiting_kind = :kind AND attempt = :attempt;

-- name: list_path
-- A run's key, after those of the runs that started it.
WITH RECURSIVE line (key, parent_id, depth) AS (
    SELECT key, parent_id, 0 FROM durably_runs WHERE id = :run_id
    UNION ALL
    SELECT r.key, r.parent_id, line.depth + 1 FROM line JOIN durably_runs r ON r.id = line.parent_id)
SELECT key FROM line ORDER BY depth DESC;

-- name: settle_notice
-- Also by a worker that was slow, and whose notice another has taken up meanwhile: it was sent.
UPDATE durably_notices SET sent_at = durably_now(), due_at = NULL, taken_by = :taken_by, error = NULL
WHERE id = :notice_id AND sent_at IS NULL
RETURNING id;

-- name: postpone_notice
-- Again after some seconds; never, if they are none. Only by the worker that has it.
UPDATE durably_notices
SET due_at = CASE WHEN CAST(:seconds AS DOUBLE PRECISION) IS NOT NULL
                  THEN durably_after(CAST(:seconds AS DOUBLE PRECISION)) END,
    taken_by = :taken_by, error = :error
WHERE id = :notice_id AND tries = :tries AND due_at IS NOT NULL
RETURNING id;

-- name: drop_notice
-- What it is about waits no more: nobody need be told.
UPDATE durably_notices SET due_at = NULL, error = NULL
WHERE id = :notice_id AND due_at IS NOT NULL
RETURNING id;

-- name: count_given_up
-- Things that wait, and of which nobody could be told.
SELECT count(*) AS notices FROM durably_runs r JOIN durably_notices n ON n.run_id = r.id
WHERE r.state = 'suspended' AND n.due_at IS NULL AND n.sent_at IS NULL AND n.error IS NOT NULL;
