-- Workers: one row a process; its lease is the lease of every run that it executes.

-- name: register_worker
INSERT INTO durably_workers (id, name, pid, queues, lease_seconds, started_at, heartbeat_at,
                             expires_at)
VALUES (:id, :name, :pid, :queues, :lease_seconds, durably_now(), durably_now(),
        durably_after(:lease_seconds))
ON CONFLICT (id) DO UPDATE
SET heartbeat_at = excluded.heartbeat_at, expires_at = excluded.expires_at;

-- name: lease_anew
-- The clock was set: who was alive by what it said before, or has a heartbeat that is still to come.
UPDATE durably_workers
SET heartbeat_at = durably_now(), expires_at = durably_after(lease_seconds)
WHERE expires_at > :alive_at OR heartbeat_at > durably_now();

-- name: remove_worker
DELETE FROM durably_workers WHERE id = :id;

-- name: prune_workers
DELETE FROM durably_workers WHERE expires_at < durably_after(-:older_than_seconds);

-- name: list_workers
SELECT w.*, w.expires_at > durably_now() AS alive,
       (SELECT count(*) FROM durably_runs r
        WHERE r.worker_id = w.id AND r.state = 'executing') AS executing
FROM durably_workers w ORDER BY w.started_at;

-- name: count_orphans
SELECT count(*) AS runs FROM durably_runs
WHERE state = 'executing'
  AND worker_id NOT IN (SELECT id FROM durably_workers WHERE expires_at > durably_now());
