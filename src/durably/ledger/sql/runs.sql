-- Runs: one statement per transition of lifecycle.py. A write of an attempt carries
-- `attempt = :attempt AND state = 'executing'`; no row back means that the lease is lost.

-- name: insert_run
INSERT INTO durably_runs (key, agent, queue, state, priority, max_attempts, tags, meta,
                          fingerprint, thread, parent_id, tells_end, budget, stream,
                          waiting_kind, waiting_on, scheduled_at, inserted_at)
VALUES (:key, :agent, :queue,
        CASE WHEN CAST(:waiting_kind AS TEXT) IS NOT NULL THEN 'suspended'
             WHEN COALESCE(:scheduled_at, durably_after(:delay_seconds)) > durably_now()
             THEN 'scheduled' ELSE 'available' END,
        :priority, :max_attempts, :tags, :meta, :fingerprint, :thread, :parent_id, :tells_end,
        :budget, :stream, CAST(:waiting_kind AS TEXT), :waiting_on,
        COALESCE(:scheduled_at, durably_after(:delay_seconds)), durably_now())
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: enqueue_run (postgres)
-- In one round trip what insert_run, insert_input, insert_event and insert_job do. The run remembers
-- its job from the beginning, so that the job's id is taken first; or another's, that came with it.
WITH due AS MATERIALIZED (
    SELECT COALESCE(CAST(:scheduled_at AS TIMESTAMPTZ), durably_after(:delay_seconds)) AS at),
given AS MATERIALIZED (
    SELECT at, CASE WHEN CAST(:waiting_kind AS TEXT) IS NOT NULL THEN 'suspended'
                    WHEN at > durably_now() THEN 'scheduled' ELSE 'available' END AS state
    FROM due),
run AS (
    INSERT INTO durably_runs (key, agent, queue, state, priority, max_attempts, tags, meta,
                              fingerprint, thread, parent_id, tells_end, budget, stream,
                              waiting_kind, waiting_on, scheduled_at, inserted_at, job_id)
    SELECT CAST(:key AS TEXT), CAST(:agent AS TEXT), CAST(:queue AS TEXT), given.state,
           CAST(:priority AS INTEGER), CAST(:max_attempts AS INTEGER), CAST(:tags AS JSONB),
           CAST(:meta AS JSON), CAST(:fingerprint AS TEXT), CAST(:thread AS TEXT),
           CAST(:parent_id AS BIGINT), CAST(:tells_end AS BOOLEAN), CAST(:budget AS JSON),
           CAST(:stream AS BOOLEAN), CAST(:waiting_kind AS TEXT), CAST(:waiting_on AS JSON),
           given.at, durably_now(),
           CASE WHEN given.state = 'suspended' THEN NULL
                WHEN given.state = 'available' AND CAST(:job_id AS BIGINT) IS NOT NULL
                THEN CAST(:job_id AS BIGINT)
                ELSE nextval(CAST(pg_get_serial_sequence(quote_ident(:schema) || '.oban_jobs', 'id')
                                  AS REGCLASS)) END
    FROM given
    ON CONFLICT (key) DO NOTHING
    RETURNING *),
input AS (
    INSERT INTO durably_inputs (run_id, prompt, args)
    SELECT id, CAST(:prompt AS JSON), CAST(:args AS JSON) FROM run),
event AS (
    INSERT INTO durably_events (run_id, kind, attempt, data, at)
    SELECT id, 'enqueued', attempt, CAST(:event AS JSON), durably_now() FROM run),
job AS (
    INSERT INTO oban_jobs (id, state, queue, worker, args, priority, max_attempts, inserted_at,
                           scheduled_at) OVERRIDING SYSTEM VALUE
    SELECT job_id, CAST(state AS oban_job_state), queue, 'durably.RunAgent',
           jsonb_build_object('key', key), priority, 20, timezone('UTC', now()),
           timezone('UTC', scheduled_at)
    FROM run WHERE job_id IS NOT NULL AND job_id IS DISTINCT FROM CAST(:job_id AS BIGINT)
    RETURNING queue, state)
SELECT run.*, (SELECT pg_notify(:schema || '.oban_insert',
                                CAST(json_build_object('queue', queue) AS TEXT))
               FROM job WHERE state = 'available') AS told
