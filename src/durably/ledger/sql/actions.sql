-- Actions: appended, never changed.

-- name: insert_action
INSERT INTO durably_actions (at, by, action, run_key, subject, data)
VALUES (durably_now(), :by, :action, :run_key, :subject, :data);

-- name: list_actions
SELECT * FROM durably_actions WHERE id < :before ORDER BY id DESC LIMIT :limit;

-- name: list_actions_on_run
SELECT * FROM durably_actions WHERE run_key = :run_key AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: prune_actions
-- What was done to a run stays as long as the run.
DELETE FROM durably_actions WHERE id IN (
    SELECT a.id FROM durably_actions a
    WHERE a.at < durably_after(-:older_than_seconds) AND a.id <= :upto
      AND (SELECT r.id FROM durably_runs r WHERE r.key = a.run_key) IS NULL
    ORDER BY a.at LIMIT :limit)
RETURNING id;
