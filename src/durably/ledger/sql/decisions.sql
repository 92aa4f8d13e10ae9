-- Decisions: appended, never changed.

-- name: insert_decision
INSERT INTO durably_decisions (run_id, response, call, step, decision, by, note, args_before,
                               args_after, at)
VALUES (:run_id, :response, :call, :step, :decision, :by, :note, :args_before, :args_after,
        durably_now());

-- name: list_decisions
SELECT * FROM durably_decisions WHERE run_id = :run_id ORDER BY id;

-- name: add_tag
UPDATE durably_runs SET tags = :tags WHERE id = :run_id;
