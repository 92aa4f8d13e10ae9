-- Decisions: appended, never changed.

-- name: insert_decision
INSERT INTO durably_decisions (run_id, response, call, step, decision, by, note, args_before,
                               args_after, at)
VALUES (:run_id, :response, :call, :step, :decision, :by, :note, :args_before, :args_after,
        durably_now());

-- name: list_decisions
SELECT * FROM durably_decisions WHERE run_id = :run_id ORDER BY id;

-- name: escalate_run
-- It waits, so that nobody has a job for it: the one that wakes it is in its new queue.
UPDATE durably_runs SET tags = :tags, queue = COALESCE(:queue, queue) WHERE id = :run_id;