FROM run;

-- name: insert_runs (sqlite)
-- Many at once that differ by their keys, and what they are asked, alone.
INSERT INTO durably_runs (key, agent, queue, state, priority, max_attempts, tags, meta, budget,
                          stream, scheduled_at, inserted_at)
SELECT value, :agent, :queue,
       CASE WHEN COALESCE(:scheduled_at, durably_after(:delay_seconds)) > durably_now()
            THEN 'scheduled' ELSE 'available' END,
       :priority, :max_attempts, :tags, :meta, :budget, :stream,
       COALESCE(:scheduled_at, durably_after(:delay_seconds)), durably_now()
FROM json_each(:keys) WHERE TRUE
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: insert_runs (postgres)
INSERT INTO durably_runs (key, agent, queue, state, priority, max_attempts, tags, meta, budget,
                          stream, scheduled_at, inserted_at)
SELECT given.key, CAST(:agent AS TEXT), CAST(:queue AS TEXT),
       CASE WHEN COALESCE(CAST(:scheduled_at AS TIMESTAMPTZ), durably_after(:delay_seconds))
                 > durably_now()
            THEN 'scheduled' ELSE 'available' END,
       CAST(:priority AS INTEGER), CAST(:max_attempts AS INTEGER), CAST(:tags AS JSONB),
       CAST(:meta AS JSON), CAST(:budget AS JSON), CAST(:stream AS BOOLEAN),
       COALESCE(CAST(:scheduled_at AS TIMESTAMPTZ), durably_after(:delay_seconds)), durably_now()
FROM unnest(ARRAY(SELECT json_array_elements_text(CAST(:keys AS JSON))))
     WITH ORDINALITY AS given (key, n)
ORDER BY n
ON CONFLICT (key) DO NOTHING
RETURNING *;

-- name: insert_inputs (sqlite)
-- What is asked is text in the JSON that holds it: it is stored as it was written.
INSERT INTO durably_inputs (run_id, prompt, args)
SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), :args FROM json_each(:inputs);

-- name: insert_inputs (postgres)
INSERT INTO durably_inputs (run_id, prompt, args)
SELECT CAST(value ->> 0 AS BIGINT), CAST(value ->> 1 AS JSON), CAST(:args AS JSON)
FROM json_array_elements(CAST(:inputs AS JSON));

-- name: insert_input
INSERT INTO durably_inputs (run_id, prompt, args) VALUES (:run_id, :prompt, :args);

-- name: list_inputs (sqlite)
-- Of runs that were claimed a moment ago.
SELECT run_id, prompt, args FROM durably_inputs
WHERE run_id IN (SELECT value FROM json_each(:ids));

-- name: list_inputs (postgres)
SELECT run_id, prompt, args FROM durably_inputs
WHERE run_id = ANY(ARRAY(SELECT CAST(json_array_elements_text(CAST(:ids AS JSON)) AS BIGINT)));

-- name: get_input
SELECT prompt, args FROM durably_inputs WHERE run_id = :run_id;

-- name: get_run
SELECT * FROM durably_runs WHERE key = :key;

-- name: get_run_to_decide (sqlite)
SELECT * FROM durably_runs WHERE key = :key;

-- name: get_run_to_decide (postgres)
-- Locked, as by every write about a run: of two people who settle its last two calls, the second
-- sees what the first did, and wakes it.
SELECT * FROM durably_runs WHERE key = :key FOR NO KEY UPDATE;

-- name: lock_run (sqlite)
SELECT id FROM durably_runs WHERE id = :run_id;

-- name: lock_run (postgres)
SELECT id FROM durably_runs WHERE id = :run_id FOR NO KEY UPDATE;

-- name: lock_fingerprint (sqlite)
-- The one writer is alone with the file already.
SELECT 1 WHERE FALSE;

-- name: lock_fingerprint (postgres)
-- Two twins at the same instant: the second waits here and finds the first.
SELECT pg_advisory_xact_lock(hashtextextended(:fingerprint, 0));

-- name: get_run_by_id
SELECT * FROM durably_runs WHERE id = :run_id;

