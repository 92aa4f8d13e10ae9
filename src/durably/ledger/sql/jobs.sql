-- Oban's jobs, on Postgres: one for each wake-up of a run. SQLite has none: there the dispatcher
-- looks for due runs itself.

-- name: insert_job (sqlite)
SELECT 1 WHERE FALSE;

-- name: insert_job (postgres)
-- The run remembers its newest job; Oban's producers are told as Oban's own insert would.
WITH job AS (
    INSERT INTO oban_jobs (state, queue, worker, args, priority, max_attempts, inserted_at,
                           scheduled_at)
    SELECT CAST(CASE WHEN r.state = 'available' OR r.scheduled_at <= durably_now()
                     THEN 'available' ELSE 'scheduled' END AS oban_job_state),
           r.queue, 'durably.RunAgent', jsonb_build_object('key', r.key), r.priority, 20,
           timezone('UTC', now()), timezone('UTC', r.scheduled_at)
    FROM durably_runs r WHERE r.id = :run_id
    RETURNING id, queue, state)
UPDATE durably_runs AS r SET job_id = job.id FROM job WHERE r.id = :run_id
RETURNING CASE WHEN job.state = 'available'
               THEN pg_notify(:schema || '.oban_insert',
                              CAST(json_build_object('queue', job.queue) AS TEXT)) END;

-- name: insert_jobs (sqlite)
SELECT 1 WHERE FALSE;

-- name: insert_jobs (postgres)
-- As insert_job, for runs of one queue; producers are told once.
WITH new AS MATERIALIZED (
    SELECT r.* FROM durably_runs r
    WHERE r.id IN (SELECT CAST(json_array_elements_text(CAST(:ids AS JSON)) AS BIGINT))),
job AS (
    INSERT INTO oban_jobs (state, queue, worker, args, priority, max_attempts, inserted_at,
                           scheduled_at)
    SELECT CAST(CASE WHEN state = 'available' OR scheduled_at <= durably_now()
                     THEN 'available' ELSE 'scheduled' END AS oban_job_state),
           queue, 'durably.RunAgent', jsonb_build_object('key', key), priority, 20,
           timezone('UTC', now()), timezone('UTC', scheduled_at)
    FROM new ORDER BY id
    RETURNING id, args ->> 'key' AS key, queue, state),
taken AS (
    UPDATE durably_runs r SET job_id = job.id
    FROM job JOIN new ON new.key = job.key WHERE r.id = new.id)
SELECT pg_notify(:schema || '.oban_insert', CAST(json_build_object('queue', queue) AS TEXT))
FROM (SELECT DISTINCT queue FROM job WHERE state = 'available') told;

-- name: cancel_job (sqlite)
SELECT 1 WHERE FALSE;

-- name: cancel_job (postgres)
-- What would have woken a run that is cancelled meanwhile; one that executes ends by itself.
UPDATE oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now())
WHERE id = (SELECT job_id FROM durably_runs WHERE id = :run_id)
  AND state IN ('available', 'scheduled', 'retryable');

-- name: abandon_job (sqlite)
SELECT 1 WHERE FALSE;

