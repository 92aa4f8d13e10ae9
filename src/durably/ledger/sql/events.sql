-- Events: append-only facts about a run; the id is the watcher's cursor.

-- name: insert_event
INSERT INTO durably_events (run_id, kind, attempt, data, at)
VALUES (:run_id, :kind, :attempt, :data, durably_now());

-- name: list_events
SELECT e.*, r.key AS run_key FROM durably_events e JOIN durably_runs r ON r.id = e.run_id
WHERE e.run_id = :run_id AND e.id > :after ORDER BY e.id LIMIT :limit;

-- name: list_events_of_attempt
SELECT data FROM durably_events
WHERE run_id = :run_id AND attempt = :attempt AND kind = :kind ORDER BY id;