-- name: list_stopped (sqlite)
-- For whoever waits for any of these: those that are over, suspended or gone.
SELECT given.value AS id, r.state, r.waiting_kind
FROM json_each(:ids) given LEFT JOIN durably_runs r ON r.id = given.value
WHERE r.id IS NULL OR r.state NOT IN ('scheduled', 'available', 'executing', 'retryable');

-- name: list_stopped (postgres)
SELECT given.id, r.state, r.waiting_kind
FROM (SELECT CAST(value AS BIGINT) AS id FROM json_array_elements_text(CAST(:ids AS JSON))) given
     LEFT JOIN durably_runs r ON r.id = given.id
WHERE r.id IS NULL OR r.state NOT IN ('scheduled', 'available', 'executing', 'retryable');

-- name: find_recent_run
SELECT * FROM durably_runs
WHERE fingerprint = :fingerprint AND inserted_at > durably_after(-:seconds)
ORDER BY id DESC LIMIT 1;

-- name: list_runs (sqlite)
SELECT * FROM durably_runs
WHERE (:state IS NULL OR state = :state)
  AND (:agent IS NULL OR agent = :agent)
  AND (:queue IS NULL OR queue = :queue)
  AND (:tag IS NULL OR EXISTS (SELECT 1 FROM json_each(CASE WHEN json_valid(tags) THEN tags END) WHERE value = :tag))
  AND (:before IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit;

-- name: list_runs (postgres)
SELECT * FROM durably_runs
WHERE (CAST(:state AS TEXT) IS NULL OR state = :state)
  AND (CAST(:agent AS TEXT) IS NULL OR agent = :agent)
  AND (CAST(:queue AS TEXT) IS NULL OR queue = :queue)
  AND (CAST(:tag AS TEXT) IS NULL OR tags @> jsonb_build_array(CAST(:tag AS TEXT)))
  AND (CAST(:before AS BIGINT) IS NULL OR id < :before)
ORDER BY id DESC LIMIT :limit;

-- name: count_runs
SELECT queue, state, count(*) AS runs FROM durably_runs GROUP BY queue, state;

-- name: count_open_runs
SELECT queue, state, count(*) AS runs FROM durably_runs
WHERE state IN ('scheduled', 'available', 'executing', 'retryable', 'suspended')
GROUP BY queue, state;

-- name: count_due
SELECT queue, count(*) AS runs, min(scheduled_at) AS since FROM durably_runs
WHERE state = 'available'
   OR (state IN ('scheduled', 'retryable') AND scheduled_at <= durably_now())
GROUP BY queue ORDER BY queue;

-- name: claim_runs (sqlite)
-- None of a paused queue: asked here, so that no attempt begins once pausing it is committed.
-- Two index scans, merged: what is available, and what has come due by time; of each the first by
-- priority. The second reads every due run's index entry: priority wins over time there too.
UPDATE durably_runs
SET state = 'executing', attempt = attempt + 1, worker_id = :worker_id,
    attempted_at = durably_now(), waited_ms = COALESCE(waited_ms, durably_ms_since(scheduled_at))
WHERE id IN (
    SELECT id FROM (
        SELECT id, priority, scheduled_at FROM (
            SELECT id, priority, scheduled_at FROM durably_runs
            WHERE state = 'available' AND queue = :queue
            ORDER BY priority, scheduled_at, id LIMIT :limit)
        UNION ALL
        SELECT id, priority, scheduled_at FROM (
            SELECT id, priority, scheduled_at FROM durably_runs
            WHERE state IN ('scheduled', 'retryable') AND queue = :queue
              AND scheduled_at <= durably_now()
            ORDER BY priority, scheduled_at, id LIMIT :limit)
    ) ORDER BY priority, scheduled_at, id LIMIT :limit)
  AND NOT EXISTS (SELECT 1 FROM durably_queues WHERE queue = :queue AND paused)
RETURNING *;

-- name: claim_runs (postgres)
-- As on SQLite; what another worker is claiming at this moment is passed over. Materialized: a
-- subquery that locks what it finds, and stops at a limit, must not run once for each row.
WITH available AS MATERIALIZED (
    SELECT id, priority, scheduled_at FROM durably_runs
    WHERE state = 'available' AND queue = :queue
    ORDER BY priority, scheduled_at, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED),
due AS MATERIALIZED (
    SELECT id, priority, scheduled_at FROM durably_runs
    WHERE state IN ('scheduled', 'retryable') AND queue = :queue
      AND scheduled_at <= durably_now()
    ORDER BY priority, scheduled_at, id LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED),
first AS MATERIALIZED (
    SELECT id FROM (SELECT * FROM available UNION ALL SELECT * FROM due) found
    ORDER BY priority, scheduled_at, id LIMIT :limit)
UPDATE durably_runs
SET state = 'executing', attempt = attempt + 1, worker_id = :worker_id,
    attempted_at = durably_now(), waited_ms = COALESCE(waited_ms, durably_ms_since(scheduled_at))
WHERE id IN (SELECT id FROM first)
  AND NOT EXISTS (SELECT 1 FROM durably_queues WHERE queue = :queue AND paused)
RETURNING *;

-- name: claim_run
UPDATE durably_runs
SET state = 'executing', attempt = attempt + 1, worker_id = :worker_id,
    attempted_at = durably_now(), waited_ms = COALESCE(waited_ms, durably_ms_since(scheduled_at))
WHERE id = :run_id
  AND (state = 'available' OR (state IN ('scheduled', 'retryable')
                               AND scheduled_at <= durably_now()))
RETURNING *;

-- name: next_due
-- Two looks at the ends of two indexes: what is available is due, the rest comes due in time.
-- The order is that of the index: a backlog in another queue must not be looked through.
SELECT CASE WHEN EXISTS (SELECT 1 FROM durably_queues WHERE queue = :queue AND paused) THEN NULL
            WHEN (SELECT id FROM durably_runs WHERE state = 'available' AND queue = :queue
                  ORDER BY priority, scheduled_at, id LIMIT 1) IS NOT NULL
            THEN durably_now()
            ELSE (SELECT min(scheduled_at) FROM durably_runs
                  WHERE state IN ('scheduled', 'retryable') AND queue = :queue) END AS at,
       durably_now() AS now;

-- name: touch_run
-- The fence of a checkpoint: also keeps the usage so far, and what it cost.
UPDATE durably_runs
SET usage = COALESCE(:usage, usage),
    tokens = COALESCE(CAST(:tokens AS BIGINT), tokens),
    cost_nanousd = COALESCE(CAST(:cost_nanousd AS BIGINT), cost_nanousd),
    own_nanousd = COALESCE(CAST(:own_nanousd AS BIGINT), own_nanousd),
    model = COALESCE(CAST(:model AS TEXT), model)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING id;

-- name: hold_run (sqlite)
SELECT id, usage, cost_nanousd FROM durably_runs
WHERE id = :run_id AND attempt = :attempt AND state = 'executing';

-- name: hold_run (postgres)
-- Until this write is committed nobody can take the run; and what is written about one run is
-- written in one order, so that its events' ids are in the order in which they can be seen.
SELECT id, usage, cost_nanousd FROM durably_runs
WHERE id = :run_id AND attempt = :attempt AND state = 'executing' FOR NO KEY UPDATE;

-- name: complete_run
-- As touch_run, and the end.
UPDATE durably_runs
SET state = 'completed', worker_id = NULL, output = :output, error = NULL,
    usage = COALESCE(:usage, usage),
    tokens = COALESCE(CAST(:tokens AS BIGINT), tokens),
    cost_nanousd = COALESCE(CAST(:cost_nanousd AS BIGINT), cost_nanousd),
    own_nanousd = COALESCE(CAST(:own_nanousd AS BIGINT), own_nanousd),
    model = COALESCE(CAST(:model AS TEXT), model),
    finished_at = durably_now(),
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: complete_attempt (postgres)
-- In one round trip what complete_run and close_attempt do, if the run is this attempt's.
WITH run AS (
/*statement complete_run*/),
doubted AS (
    UPDATE durably_effects e SET state = 'in_doubt'
    FROM run WHERE e.run_id = run.id AND e.state = 'started' AND e.attempt <= run.attempt),
ended AS (
    UPDATE durably_attempts a SET ended_at = durably_now(), outcome = 'completed'
    FROM run WHERE a.run_id = run.id AND a.attempt = run.attempt AND a.ended_at IS NULL),
event AS (
    INSERT INTO durably_events (run_id, kind, attempt, data, at)
    SELECT id, 'completed', attempt, '{}', durably_now() FROM run)
SELECT * FROM run;

-- name: fail_run
-- A run that was asked to stop while this attempt was ending stops: nobody has to ask again. The
-- same holds for suspend and hand_back.
UPDATE durably_runs
SET state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                 WHEN failures + 1 >= max_attempts THEN 'discarded'
                 ELSE 'retryable' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR failures + 1 >= max_attempts
                       THEN durably_now() END,
    failures = failures + 1, worker_id = NULL, error = :error,
    scheduled_at = durably_after(:delay_seconds),
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: discard_run
UPDATE durably_runs
SET state = 'discarded', failures = failures + 1, worker_id = NULL, error = :error,
    finished_at = durably_now(),
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: suspend_run (sqlite)
UPDATE durably_runs
SET state = CASE WHEN cancel_requested_at IS NULL THEN 'suspended' ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN durably_now() END,
    waiting_kind = CASE WHEN cancel_requested_at IS NULL THEN :waiting_kind END,
    waiting_on = CASE WHEN cancel_requested_at IS NULL THEN :waiting_on END,
    worker_id = NULL,
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: suspend_run (postgres)
UPDATE durably_runs
SET state = CASE WHEN cancel_requested_at IS NULL THEN 'suspended' ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN durably_now() END,
    waiting_kind = CASE WHEN cancel_requested_at IS NULL THEN :waiting_kind END,
    waiting_on = CASE WHEN cancel_requested_at IS NULL THEN CAST(:waiting_on AS JSON) END,
    worker_id = NULL,
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: hand_back_run
-- Keeps its due time, here and below: it was first in line before and is again.
UPDATE durably_runs
SET state = CASE WHEN cancel_requested_at IS NULL THEN 'available' ELSE 'cancelled' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL THEN durably_now() END,
    worker_id = NULL,
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: stop_run
UPDATE durably_runs
SET state = 'cancelled', worker_id = NULL, finished_at = durably_now(),
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND attempt = :attempt AND state = 'executing'
RETURNING *;

-- name: cancel_run
-- An executing run is only asked to stop: its attempt ends it, or rescue does.
UPDATE durably_runs
SET state = CASE state WHEN 'executing' THEN 'executing' ELSE 'cancelled' END,
    finished_at = CASE state WHEN 'executing' THEN NULL ELSE durably_now() END,
    waiting_kind = NULL, waiting_on = NULL, cancel_requested_at = durably_now()
WHERE key = :key
  AND state IN ('scheduled', 'available', 'executing', 'retryable', 'suspended')
RETURNING *;

-- name: wake_run
-- Not one that waits in a thread's line: whose turn it is says `release_run`.
UPDATE durably_runs
SET state = 'available', waiting_kind = NULL, waiting_on = NULL
WHERE key = :key AND state = 'suspended'
  AND waiting_kind NOT IN ('thread', 'interrupt', 'steer', 'steered')
RETURNING *;

-- name: wake_settled_run
-- Wakes a run that waits for people once nobody is asked for anything any more.
UPDATE durably_runs
SET state = 'available', waiting_kind = NULL, waiting_on = NULL
WHERE id = :run_id AND state = 'suspended' AND waiting_kind = 'effects'
  AND NOT EXISTS (SELECT 1 FROM durably_effects e
                  WHERE e.run_id = durably_runs.id AND e.asked
                    -- As the index has it, of which SQLite asks that it reads the same.
                    AND (e.state = 'started' OR e.state = 'in_doubt' OR e.state = 'awaiting'))
RETURNING *;

-- name: revive_run
UPDATE durably_runs
SET state = CASE WHEN CAST(:waiting_kind AS TEXT) IS NULL THEN 'available' ELSE 'suspended' END,
    waiting_kind = CAST(:waiting_kind AS TEXT), waiting_on = :waiting_on,
    failures = 0, crashes = 0, error = NULL, cancel_requested_at = NULL,
    finished_at = NULL, scheduled_at = durably_now(),
    tells_end = (thread IS NOT NULL OR parent_id IS NOT NULL
                 OR EXISTS (SELECT 1 FROM durably_runs c WHERE c.parent_id = durably_runs.id))
WHERE key = :key AND state IN ('discarded', 'cancelled')
RETURNING *;

-- name: list_orphans (sqlite)
-- Runs whose worker's lease is over, or whose worker is not known at all.
SELECT id FROM durably_runs
WHERE state = 'executing'
  AND worker_id NOT IN (SELECT id FROM durably_workers WHERE expires_at > durably_now())
ORDER BY id;

-- name: list_orphans (postgres)
-- One that somebody is writing about is left for the next look: it must not hold up the others.
SELECT id FROM durably_runs
WHERE state = 'executing'
  AND worker_id NOT IN (SELECT id FROM durably_workers WHERE expires_at > durably_now())
ORDER BY id FOR NO KEY UPDATE SKIP LOCKED;

-- name: rescue_run
UPDATE durably_runs
SET state = CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelled'
                 WHEN crashes + 1 >= max_attempts THEN 'discarded'
                 ELSE 'available' END,
    finished_at = CASE WHEN cancel_requested_at IS NOT NULL OR crashes + 1 >= max_attempts
                       THEN durably_now() END,
    error = CASE WHEN crashes + 1 >= max_attempts
                 THEN 'The worker died in ' || (crashes + 1) || ' attempts; max_attempts is '
                      || max_attempts || '.'
                 ELSE error END,
    crashes = crashes + 1, worker_id = NULL,
    executed_ms = executed_ms + durably_ms_since(attempted_at)
WHERE id = :run_id AND state = 'executing'
  AND worker_id NOT IN (SELECT id FROM durably_workers WHERE expires_at > durably_now())
RETURNING *;

-- name: held_runs
SELECT id, attempt, cancel_requested_at FROM durably_runs
WHERE worker_id = :worker_id AND state = 'executing';

-- name: count_prunable
SELECT count(*) AS runs FROM durably_runs r
WHERE r.state IN ('completed', 'discarded', 'cancelled')
  AND r.finished_at < durably_after(-:older_than_seconds)
  AND (CAST(:state AS TEXT) IS NULL OR r.state = :state)
  AND NOT EXISTS (SELECT 1 FROM durably_runs t WHERE t.thread = r.thread
                  AND (t.finished_at IS NULL
                       OR t.finished_at >= durably_after(-:older_than_seconds)));

-- name: prune_runs (sqlite)
-- The oldest first, by their own index: a batch does not look through all that may stay. A run of a
-- thread stays as long as any of its thread's: later ones start from its history.
DELETE FROM durably_runs WHERE id IN (
    SELECT r.id FROM durably_runs r
    WHERE r.finished_at < durably_after(-:older_than_seconds)
      AND r.state NOT IN ('scheduled', 'available', 'executing', 'retryable', 'suspended')
      AND (CAST(:state AS TEXT) IS NULL OR r.state = :state)
      AND NOT EXISTS (SELECT 1 FROM durably_runs t WHERE t.thread = r.thread
                      AND (t.finished_at IS NULL
                           OR t.finished_at >= durably_after(-:older_than_seconds)))
    ORDER BY r.finished_at LIMIT :limit)
RETURNING id;

-- name: prune_runs (postgres)
-- As on SQLite; locked, so that one that is being revived is looked at again, and stays.
WITH old AS MATERIALIZED (
    SELECT r.id FROM durably_runs r
    WHERE r.finished_at < durably_after(-:older_than_seconds)
      AND r.state NOT IN ('scheduled', 'available', 'executing', 'retryable', 'suspended')
      AND (CAST(:state AS TEXT) IS NULL OR r.state = :state)
      AND NOT EXISTS (SELECT 1 FROM durably_runs t WHERE t.thread = r.thread
                      AND (t.finished_at IS NULL
                           OR t.finished_at >= durably_after(-:older_than_seconds)))
    ORDER BY r.finished_at LIMIT :limit FOR UPDATE SKIP LOCKED)
DELETE FROM durably_runs WHERE id IN (SELECT id FROM old)
RETURNING id;
