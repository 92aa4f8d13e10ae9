-- Attempts: who tried, how it ended.

-- name: insert_attempt
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at)
VALUES (:run_id, :attempt, :worker_id, durably_now());

-- name: begin_attempts (sqlite)
-- Of runs that were claimed a moment ago, in this transaction.
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at)
SELECT id, attempt, worker_id, durably_now() FROM durably_runs
WHERE id IN (SELECT value FROM json_each(:ids));

-- name: begin_attempts (postgres)
INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at)
SELECT id, attempt, worker_id, durably_now() FROM durably_runs
WHERE id IN (SELECT CAST(json_array_elements_text(CAST(:ids AS JSON)) AS BIGINT));

-- name: end_attempt
UPDATE durably_attempts
SET ended_at = durably_now(), outcome = :outcome, error = :error, traceback = :traceback
WHERE run_id = :run_id AND attempt = :attempt AND ended_at IS NULL
RETURNING *;

-- name: close_attempt (postgres)
-- In one round trip what doubt_effects, end_attempt and insert_event do.
WITH doubted AS (
    UPDATE durably_effects SET state = 'in_doubt'
    WHERE run_id = :run_id AND state = 'started' AND attempt <= :attempt),
ended AS (
    UPDATE durably_attempts
    SET ended_at = durably_now(), outcome = :outcome, error = :error, traceback = :traceback
    WHERE run_id = :run_id AND attempt = :attempt AND ended_at IS NULL)
INSERT INTO durably_events (run_id, kind, attempt, data, at)
VALUES (:run_id, :kind, :attempt, :data, durably_now());

-- name: set_fingerprint
UPDATE durably_attempts SET fingerprint = :fingerprint
WHERE run_id = :run_id AND attempt = :attempt
  AND (fingerprint IS NULL OR fingerprint <> :fingerprint)
RETURNING attempt;

-- name: last_fingerprint
SELECT fingerprint FROM durably_attempts
WHERE run_id = :run_id AND attempt < :attempt AND fingerprint IS NOT NULL
ORDER BY attempt DESC LIMIT 1;

-- name: list_attempts
SELECT * FROM durably_attempts WHERE run_id = :run_id ORDER BY attempt;

-- name: get_attempt
SELECT * FROM durably_attempts WHERE run_id = :run_id AND attempt = :attempt;
