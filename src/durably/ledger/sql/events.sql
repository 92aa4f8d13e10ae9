-- Events: append-only facts about a run, and deltas, which go when the message that they form comes;
-- the id is the watcher's cursor.

-- name: insert_event
INSERT INTO durably_events (run_id, kind, attempt, data, at)
VALUES (:run_id, :kind, :attempt, :data, durably_now());

-- name: insert_two_events
INSERT INTO durably_events (run_id, kind, attempt, data, at)
VALUES (:run_id, :kind_a, :attempt, :data_a/*postgres: ::JSON*/, durably_now()),
       (:run_id, :kind_b, :attempt, :data_b/*postgres: ::JSON*/, durably_now());

-- name: list_events
SELECT e.*, r.key AS run_key FROM durably_events e JOIN durably_runs r ON r.id = e.run_id
WHERE e.run_id = :run_id AND e.id > :after ORDER BY e.id LIMIT :limit;

-- name: list_facts
-- What stays; without the pieces of messages in the making.
SELECT e.*, r.key AS run_key FROM durably_events e JOIN durably_runs r ON r.id = e.run_id
WHERE e.run_id = :run_id AND e.id > :after AND e.kind <> 'delta' ORDER BY e.id LIMIT :limit;

-- name: newest_end
-- After which nothing of what was shown before is in the making any more.
SELECT id FROM durably_events
WHERE run_id = :run_id
  AND kind IN ('step', 'claimed', 'completed', 'discarded', 'cancelled', 'enqueued')
ORDER BY id DESC LIMIT 1;

-- name: list_events_of_attempt
SELECT data FROM durably_events
WHERE run_id = :run_id AND attempt = :attempt AND kind = :kind ORDER BY id;

-- name: insert_delta
-- Not of a message that is there; and not twice, if nobody heard whether it was committed: then it
-- is newer than the last one known of.
INSERT INTO durably_events (run_id, kind, attempt, data, at)
SELECT r.id, 'delta', r.attempt, :data, durably_now()
FROM durably_runs r
WHERE r.id = :run_id AND r.attempt = :attempt
  AND NOT EXISTS (SELECT 1 FROM durably_messages m WHERE m.run_id = r.id AND m.seq >= :message)
  AND NOT EXISTS (SELECT 1 FROM durably_events d
                  WHERE d.run_id = r.id AND d.kind = 'delta' AND d.id > :last)
RETURNING id;

-- name: newest_delta
SELECT max(id) AS id FROM durably_events WHERE run_id = :run_id AND kind = 'delta';

-- name: first_delta
SELECT data FROM durably_events
WHERE run_id = :run_id AND kind = 'delta' AND id > :after ORDER BY id LIMIT 1;

-- name: drop_deltas
DELETE FROM durably_events WHERE run_id = :run_id AND kind = 'delta' AND id > :after
RETURNING id;

-- name: insert_claimed_events (sqlite)
-- Of runs that were claimed a moment ago, in this transaction.
INSERT INTO durably_events (run_id, kind, attempt, data, at)
SELECT id, 'claimed', attempt, json_object('worker', worker_id), durably_now() FROM durably_runs
WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id;

-- name: insert_claimed_events (postgres)
INSERT INTO durably_events (run_id, kind, attempt, data, at)
SELECT id, 'claimed', attempt, json_build_object('worker', worker_id), durably_now()
FROM durably_runs
WHERE id IN (SELECT CAST(json_array_elements_text(CAST(:ids AS JSON)) AS BIGINT)) ORDER BY id;

-- name: insert_enqueued_events (sqlite)
INSERT INTO durably_events (run_id, kind, attempt, data, at)
SELECT id, 'enqueued', attempt, json_object('agent', agent, 'queue', queue), durably_now()
FROM durably_runs WHERE id IN (SELECT value FROM json_each(:ids)) ORDER BY id;

-- name: insert_enqueued_events (postgres)
INSERT INTO durably_events (run_id, kind, attempt, data, at)
SELECT id, 'enqueued', attempt, json_build_object('agent', agent, 'queue', queue), durably_now()
FROM durably_runs
WHERE id IN (SELECT CAST(json_array_elements_text(CAST(:ids AS JSON)) AS BIGINT)) ORDER BY id;
