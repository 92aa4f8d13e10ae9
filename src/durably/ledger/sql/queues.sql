-- Queues: what was decided for one at run time, for every worker. Most queues have no row.

-- name: pause_queue
INSERT INTO durably_queues (queue, paused, runs_at_once, changed_at)
VALUES (CAST(:queue AS TEXT), TRUE, NULL, durably_now())
ON CONFLICT (queue) DO UPDATE
SET paused = TRUE,
    changed_at = CASE WHEN durably_queues.paused THEN durably_queues.changed_at
                      ELSE excluded.changed_at END
RETURNING *;

-- name: resume_queue
UPDATE durably_queues SET paused = FALSE, changed_at = durably_now()
WHERE queue = :queue AND paused
RETURNING *;

-- name: scale_queue
INSERT INTO durably_queues (queue, paused, runs_at_once, changed_at)
VALUES (CAST(:queue AS TEXT), FALSE, CAST(:runs_at_once AS INTEGER), durably_now())
ON CONFLICT (queue) DO UPDATE
SET runs_at_once = excluded.runs_at_once, changed_at = excluded.changed_at
RETURNING *;

-- name: unscale_queue
UPDATE durably_queues SET runs_at_once = NULL, changed_at = durably_now()
WHERE queue = :queue AND runs_at_once IS NOT NULL
RETURNING *;

-- name: forget_queue
-- A row that says nothing any more.
DELETE FROM durably_queues WHERE queue = :queue AND NOT paused AND runs_at_once IS NULL
RETURNING queue;

-- name: get_queue
SELECT * FROM durably_queues WHERE queue = :queue;

-- name: list_queue_settings
SELECT * FROM durably_queues;
