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

-- name: cancel_job (sqlite)
SELECT 1 WHERE FALSE;

-- name: cancel_job (postgres)
-- What would have woken a run that is cancelled meanwhile; one that executes ends by itself.
UPDATE oban_jobs SET state = 'cancelled', cancelled_at = timezone('UTC', now())
WHERE id = (SELECT job_id FROM durably_runs WHERE id = :run_id)
  AND state IN ('available', 'scheduled', 'retryable');