-- name: abandon_job (postgres)
-- The job of an attempt whose worker died: Oban would take it for healthy for minutes.
-- `||` appends an object to a document, as Python's Oban keeps errors, and to an array of them.
UPDATE oban_jobs
SET state = 'discarded', discarded_at = timezone('UTC', now()),
    errors = errors || jsonb_build_object(
        'attempt', attempt, 'at', to_char(timezone('UTC', now()), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'error', CAST(:error AS TEXT))
WHERE id = (SELECT job_id FROM durably_runs WHERE id = :run_id) AND state = 'executing';

-- name: claim_wakeups (postgres)
-- The runs of many jobs at once, with their attempts and events: those that are due, in no paused
-- queue, and written about by nobody at this moment. The others are looked at one by one.
WITH wakeup AS (
    SELECT * FROM unnest(CAST(:run_keys AS TEXT[]), CAST(:job_ids AS BIGINT[])) AS w (key, job_id)),
found AS MATERIALIZED (
    SELECT r.id, w.job_id FROM wakeup w JOIN durably_runs r ON r.key = w.key
    WHERE (r.state = 'available' OR (r.state IN ('scheduled', 'retryable')
                                     AND r.scheduled_at <= durably_now()))
      AND NOT EXISTS (SELECT 1 FROM durably_queues q WHERE q.queue = r.queue AND q.paused)
    ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED),
run AS (
    UPDATE durably_runs r
    SET state = 'executing', attempt = r.attempt + 1, worker_id = :worker_id,
        attempted_at = durably_now(), job_id = found.job_id,
        waited_ms = COALESCE(r.waited_ms, durably_ms_since(r.scheduled_at))
    FROM found WHERE r.id = found.id
    RETURNING r.*),
attempt AS (
    INSERT INTO durably_attempts (run_id, attempt, worker_id, started_at)
    SELECT id, attempt, worker_id, durably_now() FROM run),
event AS (
    INSERT INTO durably_events (run_id, kind, attempt, data, at)
    SELECT id, 'claimed', attempt, json_build_object('worker', worker_id), durably_now()
    FROM run ORDER BY id)
SELECT run.*, i.prompt, i.args FROM run LEFT JOIN durably_inputs i ON i.run_id = run.id;

-- name: take_job (postgres)
-- The run is executed for this job: cancelling it there, or its end, are the run's.
UPDATE durably_runs SET job_id = :job_id WHERE id = :run_id AND job_id IS DISTINCT FROM :job_id;

-- name: hasten_run (postgres)
-- A person did not want to wait until it is due.
UPDATE durably_runs SET scheduled_at = durably_now()
WHERE id = :run_id AND state IN ('scheduled', 'retryable') AND scheduled_at > durably_now()
RETURNING *;

-- name: list_lost_wakeups (sqlite)
SELECT id FROM durably_runs WHERE FALSE;

-- name: list_lost_wakeups (postgres)
-- Due runs that nothing will wake: their job is gone, is over, or is held by a dead worker.
SELECT r.id FROM durably_runs r LEFT JOIN oban_jobs j ON j.id = r.job_id
WHERE (r.state = 'available'
       OR (r.state IN ('scheduled', 'retryable') AND r.scheduled_at <= durably_now()))
  AND (j.id IS NULL
       OR j.state NOT IN ('available', 'scheduled', 'retryable', 'executing')
       OR (j.state = 'executing'
           AND NOT EXISTS (SELECT 1 FROM durably_workers w
                           WHERE w.id = j.attempted_by[1] AND w.expires_at > durably_now())))
ORDER BY r.id LIMIT :limit;

-- name: list_fetched_jobs (postgres)
-- What Oban's table says that a node has in hand.
SELECT id FROM oban_jobs
WHERE state = 'executing' AND worker = 'durably.RunAgent' AND attempted_by[1] = :worker_id;

-- name: free_jobs (postgres)
-- As if they had not been fetched.
UPDATE oban_jobs SET state = 'available', attempt = GREATEST(attempt - 1, 0)
WHERE id = ANY(:job_ids) AND state = 'executing' AND attempted_by[1] = :worker_id
RETURNING id;

-- name: list_orphaned_jobs (sqlite)
SELECT 1 WHERE FALSE;

-- name: list_orphaned_jobs (postgres)
-- A dead node's, and no run's that is still to be executed: it died before there was a run for it, as
-- for a job of another language, or before it could say that the run is over.
SELECT j.id, j.attempted_by[1] AS worker_id FROM oban_jobs j
WHERE j.state = 'executing' AND j.worker = 'durably.RunAgent'
  AND NOT EXISTS (SELECT 1 FROM durably_workers w
                  WHERE w.id = j.attempted_by[1] AND w.expires_at > durably_now())
  AND NOT EXISTS (SELECT 1 FROM durably_runs r WHERE r.job_id = j.id
                  AND r.state IN ('available', 'scheduled', 'retryable', 'executing'))
LIMIT :limit;

-- name: lock_lost_wakeup (postgres)
-- Looked at once more, now that nobody else can write about the run.
SELECT r.* FROM durably_runs r
WHERE r.id = :run_id AND r.state IN ('available', 'scheduled', 'retryable')
  AND NOT EXISTS (
      SELECT 1 FROM oban_jobs j
      WHERE j.id = r.job_id
        AND (j.state IN ('available', 'scheduled', 'retryable')
             OR (j.state = 'executing'
                 AND EXISTS (SELECT 1 FROM durably_workers w
                             WHERE w.id = j.attempted_by[1] AND w.expires_at > durably_now()))))
FOR NO KEY UPDATE OF r;

-- name: list_cancelled_jobs (sqlite)
SELECT key FROM durably_runs WHERE FALSE;

-- name: list_cancelled_jobs (postgres)
-- Runs whose job somebody cancelled in Oban, heard of or not.
SELECT r.key FROM oban_jobs j JOIN durably_runs r ON r.job_id = j.id
WHERE j.state = 'cancelled'
  AND j.cancelled_at > timezone('UTC', now()) - make_interval(secs => :seconds)
  AND r.state IN ('scheduled', 'available', 'executing', 'retryable')
  AND r.cancel_requested_at IS NULL
LIMIT :limit;
